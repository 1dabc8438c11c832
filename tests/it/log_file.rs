//! Whether the agent's log file has Multus's form and levels, and outlives whoever moves it away.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::world::Builder;
use lab::{Lab, World, agent, process, wait_until};
use serde_json::json;

fn with_log(name: &str, level: &str) -> (World, PathBuf) {
    let builder = Builder::new(name);
    let file = builder.lab.dir.join("not/there/yet/multus.log");
    let path = file.clone();
    let builder = builder.configure(|config, _| {
        config["logFile"] = json!(path);
        config["logLevel"] = level.into();
        config["logToStderr"] = false.into();
        config["noSuchKey"] = 1.into();
    });
    (builder.start(), file)
}

#[test]
fn lines_have_multuss_form() {
    needs_programs!();
    let (mut world, file) = with_log("log", "Verbose");
    let text = fs::read_to_string(&file).expect("read the log");
    for line in text.lines() {
        let (time, rest) = line.split_once(' ').expect("a time");
        let digits: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(digits, "0000-00-00T00:00:00Z", "{line}");
        assert!(rest.starts_with("[verbose] ") || rest.starts_with("[error] "), "{line}");
    }
    assert!(text.contains("[error] warning: configuration: \"noSuchKey\""), "{text}");
    assert!(!world.agent.log_text().contains("[verbose]"), "logToStderr is false: {}", world.agent.log_text());
    // logrotate moves it, and the agent opens another one; a line of every start tells.
    fs::rename(&file, file.with_extension("old")).expect("move the log");
    world.agent.term();
    let again = fs::read_to_string(&file).expect("the log is there again");
    assert!(again.contains("stopping"), "{again}");
    fs::remove_dir_all(file.parent().expect("a folder")).expect("remove the folder");
    world.agent.start_again(&world.lab);
    assert!(wait_until(Duration::from_secs(2), || fs::read_to_string(&file).is_ok_and(|text| text.contains("serving"))));
}

#[test]
fn levels_choose() {
    needs_programs!();
    for (level, has_warnings, has_news) in [("PANIC", false, false), ("error", true, false), ("debug", true, true)] {
        let (world, file) = with_log(&format!("level-{level}"), level);
        let text = fs::read_to_string(&file).expect("read the log");
        assert_eq!(text.contains("warning: "), has_warnings, "{level}: {text}");
        assert_eq!(text.contains("[verbose]"), has_news, "{level}: {text}");
        drop(world);
    }
}

#[test]
fn a_log_that_cannot_be_opened_is_said_at_the_start() {
    needs_programs!();
    let lab = Lab::new("nolog");
    let mut config = agent::config(&lab);
    config["logFile"] = json!(lab.dir.join("daemon-config.json/multus.log"));
    let file = lab.dir.join("daemon-config.json");
    fs::write(&file, config.to_string()).expect("write the config");
    let mut command = lab.node.command(agent::program("multus-agent"));
    let done = process::run(command.args(["run", "--config"]).arg(&file), b"", Duration::from_secs(5));
    let text = done.err() + &done.out();
    assert!(!done.timed_out && done.code != Some(0), "the agent went on: {text}");
    assert!(text.contains("logFile") && text.contains("multus.log"), "the refusal names key and file: {text}");
}
