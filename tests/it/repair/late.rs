//! What the datapath needs may come late, go, and come back: nobody restarts the agent for it, no pod waits for it, and
//! no count goes backwards.

use std::process::Command;

use lab::mounts::HostFolder;
use lab::world::Builder;
use lab::{Audience, Pod, Protocol, Voice, World, process, wait_until};
use serde_json::Value;

use super::{PATIENCE, attachment, filters, relays, repaired, repairs, status};

/// A node whose agent looks for its pins in `folder` of the host, which is there before the agent.
fn world(name: &str, attach: &str, is_mounted: bool) -> Option<(World, HostFolder)> {
    if std::env::var_os("MULTUS_LAB_SANDBOX").is_some() {
        eprintln!("skipped: the sandbox has the mounts of the manifest");
        return None;
    }
    let builder = Builder::new(name);
    let private = builder.lab.macvlan("private");
    let folder = HostFolder::new(&builder.lab, "host-bpf");
    if is_mounted {
        folder.mount_bpffs();
    }
    let builder = builder.network("quiet", &private).configure(|config, _lab| {
        config["datapath"]["lookInterval"] = "1s".into();
        config["datapath"]["attach"] = attach.into();
        config["datapath"]["bpffs"] = folder.path().join("multus").to_string_lossy().into();
    });
    Some((builder.start(), folder))
}

/// What the pod's `net1` has received and sent, in packets.
fn counted(world: &World, pod: &Pod) -> u64 {
    let samples = world.agent.metrics(&world.lab);
    let labels = [("pod", pod.name.as_str()), ("interface", "net1")];
    ["receive", "transmit"].map(|d| samples.sum(&format!("multus_interface_{d}_packets_total"), &labels)).iter().sum()
}

fn is_ready(world: &World) -> u64 {
    world.agent.metrics(&world.lab).sum("multus_datapath_ready", &[])
}

/// Waits until the datapath is in order and the pod's record says nothing else.
fn heals(world: &World, pod: &Pod) {
    let is_well = || attachment(world, pod)["note"].is_null() && status(world).0 == "ok";
    assert!(wait_until(PATIENCE, is_well), "{:?}: {:#}", status(world), attachment(world, pod));
}

/// Everything goes with the last pod.
fn leaves_nothing(world: &World, folder: &HostFolder, pods: &[&Pod]) {
    for pod in pods {
        world.del(pod).expect_ok();
    }
    let links = folder.path().join("multus/v2/links");
    assert_eq!(std::fs::read_dir(&links).unwrap().count(), 0, "no pin and no mark of a link");
    assert_eq!(filters(&world.lab.node, "eth0"), Vec::<String>::new());
    let shown = process::tool(world.lab.node.command("bpftool").args(["-j", "net", "show", "dev", "eth0"]));
    let shown = String::from_utf8_lossy(&shown).into_owned();
    assert!(!shown.contains("parent_"), "on no hook: {shown}");
}

#[test]
fn a_bpffs_that_is_mounted_after_the_agent_started_is_taken_up() {
    needs_programs!();
    let Some((world, folder)) = world("latefs", "auto", false) else { return };
    let pod = world.attached("a", "quiet");
    let (health, text) = status(&world);
    assert!(health == "failed" && text.contains("is not on a bpffs"), "{health}: {text}");
    assert_eq!((attachment(&world, &pod)["note"].as_str(), is_ready(&world)), (Some(text.as_str()), 0));

    folder.mount_bpffs();
    heals(&world, &pod);
    assert_eq!(is_ready(&world), 1);
    relays(&world, "eth0", &pod, "though its pod was there before the bpffs");
    assert!(counted(&world, &pod) > 0);
    repaired(&world, "pod", "late", 1);
    assert!(folder.path().join("multus/v2/maps/if_counters").exists(), "pinned below the number of the layout");

    let new = world.attached("b", "quiet");
    relays(&world, "eth0", &new, "attached later");
    leaves_nothing(&world, &folder, &[&pod, &new]);
}

#[test]
fn a_bpffs_that_goes_and_comes_back_empty_costs_no_count() {
    needs_programs!();
    for attach in ["auto", "clsact"] {
        let Some((mut world, folder)) = world(&format!("gone-{attach}"), attach, true) else { return };
        let pod = world.attached("a", "quiet");
        relays(&world, "eth0", &pod, "with a bpffs");
        let first = counted(&world, &pod);
        folder.unmount();
        let told = wait_until(PATIENCE, || status(&world).1.contains("is not on a bpffs"));
        assert!(told && status(&world).0 == "warning", "{:?}", status(&world));
        relays(&world, "eth0", &pod, "without a bpffs");
        let second = counted(&world, &pod);
        assert!(first > 0 && second > first, "{attach}: {first}, {second}");
        let new = world.attached("b", "quiet");
        let note = attachment(&world, &new)["note"].as_str().unwrap_or_default().to_owned();
        assert!(note.contains("is not on a bpffs"), "{note}");
        let told = world.agent.log_text().matches("nothing can be added").count();
        assert_eq!(told, 1, "told once, however often it is looked at");

        folder.mount_bpffs();
        heals(&world, &new);
        repaired(&world, "datapath", "pins", 1);
        relays(&world, "eth0", &new, "with its programs");
        relays(&world, "eth0", &pod, "with a bpffs again");
        let third = counted(&world, &pod);
        assert!(third > second, "{attach}: {second}, {third}");

        // What is pinned now is what works: the next agent finds it.
        world.agent.kill9();
        relays(&world, "eth0", &pod, "without an agent");
        world.agent.start_again(&world.lab);
        heals(&world, &pod);
        assert!(counted(&world, &pod) > third, "{attach}: {third}, {}", counted(&world, &pod));
        leaves_nothing(&world, &folder, &[&pod, &new]);
    }
}

