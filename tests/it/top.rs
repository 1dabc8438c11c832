//! `top`: live rates as tables and documents; on a terminal in place, and off it again.

use std::process::Command;
use std::time::Duration;

use lab::udp::FAMILIES;
use lab::{Protocol, Voice, World, agent, process};
use serde_json::Value;

fn once(world: &World, args: &[&str]) -> Vec<Value> {
    let done = world.agent.cli(&world.lab, &[&["top"], args, &["--once", "-o", "json"]].concat());
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    let document: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!((document["apiVersion"].as_str(), document["kind"].as_str()), (Some("multus-ebpf.io/v1"), Some("Top")));
    document["items"].as_array().expect("items").clone()
}

#[test]
fn rates_are_those_of_the_traffic() {
    needs_programs!();
    let world = World::new("top");
    let (busy, quiet) = (world.attached("busy", "lan"), world.attached("quiet", "lan"));
    let from_host = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
    let from_busy = Voice::new(&busy.netns, "net1", Protocol::Mdns);
    let interfaces = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..60 {
                for family in FAMILIES {
                    from_busy.say(family);
                    from_host.say(family);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let looked = ["attachments", "networks", "relay"].map(|what| {
            scope.spawn({
                let world = &world;
                move || once(world, &[what, "--interval", "700ms"])
            })
        });
        let [attachments, networks, relay] = looked.map(|look| look.join().expect("a look"));
        assert_eq!(networks[0]["network"], "default/lan", "{networks:?}");
        assert!(
            networks[0]["packets/s"].as_f64() > Some(10.0) && networks[0]["group"].as_f64() > Some(50.0),
            "{networks:?}"
        );
        let relayed = relay.iter().find(|row| row["path"] == "pod_to_host" && row["verdict"] == "relayed");
        assert!(relayed.is_some_and(|row| row["frames/s"].as_f64() > Some(5.0)), "{relay:?}");
        attachments
    });
    assert_eq!(
        (&interfaces[0]["pod"], &interfaces[0]["interface"]),
        (&"busy".into(), &"net1".into()),
        "{interfaces:?}"
    );
    assert!(interfaces[0]["sent/s"].as_f64() > Some(5.0), "{interfaces:?}");
    let delegates = once(&world, &["delegates", "--interval", "200ms"]);
    let macvlan = delegates.iter().find(|row| row["type"] == "macvlan" && row["verb"] == "ADD").expect("macvlan");
    assert!(macvlan["calls"] == 2.0 && macvlan["calls/s"] == 0.0 && macvlan["p50"].is_null(), "{macvlan}");
    assert!(macvlan["all-p99"].as_f64() > Some(0.0), "{macvlan}");
    for pod in [busy, quiet] {
        world.del(&pod).expect_ok();
    }
}

#[test]
fn tables_follow_each_other_where_nobody_watches_and_columns_are_known() {
    needs_programs!();
    let world = World::new("top-plain");
    let pod = world.attached("cam", "lan");
    let done = world.agent.cli(&world.lab, &["top", "-n", "2", "--interval", "100ms", "--sort", "pod"]);
    assert_eq!(done.code, Some(0), "{}", done.err());
    assert_eq!(done.out().matches("NAMESPACE").count(), 2, "{}", done.out());
    assert!(done.out().contains("by pod") && !done.out().contains('\u{1b}'), "{}", done.out());
    let wrong = world.agent.cli(&world.lab, &["top", "relay", "--sort", "pods"]);
    assert_eq!(wrong.code, Some(2), "{}", wrong.err());
    assert!(wrong.err().contains("frames/s"), "it names the columns: {}", wrong.err());
    world.del(&pod).expect_ok();
}

/// `command` with a terminal of util-linux's `script` around it.
fn on_a_terminal(world: &World, command: &str) -> Command {
    let mut script = world.lab.node.command("script");
    script.args(["--quiet", "--flush", "--return", "--command", command, "/dev/null"]);
    script.env("MULTUS_SOCKET", world.agent.socket()).env("TERM", "xterm");
    script
}

#[test]
fn on_a_terminal_frames_stay_in_place_and_the_terminal_is_as_before() {
    needs_programs!();
    let world = World::new("top-terminal");
    let pod = world.attached("cam", "lan");
    let program = agent::program("multus-agent").display().to_string();
    let (enter, leave, home) = ("\u{1b}[?1049h", "\u{1b}[?1049l", "\u{1b}[H");
    let ended = process::run(
        &mut on_a_terminal(&world, &format!("{program} top -n 3 --interval 100ms")),
        b"",
        Duration::from_secs(10),
    );
    let shown = ended.out();
    assert_eq!((shown.matches(enter).count(), shown.matches(home).count()), (1, 3), "{shown:?}");
    assert!(shown.trim_end().ends_with(leave) && shown.contains("cam"), "{shown:?}");
    // Whoever interrupts it gets his terminal back, too.
    let interrupted = format!("timeout --foreground -s INT 1 {program} top --interval 100ms");
    let shown = process::run(&mut on_a_terminal(&world, &interrupted), b"", Duration::from_secs(10)).out();
    assert!(shown.matches(home).count() > 2 && shown.trim_end().ends_with(leave), "{shown:?}");
    world.del(&pod).expect_ok();
}
