//! `sysdump`: one archive that says all there is to say, and no secret, wherever one was put.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lab::world::Builder;
use lab::{World, process};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

fn dump(world: &World, name: &str) -> PathBuf {
    let file = world.lab.dir.join(format!("{name}.tar.gz"));
    let mut command = Command::new(lab::agent::program("multus-agent"));
    command.arg("sysdump").arg("-w").arg(&file).env("LAB_PASSWORD", "canary-environment");
    command.arg("--socket").arg(world.lab.socket_dir.join("multus.sock"));
    let done = process::run(&mut command, b"", LIMIT);
    assert!(done.success() && done.err().contains("MANIFEST.json"), "{}", done.err());
    assert_eq!(fs::metadata(&file).expect("the archive").permissions().mode() & 0o777, 0o600);
    file
}

/// Unpacks an archive and gives the folder with its files; tar itself says that there is nothing but plain files.
fn unpack(world: &World, archive: &Path, into: &str) -> (PathBuf, BTreeSet<String>) {
    let folder = world.lab.dir.join(into);
    fs::create_dir_all(&folder).expect("make a folder");
    let listed = process::tool(Command::new("tar").arg("-tvzf").arg(archive));
    let listed = String::from_utf8_lossy(&listed).into_owned();
    assert!(listed.lines().all(|line| line.starts_with("-rw-------") && line.contains(" multus-sysdump/")), "{listed}");
    process::tool(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(&folder));
    let folder = folder.join("multus-sysdump");
    let names = fs::read_dir(&folder).expect("the files").flatten();
    let names = names.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    (folder, names)
}

fn json_of(folder: &Path, name: &str) -> Value {
    let text = fs::read_to_string(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}\n{text}"))
}

#[test]
fn no_secret_is_in_the_archive_wherever_it_was_put() {
    needs_programs!();
    let mut builder = Builder::new("sysdump");
    let mut lan = builder.lab.macvlan("bridge");
    lan["password"] = "canary-network".into();
    lan["args"] = json!({"cni": {"token": "canary-argument", "keys": ["canary-list"], "name": "canary-named"}});
    lan["vendor"] = json!({"type": "canary-below", "mode": "canary-mode"});
    builder.lab.network("default", "lan", &lan, &json!({"example.com/secret": "canary-annotation"}));
    // Values of its own configuration are out of it before anybody hears them; those of another network's are not.
    let words = r#"{"code": 77, "msg": "cannot log in with canary-echo as canary-list, pin canary-gone"}"#;
    let plugin = builder.lab.bin_dir.join("broken");
    fs::write(&plugin, format!("#!/bin/sh\ncat >/dev/null\necho '{words}'\nexit 1\n")).expect("a plugin");
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).expect("let it be started");
    let mut broken = json!({"cniVersion": "1.0.0", "type": "broken"});
    broken["loginToken"] = "canary-echo".into();
    builder.lab.network("default", "broken", &broken, &json!({}));
    let kubeconfig = builder.lab.dir.join("kubeconfig");
    fs::write(&kubeconfig, "users: [{name: a, user: {token: canary-kubeconfig}}]").expect("write");
    let log = builder.lab.dir.join("agent-file.log");
    builder.config["kubeconfig"] = json!(kubeconfig);
    builder.config["logFile"] = json!(log);
    let mut world = builder.start();
    world.runtime.gives_annotations = true;
    let networks = json!([{"name": "lan", "cni-args": {"pin": "canary-pod", "deep": [{"x": "canary-deep"}]}}]);
    let pod = world.lab.pod("viewer").networks(networks.to_string()).annotate("example.com/key", "canary-own");
    world.lab.pod_object(&pod);
    world.add(&pod).expect_ok();
    let with_pin = json!([{"name": "broken", "cni-args": {"pin": "canary-gone"}}]);
    let refused = world.lab.pod("refused").networks(with_pin.to_string());
    assert!(!world.add(&refused).ok(), "a plugin that fails");
    let said = fs::read_to_string(&log).expect("the log");
    assert!(said.contains("as canary-list, pin <value of pin>"), "the plugin's own words are in the log: {said}");

    let archive = dump(&world, "node");
    let (folder, names) = unpack(&world, &archive, "unpacked");
    for name in &names {
        let text = fs::read_to_string(folder.join(name)).expect("text");
        let at = text.find("canary").map(|at| &text[at.saturating_sub(80)..(at + 40).min(text.len())]);
        assert_eq!(at, None, "{name} has a secret");
    }
    let log = fs::read_to_string(folder.join("log.txt")).expect("the log's end");
    assert!(
        log.contains("cannot log in with <value of loginToken> as <taken out>, pin <value of pin>"),
        "the sentence is there without it: {log}"
    );

    // What helps is there.
    let manifest = json_of(&folder, "MANIFEST.json");
    let told = |file: &str| {
        let files = manifest["files"].as_array().expect("files");
        files.iter().find(|each| each["file"] == file).unwrap_or_else(|| panic!("{file}: {manifest:#}")).clone()
    };
    for name in names.iter().filter(|name| *name != "MANIFEST.json") {
        assert!(told(name)["leftOut"].is_null() && told(name)["bytes"].is_u64(), "{name}: {}", told(name));
    }
    for (file, words) in [
        ("status.json", &["\"subsystems\""][..]),
        ("attachments.json", &["\"viewer\"", "\"net1\"", "\"lab-default\""]),
        ("networks.json", &["\"broken\"", "\"macvlan\""]),
        ("relay.json", &["\"mdns\"", "\"eth0\""]),
        ("records.json", &["\"viewer\"", "\"stdinBytes\""]),
        ("links.json", &["\"default/viewer\"", "MacVlan", "192.168.50."]),
        ("node.json", &["\"CapEff\"", "\"release\"", "\"isBpffs\": true"]),
        ("config.json", &["\"socketDir\"", "a file, which is not shown"]),
        ("metrics.txt", &["multus_cni_requests_total"]),
        ("version.json", &["\"kernel\""]),
        ("refusals.json", &["\"refused\""]),
        ("traces.json", &["\"viewer\"", "\"steps\"", "<taken out>"]),
    ] {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        for word in words {
            assert!(text.contains(word), "{file} lacks {word}: {text}");
        }
    }
    assert!(manifest["never"].as_array().is_some_and(|never| never.len() > 3), "{manifest:#}");

    // The list says the same, without an agent.
    let mut list = Command::new(lab::agent::program("multus-agent"));
    let list = process::run(list.args(["sysdump", "--list", "-o", "json"]), b"", LIMIT);
    let list: Value = serde_json::from_slice(&list.stdout).expect("a document");
    let listed: BTreeSet<String> = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["file"].as_str().expect("a name").to_owned())
        .collect();
    let in_manifest: BTreeSet<String> = manifest["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|item| item["file"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(listed, in_manifest);
    let beyond: Vec<_> = names.iter().filter(|name| !listed.contains(*name)).collect();
    assert_eq!(beyond, ["MANIFEST.json"]);
}

