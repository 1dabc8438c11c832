//! What restarts, upgrades and other people's deletions cost under 10 000 packets a second: packets, copies, counts.
//!
//! The host asks the mDNS group; a pod hears the relay's copy, the LAN the original. Restarts and upgrades must cost
//! nothing, which is demanded always. The whole table, with what deletions cost, is printed by
//! `cargo test -p multus-tests disturbances -- --ignored --nocapture`.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{Ear, Family, Lab, Pod, Protocol, Voice, World, process, traffic, wait_until};

const RATE: u32 = 10_000;
const CHUNK: Duration = Duration::from_millis(250);
/// Steady traffic before and after what is done.
const BESIDE: Duration = Duration::from_millis(500);

/// What one disturbance cost.
#[derive(Debug)]
struct Cost {
    what: &'static str,
    sent: u64,
    /// Originals that the LAN did not hear.
    lost: u64,
    /// Copies that the pod did not hear, and those it heard twice.
    copies_lost: u64,
    duplicates: u64,
    /// Packets that its counter missed.
    uncounted: u64,
    /// Frames that the relay's counter missed; none: it began anew, with another layout.
    relay_uncounted: Option<u64>,
    took: Duration,
}

impl Cost {
    fn row(&self) -> String {
        let Self { what, sent, lost, copies_lost, duplicates, uncounted: packets, took, .. } = self;
        let frames = self.relay_uncounted.map_or_else(|| "from 0".to_owned(), |frames| frames.to_string());
        let outage = copies_lost * 1000 / u64::from(RATE);
        format!(
            "| {what} | {} ms | {sent} | {lost} | {copies_lost} | {duplicates} | {packets} | {frames} | {outage} ms |",
            took.as_millis()
        )
    }

    fn assert_nothing(&self) {
        // A counter is taken along to another layout while packets pass; those of one moment may not be in it.
        let moment = if self.relay_uncounted.is_some() { 0 } else { u64::from(RATE) / 10 };
        assert_eq!((self.lost, self.copies_lost, self.duplicates), (0, 0, 0), "{self:?}");
        assert!(self.uncounted <= moment && self.relay_uncounted.unwrap_or_default() == 0, "{self:?}");
    }
}

fn world(name: &str, attach: &str) -> (World, [Pod; 2]) {
    let builder = Builder::on(Lab::alone(name));
    let quiet = builder.lab.macvlan("private");
    let world = builder
        .network("quiet", &quiet)
        .configure(|config, _lab| {
            config["datapath"]["attach"] = attach.into();
            config["datapath"]["lookInterval"] = "1s".into();
        })
        .start();
    // A second one, so that taking over is more than one step.
    let pods = ["a", "b"].map(|name| world.attached(name, "quiet"));
    (world, pods)
}

/// Packets of mDNS that the pod received, and frames relayed to pods, as the agent counts them.
fn counted(world: &World) -> (u64, u64) {
    let samples = world.agent.metrics(&world.lab);
    let packets = [("pod", "a"), ("interface", "net1"), ("direction", "receive"), ("protocol", "mdns")];
    let frames = [("protocol", "mdns"), ("path", "host_to_pod"), ("verdict", "relayed")];
    (
        samples.sum("multus_interface_protocol_packets_total", &packets),
        samples.sum("multus_relay_frames_total", &frames),
    )
}

/// Lets `act` happen in the middle of steady traffic.
fn during(what: &'static str, world: &mut World, pod: &Pod, act: impl FnOnce(&mut World), anew: bool) -> Cost {
    let voice = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
    let ear = Ear::new(&pod.netns, "net1", Protocol::Mdns);
    let lan = Ear::new(&world.lab.lan().netns, &world.lab.lan().ifname, Protocol::Mdns);
    assert!(wait_until(Duration::from_secs(5), || ear.hears(&voice.say(Family::V4), Duration::from_millis(200))));
    let settled = || {
        let before = counted(world);
        std::thread::sleep(Duration::from_millis(200));
        (before == counted(world)).then_some(before)
    };
    let before = lab::wait_for(Duration::from_secs(10), settled).expect("the link never came to rest");
    let (heard_before, lan_before, doubled_before) = (ear.datagrams(), lan.datagrams(), ear.duplicates());
    let done = AtomicBool::new(false);
    let (sent, took) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                sent += traffic::blast(&voice, Protocol::Mdns, Family::V4, RATE, CHUNK);
            }
            sent
        });
        std::thread::sleep(BESIDE);
        let began = Instant::now();
        act(world);
        let took = began.elapsed();
        std::thread::sleep(BESIDE);
        done.store(true, Ordering::Relaxed);
        (sending.join().expect("send"), took)
    });
    wait_until(Duration::from_secs(3), || {
        ear.datagrams() - heard_before >= sent && lan.datagrams() - lan_before >= sent
    });
    let after = counted(world);
    let missed = |before: u64, after: u64| sent.saturating_sub(after.saturating_sub(before));
    Cost {
        what,
        sent,
        lost: missed(lan_before, lan.datagrams()),
        copies_lost: missed(heard_before, ear.datagrams()),
        duplicates: ear.duplicates() - doubled_before,
        uncounted: missed(before.0, after.0),
        relay_uncounted: (!anew).then(|| missed(before.1, after.1)),
        took,
    }
}

