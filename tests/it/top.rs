//! `top`: live rates as tables and documents; on a terminal in place, and off it again.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::terminal::Terminal;
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
    let looks = AtomicBool::new(true);
    let interfaces = std::thread::scope(|scope| {
        // As long as somebody looks: on a busy machine the looks begin late.
        scope.spawn(|| {
            while looks.load(Ordering::Relaxed) {
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
        let [attachments, networks, relay] = looked.map(std::thread::ScopedJoinHandle::join);
        looks.store(false, Ordering::Relaxed);
        let [attachments, networks, relay] = [attachments, networks, relay].map(|look| look.expect("a look"));
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

/// `multus-agent top` on a terminal.
fn on_a_terminal(world: &World, args: &[&str]) -> Terminal {
    let mut command = Command::new(agent::program("multus-agent"));
    command.arg("top").args(args).env("MULTUS_SOCKET", world.agent.socket());
    Terminal::run(&command, (140, 12))
}

/// The pods of a table in the order of its rows.
fn pods(lines: &[String]) -> Vec<&str> {
    let rows = lines.iter().filter(|line| line.starts_with("default "));
    rows.filter_map(|line| line.split_whitespace().nth(1)).collect()
}

#[test]
fn keys_sort_turn_and_change_the_view_and_the_terminal_is_as_before() {
    needs_programs!();
    let world = World::new("top-keys");
    let all = ["ant", "bee", "cat"].map(|name| world.attached(name, "lan"));
    let mut top = on_a_terminal(&world, &["--interval", "100ms"]);
    let first = top.until("a table, and the keys", |lines| pods(lines).len() == 3 && lines[11].contains("q quit"));
    assert!(first[0].starts_with("attachments, ") && first[0].ends_with("by packets/s"), "{first:#?}");
    assert!(first[1].starts_with("1:NAMESPACE") && first[1].contains("2:POD"), "{first:#?}");
    assert!(top.is_alternate() && !top.is_as_before(), "keys come at once and are not printed");
    top.press("2");
    let sorted = top.until("by pod", |lines| lines[0].ends_with("by pod"));
    assert_eq!(pods(&sorted), ["ant", "bee", "cat"], "{sorted:#?}");
    top.press("2");
    let turned = top.until("the other way round", |lines| lines[0].ends_with("by pod, reversed"));
    assert_eq!(pods(&turned), ["cat", "bee", "ant"], "{turned:#?}");
    top.press("\u{1b}[C");
    top.until("the next column", |lines| lines[0].ends_with("by interface"));
    top.press("2\u{1b}[B\u{1b}[B");
    let scrolled = top.until("two rows further", |lines| pods(lines).len() == 1);
    assert_eq!(pods(&scrolled), ["cat"], "{scrolled:#?}");
    for (view, column) in
        [("networks", "NETWORK"), ("relay", "PARENT"), ("delegates", "TYPE"), ("attachments", "NAMESPACE")]
    {
        top.press("\t");
        let shown = top.until(view, |lines| {
            // The relay may have carried nothing yet.
            lines[0].starts_with(&format!("{view}, ")) && (lines[1].contains(column) || lines[1] == "nothing to list")
        });
        assert!(!shown.iter().skip(2).any(|line| line.contains(":NAMESPACE") || line.contains(":TYPE")), "{shown:#?}");
    }
    top.press("q");
    assert_eq!((top.ended(), top.is_as_before(), top.is_alternate()), (0, true, false), "{}", top.raw());
    for pod in all {
        world.del(&pod).expect_ok();
    }
}

#[test]
fn the_terminal_is_as_before_however_it_ends() {
    needs_programs!();
    let world = World::new("top-ends");
    let pod = world.attached("cam", "lan");
    let is_shown = |lines: &[String]| pods(lines).len() == 1;
    // By itself; interrupted by key and by signals; because the agent is gone.
    let alone = on_a_terminal(&world, &["-n", "2", "--interval", "100ms"]);
    let (enter, leave) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    assert_eq!((alone.ended(), alone.is_as_before()), (0, true));
    let raw = alone.raw();
    assert!(raw.matches(enter).count() == 1 && raw.matches(leave).count() == 1 && raw.contains("cam"), "{raw:?}");
    assert!(!alone.is_alternate(), "{raw:?}");
    let mut by_key = on_a_terminal(&world, &["--interval", "100ms"]);
    by_key.until("a table", is_shown);
    // What would end or stop it where nobody can put the terminal back does nothing.
    by_key.press("\u{1c}\u{1a}");
    by_key.press("2");
    by_key.until("it goes on", |lines| lines[0].ends_with("by pod"));
    by_key.press("\u{3}");
    assert_eq!((by_key.ended(), by_key.is_as_before()), (0, true));
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        let by_signal = on_a_terminal(&world, &["--interval", "100ms"]);
        by_signal.until("a table", is_shown);
        lab::sys::signal(by_signal.pid(), signal);
        assert_eq!((by_signal.ended(), by_signal.is_as_before()), (0, true), "signal {signal}");
    }
    world.del(&pod).expect_ok();
    let abandoned = on_a_terminal(&world, &["--interval", "100ms"]);
    abandoned.until("a table", |lines| lines[0].starts_with("attachments, "));
    drop(world);
    assert_eq!((abandoned.ended(), abandoned.is_as_before(), abandoned.is_alternate()), (3, true, false));
}

/// An agent that has nothing to list, for whoever comes; it is gone with this process.
fn idle_agent(socket: &Path) {
    let listener = UnixListener::bind(socket).expect("a socket");
    fs::set_permissions(socket, fs::Permissions::from_mode(0o777)).expect("let anybody ask");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            drop(stream.read(&mut [0; 4096]));
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{\"items\":[]}";
            drop(stream.write_all(answer.as_bytes()));
        }
    });
}

#[test]
fn the_words_of_a_panic_stand_on_the_terminal_which_is_as_before() {
    needs_programs!();
    let folder = std::env::temp_dir().join(format!("multus-top-panic-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("let anybody in");
    let socket = folder.join("multus.sock");
    idle_agent(&socket);
    // A user of its own who may have two threads: the third one, which is to hear keys, cannot be started.
    let user = (70_000 + std::process::id() % 50_000).to_string();
    let run = r#"exec 9<"$0"; exec prlimit --nproc=2 setpriv --reuid "$1" --regid "$1" --clear-groups \
        /proc/self/fd/9 top --interval 100ms --socket "$2""#;
    let mut command = Command::new("sh");
    command.args(["-c", run]).arg(agent::program("multus-agent")).arg(user).arg(&socket).env("RUST_BACKTRACE", "0");
    let top = Terminal::run(&command, (140, 12));
    assert_eq!((top.ended(), top.is_as_before(), top.is_alternate()), (101, true, false), "{}", top.raw());
    let raw = top.raw();
    let left = raw.match_indices("\u{1b}[?1049l").map(|(at, _)| at).collect::<Vec<_>>();
    let said = raw.find("failed to spawn thread");
    assert!(raw.contains("\u{1b}[?1049h") && left.len() == 1 && said.is_some_and(|said| left[0] < said), "{raw:?}");
    assert!(top.lines().iter().any(|line| line.contains("failed to spawn thread")), "{:#?}", top.lines());
    fs::remove_dir_all(folder).expect("remove the folder");
}

#[test]
fn whoever_interrupts_it_is_heard_while_the_agent_is_asked() {
    needs_programs!();
    let folder = std::env::temp_dir().join(format!("multus-top-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let socket = folder.join("multus.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    // An agent that answers once and then no more; it is gone with this process.
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for (at, stream) in listener.incoming().flatten().enumerate() {
            let mut stream = stream;
            if at == 0 {
                drop(stream.read(&mut [0; 4096]));
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{\"items\":[]}";
                drop(stream.write_all(answer.as_bytes()));
            } else {
                silent.push(stream);
            }
        }
    });
    let mut command = Command::new("timeout");
    command.args(["--foreground", "-s", "INT", "2"]).arg(agent::program("multus-agent"));
    command.args(["top", "--interval", "100ms", "--socket"]).arg(&socket);
    let began = Instant::now();
    let done = process::run(&mut command, b"", Duration::from_secs(15));
    assert!(began.elapsed() < Duration::from_secs(7), "{:?}: {}{}", began.elapsed(), done.out(), done.err());
    fs::remove_dir_all(folder).expect("remove the folder");
}
