//! Exit code 2 says that the question makes no sense, 1 that the answer is a problem; whoever notices, program or agent.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{Lab, World, agent, process, sys};
use serde_json::json;

#[test]
fn questions_that_make_no_sense_are_2_and_bad_answers_1() {
    needs_programs!();
    let world = World::new("cli-usage");
    let pod = world.attached("cam", "lan");
    let file = world.lab.dir.join("x.pcapng");
    let file = file.to_str().expect("a path");
    for (code, args) in [
        // What the program itself can tell.
        (2, &["get", "frobs"][..]),
        (2, &["top", "relay", "--sort", "pods"]),
        (2, &["check", "--category", "kernal"]),
        (2, &["trace", "--verb", "make"]),
        (2, &["log-level", "set", "loud"]),
        (2, &["explain", "pod", "a/b/c"]),
        (2, &["capture", "--parent", "eth0", "-w", file, "--for", "25h"]),
        // What only the agent can.
        (2, &["capture", "--parent", "eth0", "-w", file, "--for", "2h"]),
        (2, &["capture", "--attachment", "cam", "-w", file]),
        (2, &["relay", "why", "x", "--pod", "cam"]),
        (2, &["relay", "why", "x", "--protocol", "nonsense"]),
        (2, &["relay", "ping", "--pod", "cam"]),
        // What is asked for makes sense, and is not there, or not well.
        (1, &["capture", "--attachment", "default/cam/eth9", "-w", file]),
        (1, &["capture", "--parent", "lo", "-w", file]),
        (1, &["relay", "ping", "--pod", "default/nobody"]),
        (1, &["relay", "ping", "--parent", "lo"]),
        (1, &["relay", "why", "nobody-says-this", "--pod", "default/cam"]),
        (1, &["describe", "attachment", "default/nobody"]),
        (1, &["explain", "pod", "default/nobody"]),
        (0, &["describe", "attachment", "default/cam"]),
    ] {
        let done = world.agent.cli(&world.lab, args);
        assert_eq!(done.code, Some(code), "{args:?}: {}\n{}", done.out(), done.err());
        assert!(code != 2 || !done.err().is_empty(), "{args:?}: it is said why");
    }
    assert!(!fs::exists(file).expect("look for the file"), "nothing is written for a question without an answer");
    world.del(&pod).expect_ok();
}

#[test]
fn an_agent_that_lets_nobody_in_or_never_answers_is_timed_out() {
    needs_programs!();
    let builder = Builder::new("cli-full");
    let (full, silent) = (builder.lab.dir.join("full.sock"), builder.lab.dir.join("silent.sock"));
    let listeners = [&full, &silent].map(|path| UnixListener::bind(path).expect("a socket"));
    sys::shorten_queue(&listeners[0]).expect("make its queue short");
    let _waiting = UnixStream::connect(&full).expect("there is room for one");
    let version = |socket: &std::path::Path| {
        let mut command = builder.lab.node.command(agent::program("multus-agent"));
        process::run(command.args(["version", "--socket"]).arg(socket), b"", Duration::from_secs(20))
    };
    let (full, silent) = std::thread::scope(|scope| {
        let asked = scope.spawn(|| version(&full));
        let silent = version(&silent);
        (asked.join().expect("an end"), silent)
    });
    for (done, what) in [(full, "full"), (silent, "silent")] {
        assert_eq!((done.timed_out, done.code), (false, Some(4)), "{what}: {}", done.err());
        let words = ["the agent at ", what, "did not answer within 5 s"];
        assert!(words.iter().all(|word| done.err().contains(word)), "{what}: {}", done.err());
    }
}

#[test]
fn the_cni_plugin_does_not_wait_for_room_either() {
    needs_programs!();
    let mut world = World::new("cli-full-shim");
    let pod = world.attached("cam", "lan");
    world.agent.kill9();
    let socket = world.agent.socket().to_owned();
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).expect("a socket");
    sys::shorten_queue(&listener).expect("make its queue short");
    let waiting = UnixStream::connect(&socket).expect("there is room for one");
    world.runtime.version = "1.1.0".into();
    let began = Instant::now();
    world.runtime.status(&world.lab).expect_error(50);
    assert!(began.elapsed() < Duration::from_secs(4), "STATUS took {:?}", began.elapsed());
    drop((waiting, listener));
    fs::remove_file(&socket).expect("take the socket away");
    world.agent.start_again(&world.lab);
    world.del(&pod).expect_ok();
}

#[test]
fn no_name_of_a_file_and_nothing_in_it_moves_the_cursor() {
    needs_programs!();
    let lab = Lab::new("cli-hostile");
    let folder = lab.dir.join("\u{1b}[2J");
    fs::create_dir_all(&folder).expect("make a folder");
    let odd = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}";
    let put = |name: &str, text: String| {
        let file = folder.join(format!("{odd}{name}"));
        fs::write(&file, text).expect("write a file");
        file.display().to_string()
    };
    let known = put("known.json", json!({"logLevel": odd, "cniDir": 5}).to_string());
    let unknown = put("unknown.json", json!({odd: 1, "binDir": format!("/{odd}"), "cniConfigDir": odd}).to_string());
    let torn = put("torn.json", format!("{{\"{odd}\": {odd}"));
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": odd, "annotations": {
        "k8s.v1.cni.cncf.io/networks": format!("[{{\"name\": \"{odd}\", \"interface\": \"{odd}\"}}]")}}});
    let pod = put("pod.json", pod.to_string());
    let missing = folder.join(odd).display().to_string();
    let commands = ["config validate", "config validate -o name", "lint", "explain file", "check --pre --config"];
    let of_hosts = ["install --dry-run --config", "uninstall --dry-run --config", "run --config"];
    let of_multus = ["migrate --dry-run --config", "migrate --back --dry-run --config", "lint --config"];
    let of_sockets = ["status --socket", "version --socket", "top --once --socket", "sysdump -w x --socket"];
    for command in commands.iter().chain(&of_hosts).chain(&of_multus).chain(&of_sockets) {
        for file in [&known, &unknown, &torn, &pod, &missing] {
            // An agent that would run is none that has nothing to say.
            if command.starts_with("run") && *file == unknown {
                continue;
            }
            let mut program = lab.node.command(agent::program("multus-agent"));
            program.args(command.split(' ')).arg(file).args(command.starts_with("lint --").then_some(&pod));
            let done = process::run(&mut program, b"", Duration::from_secs(10));
            let said = format!("{}{}", done.out(), done.err());
            let harmless = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}');
            assert!(!said.is_empty() && said.chars().all(harmless), "{command} {file:?}: {said:?}");
        }
    }
}
