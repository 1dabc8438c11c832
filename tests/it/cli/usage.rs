//! Exit code 2 says that the question makes no sense, 1 that the answer is a problem; whoever notices, program or agent.

use std::fs;

use lab::World;

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
