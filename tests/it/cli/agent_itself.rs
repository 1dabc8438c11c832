//! Commands about the agent itself: its version, its log's level, its configuration; and what shells and man(1) read.

use std::fs;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use lab::process;
use lab::world::Builder;
use lab::{Lab, World, agent, wait_until};
use serde_json::{Value, json};

use super::document;

fn run(lab: &Lab, args: &[&str], input: &[u8]) -> process::Finished {
    let mut command = lab.node.command(agent::program("multus-agent"));
    command.args(args).env("MULTUS_SOCKET", lab.socket_dir.join("multus.sock"));
    process::run(&mut command, input, Duration::from_secs(15))
}

#[test]
fn versions_are_compared_and_without_an_agent_ours_is_said() {
    needs_programs!();
    let lab = Lab::new("cli-version");
    let ours = env!("CARGO_PKG_VERSION");
    // First nobody is there; then somebody who takes the question and never answers.
    for (code, why) in [(3, "cannot be reached"), (4, "did not answer within 5 s")] {
        let alone = run(&lab, &["version"], b"");
        assert_eq!(alone.code, Some(code), "{}\n{}", alone.out(), alone.err());
        assert!(alone.out().contains(ours) && !alone.out().contains("agent"), "{}", alone.out());
        assert!(alone.err().contains(why), "{}", alone.err());
        if code == 3 {
            let alone = run(&lab, &["version", "-o", "json"], b"");
            let said: Value = serde_json::from_slice(&alone.stdout).expect("JSON");
            assert_eq!((alone.code, &said["client"]["version"]), (Some(3), &json!(ours)), "{said:#}");
            assert!(said["agent"].is_null() && said["unreachable"].is_string(), "{said:#}");
            fs::create_dir_all(&lab.socket_dir).expect("make a folder");
            let listener = UnixListener::bind(lab.socket_dir.join("multus.sock")).expect("listen");
            std::thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
        }
    }
    fs::remove_file(lab.socket_dir.join("multus.sock")).expect("take the socket away");
    let world = Builder::on(lab).start();
    let both = document(&world.agent.cli(&world.lab, &["version", "-o", "json"]));
    assert_eq!((&both["client"], &both["skew"]), (&both["agent"], &json!(false)));
}

#[test]
fn the_log_level_is_turned_for_a_while_and_comes_back_by_itself() {
    needs_programs!();
    let world = World::new("cli-level");
    let level = || document(&world.agent.cli(&world.lab, &["log-level", "get", "-o", "json"]));
    assert_eq!((&level()["level"], &level()["revertsIn"]), (&json!("verbose"), &Value::Null));
    let said = |world: &World| world.agent.log_text().matches("verb=\"ADD\"").count();
    let first = world.attached("first", "lan");
    let before = said(&world);
    assert!(before > 0, "what is done is said at this level");
    let turned = document(&world.agent.cli(&world.lab, &["log-level", "set", "error", "--for", "1h", "-o", "json"]));
    assert_eq!((&turned["level"], &turned["configured"]), (&json!("error"), &json!("verbose")));
    world.del(&first).expect_ok();
    let second = world.attached("second", "lan");
    assert_eq!(said(&world), before, "and not at that one");
    // A later turn has its own end; that of the first changes nothing.
    world.agent.cli(&world.lab, &["log-level", "set", "debug", "--for", "1s"]);
    assert_eq!(level()["level"], "debug");
    assert!(wait_until(Duration::from_secs(8), || level()["level"] == "verbose"), "{}", level());
    world.del(&second).expect_ok();
    let _third = world.attached("third", "lan");
    assert_eq!(said(&world), before + 1, "and it is as it was");
    assert_eq!(world.agent.cli(&world.lab, &["log-level", "set", "loud"]).code, Some(2));
    assert_eq!(world.agent.cli(&world.lab, &["log-level", "set", "debug", "--for", "48h"]).code, Some(2));
}

