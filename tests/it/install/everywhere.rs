//! `uninstall --everywhere`: what the chart's hook runs, against a double of the API server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use lab::{Lab, agent, process};
use serde_json::{Value, json};

/// As far as the program reads it.
const PATCH: &str = r#"[{"op":"replace","path":"/spec/template/spec/initContainers/0/args","value":["uninstall"]}]"#;

pub(crate) fn daemon_set(first: &str, desired: u64, ready: u64) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "multus-ebpf", "namespace": "multus-ebpf", "generation": 2},
        "spec": {"template": {"spec": {"initContainers": [{"name": "install", "args": [first, "--config=x"]}]}}},
        "status": {"observedGeneration": 2, "desiredNumberScheduled": desired, "updatedNumberScheduled": ready, "numberReady": ready},
    })
}

/// Serves these answers one after the other, each to the next request; the last one for good. Tells what was asked.
pub(crate) fn server(answers: Vec<(u16, Value)>) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut at = 0;
        for stream in listener.incoming().flatten() {
            let Some(asked) = read(&stream) else { continue };
            let (status, body) = &answers[at.min(answers.len() - 1)];
            at += 1;
            let text = body.to_string();
            let _ = write!(
                &stream,
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                text.len()
            );
            if tell.send(asked).is_err() {
                return;
            }
        }
    });
    (address, told)
}

fn read(stream: &TcpStream) -> Option<(String, String)> {
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let (mut reader, mut first, mut length) = (BufReader::new(stream), String::new(), 0);
    reader.read_line(&mut first).ok()?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((first, String::from_utf8(body).ok()?))
}

fn run(lab: &Lab, address: &str, more: &[&str]) -> process::Finished {
    let kubeconfig = lab.dir.join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": address}}], "users": [{"name": "x", "user": {}}]});
    std::fs::write(&kubeconfig, config.to_string()).expect("write a kubeconfig");
    let patch = lab.dir.join("patch.json");
    std::fs::write(&patch, PATCH).expect("write a patch");
    let mut command = std::process::Command::new(agent::program("multus-agent"));
    command.args(["uninstall", "--everywhere=multus-ebpf/multus-ebpf"]).arg("--patch").arg(patch);
    command.arg("--kubeconfig").arg(kubeconfig).args(more);
    process::run(&mut command, b"", Duration::from_secs(20))
}

#[test]
fn the_hook_turns_the_daemon_set_around_and_waits_for_every_node() {
    needs_programs!();
    let lab = Lab::new("everywhere");
    let answers = [("uninstall", 2, 0), ("uninstall", 2, 1), ("uninstall", 2, 2)];
    let answers = answers.map(|(first, desired, ready)| (200, daemon_set(first, desired, ready))).to_vec();
    let (address, told) = server(answers);
    let done = run(&lab, &address, &[]);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert!(done.out().contains("1 of 2 nodes") && done.out().contains("2 of 2 nodes are done"), "{}", done.out());
    let (first, body) = told.recv().unwrap();
    assert!(first.starts_with("PATCH /apis/apps/v1/namespaces/multus-ebpf/daemonsets/multus-ebpf"), "{first}");
    assert_eq!(body, PATCH);
}

#[test]
fn the_hook_can_be_run_again_and_says_what_it_waits_for() {
    needs_programs!();
    let lab = Lab::new("everywhere");
    let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Invalid", "message": "no\u{1b}[2J", "code": 422});
    let (address, _told) = server(vec![(422, refusal.clone()), (200, daemon_set("uninstall", 1, 1))]);
    assert_eq!(run(&lab, &address, &[]).code, Some(0));
    // Another way off is not this one.
    let (address, _told) = server(vec![(422, refusal.clone()), (200, daemon_set("migrate", 1, 1))]);
    let other = run(&lab, &address, &[]);
    assert!(
        other.code == Some(1) && other.err().contains("already, to migrate --back"),
        "{:?} {}",
        other.code,
        other.err()
    );
    let (address, _told) = server(vec![(422, refusal), (200, daemon_set("install", 1, 1))]);
    let other = run(&lab, &address, &[]);
    assert!(other.code == Some(1) && other.err().contains("does not fit"), "{:?} {}", other.code, other.err());
    assert!(!other.err().contains('\u{1b}'), "{:?}", other.err());
    let (address, _told) = server(vec![(200, daemon_set("uninstall", 3, 1))]);
    let late = run(&lab, &address, &["--timeout", "1s"]);
    assert!(late.code == Some(4) && late.err().contains("1 of 3 nodes"), "{:?} {}", late.code, late.err());
    let gone = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "message": "no", "code": 404});
    let (address, _told) = server(vec![(404, gone)]);
    assert_eq!(run(&lab, &address, &[]).code, Some(0));
}