fn restart(world: &mut World) {
    world.agent.term();
    world.agent.start_again(&world.lab);
}

fn kill(world: &mut World) {
    world.agent.kill9();
    world.agent.start_again(&world.lab);
}

/// The tracing object is another build of the same programs.
fn other_object(world: &mut World, tracing: bool) {
    world.agent.reconfigure(|config| config["datapath"]["log"] = tracing.into());
    restart(world);
}

/// What another layout's agent leaves when it ends.
fn other_layout(world: &mut World) {
    world.agent.term();
    let ours = std::fs::read_dir(&world.lab.bpffs).expect("pins").next().expect("a layout").expect("a folder").path();
    std::fs::rename(&ours, world.lab.bpffs.join("v9999")).expect("rename the layout");
    world.agent.start_again(&world.lab);
    assert!(!world.lab.bpffs.join("v9999").exists(), "the other layout's pins are removed");
}

fn restarts(world: &mut World, pod: &Pod) -> Vec<Cost> {
    vec![
        during("restart (SIGTERM)", world, pod, restart, false),
        during("kill -9 and start", world, pod, kill, false),
        during("upgrade to another object", world, pod, |world| other_object(world, true), false),
        during("downgrade to the first", world, pod, |world| other_object(world, false), false),
        during("upgrade to another map layout", world, pod, other_layout, true),
    ]
}

#[test]
fn restarts_upgrades_and_downgrades_lose_nothing_under_load() {
    needs_programs!();
    for attach in ["auto", "clsact"] {
        let (mut world, [pod, _other]) = world("disturb", attach);
        for cost in restarts(&mut world, &pod) {
            eprintln!("{}", cost.row());
            cost.assert_nothing();
        }
    }
}

/// Waits until the agent has counted one more repair.
fn repaired(world: &World, object: &str, before: u64) {
    assert!(wait_until(Duration::from_secs(20), || repairs(world, object) > before), "{object} was not repaired");
}

fn repairs(world: &World, object: &str) -> u64 {
    world.agent.metrics(&world.lab).sum("multus_datapath_repairs_total", &[("object", object)])
}

fn broken(what: &'static str, world: &mut World, pod: &Pod, object: &str, break_it: impl FnOnce(&World)) -> Cost {
    let act = |world: &mut World| {
        let before = repairs(world, object);
        break_it(world);
        repaired(world, object, before);
    };
    during(what, world, pod, act, false)
}

fn tc(netns: &lab::Netns, arguments: &str) {
    process::tool(netns.command("tc").args(arguments.split(' ')));
}

#[test]
#[ignore = "prints the table of docs/reference/datapath.md; takes a minute"]
fn the_whole_table() {
    needs_programs!();
    println!(
        "| what happens | took | sent | lost on the wire | copies lost | copies twice | counts missed | relay counts missed | without relay |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for attach in ["auto", "clsact"] {
        let (mut world, [pod, _other]) = world("table", attach);
        let by = if world.agent.cli(&world.lab, &["status"]).out().contains("by tcx") { "TCX" } else { "clsact" };
        println!("| **{by} on the parent** | | | | | | | | |");
        for cost in restarts(&mut world, &pod) {
            println!("{}", cost.row());
            cost.assert_nothing();
        }
        let rows = if by == "TCX" {
            let pin = || {
                let layout = std::fs::read_dir(&world.lab.bpffs).unwrap().next().unwrap().unwrap().path();
                layout.join(format!("links/parent-{}-egress", world.lab.node.ifindex("eth0")))
            };
            let pin = pin();
            let detach = |_: &World| {
                process::tool(Command::new("bpftool").args(["link", "detach", "pinned"]).arg(&pin));
            };
            vec![broken(
                "`bpftool link detach` on the parent, looked at every second",
                &mut world,
                &pod,
                "parent",
                detach,
            )]
        } else {
            let qdisc = |world: &World| tc(&world.lab.node, "qdisc del dev eth0 clsact");
            let filter = |world: &World| tc(&world.lab.node, "filter del dev eth0 egress");
            vec![
                broken("`tc qdisc del dev eth0 clsact`", &mut world, &pod, "parent", qdisc),
                // A second time within the pause would wait.
                {
                    std::thread::sleep(Duration::from_secs(4));
                    broken("`tc filter del dev eth0 egress`", &mut world, &pod, "parent", filter)
                },
            ]
        };
        for cost in rows {
            println!("{}", cost.row());
            // The kernel itself drops what is on its way while a qdisc comes or goes.
            assert_eq!(cost.duplicates, 0, "{cost:?}");
            assert!(cost.copies_lost < cost.sent, "{cost:?}");
        }
        let inside = |_: &World| tc(&pod.netns, "qdisc del dev net1 clsact");
        let cost = broken(
            "`tc qdisc del dev net1 clsact` in the pod, looked at every second",
            &mut world,
            &pod,
            "pod",
            inside,
        );
        println!("{}", cost.row());
        assert_eq!(cost.duplicates, 0, "{cost:?}");
    }
}