#[test]
fn the_settings_that_hold_say_where_they_are_from() {
    needs_programs!();
    let secret = json!([{"name": "n", "type": "bridge", "password": "canary-5e"}]);
    let world = Builder::new("cli-settings")
        .configure(|config, _| {
            config["delegates"] = secret;
            config["binDri"] = "/x".into();
            config.as_object_mut().expect("an object").remove("nodeName");
        })
        .start();
    let shown = document(&world.agent.cli(&world.lab, &["config", "view", "-o", "json"]));
    let of = |key: &str| {
        let all = shown["settings"].as_array().expect("settings");
        all.iter().find(|setting| setting["key"] == key).unwrap_or_else(|| panic!("no {key}")).clone()
    };
    assert_eq!((&of("requestTimeout")["value"], &of("requestTimeout")["from"]), (&json!("20s"), &json!("file")));
    assert_eq!((&of("datapath.slots")["value"], &of("datapath.slots")["from"]), (&json!(512), &json!("default")));
    assert_eq!((&of("nodeName")["value"], &of("nodeName")["from"]), (&json!("lab-node"), &json!("environment")));
    assert!(shown["warnings"][0].as_str().is_some_and(|warning| warning.contains("binDir")), "{}", shown["warnings"]);
    for format in ["table", "wide", "json", "yaml"] {
        let out = world.agent.cli(&world.lab, &["config", "view", "-o", format]).out();
        assert!(out.contains("requestTimeout") && !out.contains("canary-5e"), "{format}: {out}");
    }
}

#[test]
fn a_file_is_validated_as_run_would_judge_it() {
    needs_programs!();
    let lab = Lab::new("cli-validate");
    let defaults = run(&lab, &["config", "default"], b"");
    let good = run(&lab, &["config", "validate", "-"], &defaults.stdout);
    assert_eq!(good.code, Some(0), "{}\n{}", good.out(), good.err());
    let file = lab.dir.join("bad.json");
    let mut bad = agent::config(&lab);
    bad["datapath"]["slots"] = 0.into();
    fs::write(&file, bad.to_string()).expect("write");
    let path = file.to_str().expect("a path");
    let judged = run(&lab, &["config", "validate", path], b"");
    let refused = run(&lab, &["run", "--config", path], b"");
    assert_eq!((judged.code, refused.code), (Some(1), Some(1)));
    for word in ["datapath.slots is 0", "write a whole number from 1 to 65534"] {
        assert!(judged.out().contains(word) && refused.err().contains(word), "{}\n{}", judged.out(), refused.err());
    }
    let hostile = run(&lab, &["config", "validate", "-"], b"{\"x\\u001b[2J\": 1}");
    assert!(!hostile.out().contains('\u{1b}') && hostile.code == Some(0), "{:?}", hostile.out());
    let schema: Value = serde_json::from_slice(&run(&lab, &["config", "schema"], b"").stdout).expect("a schema");
    assert_eq!(schema["properties"]["datapath"]["properties"]["slots"]["maximum"], 65534);
    assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(false)));
}

#[test]
fn completions_and_manual_are_printed_and_put_into_a_folder() {
    needs_programs!();
    let lab = Lab::new("cli-shell");
    for shell in ["bash", "zsh", "fish"] {
        let done = run(&lab, &["completion", shell], b"");
        assert!(done.success() && done.out().contains("attachments"), "{shell}: {}", done.err());
    }
    let bash = run(&lab, &["completion", "bash"], b"").out();
    // What bash itself makes of it: the words that complete `get att`.
    let function = bash.split("complete -F ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a function");
    let script = format!(
        "{bash}\nCOMP_WORDS=(multus-agent get att) COMP_CWORD=2\n{function} multus-agent att get\necho \"${{COMPREPLY[@]}}\""
    );
    let done = process::run(lab.node.command("bash").args(["-c", &script]), b"", Duration::from_secs(10));
    assert_eq!(done.out().trim(), "attachments", "{}", done.err());
    let folder = lab.dir.join("man");
    let path = folder.to_str().expect("a path");
    assert!(run(&lab, &["man", "--dir", path], b"").success());
    assert!(run(&lab, &["completion", "bash", "--dir", path], b"").success());
    let page = fs::read_to_string(folder.join("multus-agent-get.1")).expect("a page");
    assert!(page.contains(".SH NAME") && page.contains("attachments"), "{page}");
    assert!(folder.join("multus-agent.bash").exists());
    assert_eq!(run(&lab, &["man", "--dir", "/proc/no"], b"").code, Some(1));
}