/// A map of another shape where ours is pinned, as an agent of another make may leave it.
fn foreign_map(pin: &std::path::Path) {
    let shape = ["type", "hash", "key", "8", "value", "8", "entries", "4", "name", "relay_fanout", "flags", "1"];
    process::tool(Command::new("bpftool").args(["map", "create"]).arg(pin).args(shape));
}

#[test]
fn what_keeps_the_datapath_closed_is_told_once_and_when_it_is_gone_all_goes_on() {
    needs_programs!();
    let mut world = super::world("closed", "auto");
    let pod = world.attached("a", "quiet");
    relays(&world, "eth0", &pod, "at first");
    let before = counted(&world, &pod);
    world.agent.kill9();
    let pin = world.lab.bpffs.join("v2/maps/relay_fanout");
    let ours = pin.with_file_name("kept_fanout");
    std::fs::rename(&pin, &ours).unwrap();
    foreign_map(&pin);
    world.agent.start_again(&world.lab);
    let (health, text) = status(&world);
    assert!(health == "failed" && text.contains("relay_fanout") && text.contains("remove the pin"), "{health}: {text}");
    let check = world.agent.cli(&world.lab, &["check"]);
    assert!(check.code == Some(1) && check.out().contains("the datapath is off"), "{}", check.out());

    // What ran runs on, and nobody waits.
    relays(&world, "eth0", &pod, "while the datapath is closed");
    let began = std::time::Instant::now();
    let new = world.attached("b", "quiet");
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "no pod waits: {:?}", began.elapsed());
    assert_eq!(attachment(&world, &new)["note"], text);
    std::thread::sleep(std::time::Duration::from_millis(3500));
    let told = world.agent.log_text().matches("the datapath is off: ").count();
    assert_eq!(told, 1, "told once, tried twice since:\n{}", world.agent.log_text());

    std::fs::remove_file(&pin).unwrap();
    std::fs::rename(&ours, &pin).unwrap();
    heals(&world, &new);
    relays(&world, "eth0", &new, "with its programs");
    relays(&world, "eth0", &pod, "taken over");
    assert!(counted(&world, &pod) > before, "counts go on: {before}, {}", counted(&world, &pod));
    assert_eq!((repairs(&world, "pod", "late"), attachment(&world, &pod)["note"].clone()), (1, Value::Null));
    for pod in [&pod, &new] {
        world.del(pod).expect_ok();
    }
}

#[test]
fn a_storm_guard_that_was_refused_comes_when_there_is_room() {
    needs_programs!();
    let builder = Builder::new("noguard");
    let private = builder.lab.macvlan("private");
    let world = builder
        .network("quiet", &private)
        .configure(|config, _lab| {
            config["datapath"]["lookInterval"] = "1s".into();
            config["datapath"]["guard"] = "xdp".into();
        })
        .start();
    let guard = || -> Value {
        let document: Value =
            serde_json::from_str(&world.agent.cli(&world.lab, &["status", "-o", "json"]).out()).unwrap();
        document["datapath"]["parents"][0]["guard"].clone()
    };
    let node = &world.lab.node;
    let first = world.attached("first", "quiet");
    assert_eq!(guard(), "xdp-native");

    // Somebody else's XDP program: the same one under another pin, put on by netlink.
    let link = world.lab.bpffs.join(format!("v2/links/parent-{}-guard-native", node.ifindex("eth0")));
    let shown = process::tool(Command::new("bpftool").args(["-j", "link", "show", "pinned"]).arg(link));
    let number = serde_json::from_slice::<Value>(&shown).unwrap()["prog_id"].to_string();
    let theirs = world.lab.bpffs.join("theirs");
    process::tool(Command::new("bpftool").args(["prog", "pin", "id", &number]).arg(&theirs));
    world.del(&first).expect_ok();
    process::tool(node.command("ip").args(["link", "set", "dev", "eth0", "xdpdrv", "pinned"]).arg(&theirs));

    let pod = world.attached("a", "quiet");
    let tried = wait_until(PATIENCE, || status(&world).1.contains("(put back 2 times"));
    let (health, text) = status(&world);
    assert!(tried && health == "warning" && text.contains("parent eth0: attach parent_guard to"), "{health}: {text}");
    assert_eq!((guard(), repairs(&world, "parent", "programs")), (Value::Null, 0));
    let check = world.agent.cli(&world.lab, &["check"]);
    assert!(check.out().contains("attach parent_guard to"), "{}", check.out());
    let told = world.agent.log_text().matches("a parent has no storm guard").count();
    assert_eq!(told, 1, "{}", world.agent.log_text());
    relays(&world, "eth0", &pod, "without its guard");
    let why = world.agent.cli(&world.lab, &["relay", "why", "_http._tcp", "--pod", "default/a", "-o", "json"]).out();
    assert!(!why.contains("parent_guard"), "that is no reason for not hearing anything: {why}");

    process::tool(node.command("ip").args(["link", "set", "dev", "eth0", "xdpdrv", "off"]));
    assert!(wait_until(PATIENCE, || guard() == "xdp-native"), "{:?}", status(&world));
    repaired(&world, "parent", "programs", 1);
    heals(&world, &pod);
    let audience = Audience::new(Protocol::Mdns).with("pod", &pod.netns, "net1");
    let host = Voice::new(node, "eth0", Protocol::Mdns);
    audience.expect_each("host to pod under guard", &host, &[("pod", 1)]);
    world.del(&pod).expect_ok();
}