#[test]
fn a_log_that_is_a_link_stays_out_and_a_link_is_never_written_through() {
    needs_programs!();
    let builder = Builder::new("sysdump-link");
    let log = builder.lab.dir.join("agent-file.log");
    let world = builder.configure(|config, _| config["logFile"] = json!(log)).start();
    let secret = world.lab.dir.join("secret");
    fs::write(&secret, "canary").expect("write");
    fs::remove_file(&log).expect("take the log away");
    symlink(&secret, &log).expect("a link in its place");
    let archive = dump(&world, "node");
    let (folder, names) = unpack(&world, &archive, "unpacked");
    assert!(!names.contains("log.txt"), "{names:?}");
    let manifest = json_of(&folder, "MANIFEST.json").to_string();
    assert!(manifest.contains("read the log file") && !manifest.contains("canary"), "{manifest}");
    let link = world.lab.dir.join("link.tar.gz");
    symlink(&secret, &link).expect("a link");
    let done = world.agent.cli(&world.lab, &["sysdump", "-w", &link.display().to_string()]);
    assert_eq!(done.code, Some(1), "{}", done.err());
    assert_eq!(fs::read_to_string(&secret).expect("read"), "canary");
    // An archive of yesterday stays until there is another: without an agent there is none.
    let nobody = world.lab.dir.join("nobody.sock").display().to_string();
    let yesterdays = fs::read(&archive).expect("the archive");
    let path = archive.display().to_string();
    for args in [&["sysdump", "-w", &path][..], &["capture", "--relay", "-w", &path]] {
        let done = world.agent.cli(&world.lab, &[args, &["--socket", &nobody]].concat());
        assert_eq!(done.code, Some(3), "{args:?}: {}", done.err());
        assert!(fs::read(&archive).expect("the archive") == yesterdays, "{args:?} took the old one");
    }
    for args in [&["sysdump"][..], &["sysdump", "--list", "-w", "x"]] {
        assert_eq!(world.agent.cli(&world.lab, args).code, Some(2), "{args:?}");
    }
}
