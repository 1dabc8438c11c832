//! Taking everything off a node at work: a running agent, programs on interfaces, pods that still need their DEL.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

use lab::world::Builder;
use lab::{Lab, Pod, World, agent, plugins, process, wait_until};
use multus_agent::names::ContainerId;
use multus_agent::spool::{Note, Spool};
use serde_json::{Value, json};

use super::tree::{assert_same, on, snapshot};

/// Where Multus's daemon listens.
fn multus_socket(lab: &Lab) -> PathBuf {
    lab.dir.join("multus/multus.sock")
}

/// A node on which Multus has left its conf, ready for us. Its daemon listens as long as the test's process is there.
fn node(name: &str, change: impl FnOnce(Builder) -> Builder) -> (Builder, PathBuf) {
    let builder = change(Builder::new(name));
    let lan = builder.lab.macvlan("bridge");
    let builder = builder.network("lan", &lan);
    let conf = builder.lab.cni_conf_dir.join("00-multus.conf");
    let socket = multus_socket(&builder.lab);
    let folder = socket.parent().expect("a folder");
    fs::create_dir_all(folder).expect("make a folder");
    let text = json!({"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus-shim",
        "daemonSocketDir": folder.display().to_string()});
    fs::write(&conf, text.to_string()).expect("write Multus's conf");
    std::mem::forget(UnixListener::bind(&socket).expect("listen as Multus does"));
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).expect("set a mode");
    let file = builder.lab.dir.join("install.json");
    fs::write(&file, builder.config.to_string()).expect("write the configuration");
    (builder, file)
}

/// Installs, and starts the agent; the runtime calls the plugin that was installed.
fn installed((builder, file): (Builder, PathBuf)) -> World {
    let done = on(&builder.lab.node, &["install", "--config", &file.display().to_string()]);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    let mut world = builder.start();
    world.runtime.program = world.lab.bin_dir.join("multus-shim");
    let stands = |name: &str| world.lab.cni_conf_dir.join(name).exists();
    assert!(stands("00-multus.conflist") && !stands("00-multus.conf"), "the agent's conf is there instead of Multus's");
    world
}

fn uninstall(lab: &Lab) -> process::Finished {
    on(&lab.node, &["uninstall", "--config", &lab.dir.join("daemon-config.json").display().to_string()])
}

/// Programs, filters and qdiscs that are on interfaces of the node and of this pod.
fn attached(lab: &Lab, pod: &Pod) -> String {
    let mut text = String::new();
    for netns in [&lab.node, &pod.netns] {
        let net: Value =
            serde_json::from_slice(&process::tool(netns.command("bpftool").args(["-j", "net", "show"]))).expect("JSON");
        for kind in ["tc", "tcx", "xdp"] {
            for entry in net[0][kind].as_array().into_iter().flatten() {
                let _ = writeln!(text, "{entry}");
            }
        }
        let qdiscs = process::tool(netns.command("tc").args(["qdisc", "show"]));
        let qdiscs = String::from_utf8_lossy(&qdiscs).into_owned();
        for line in qdiscs.lines().filter(|line| line.contains("clsact")) {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

#[test]
fn a_node_at_work_is_given_back_and_a_running_pod_still_has_its_del() {
    needs_programs!();
    let (builder, file) = node("uninstall", |builder| builder);
    let (confs, programs) = (builder.lab.cni_conf_dir.clone(), builder.lab.bin_dir.clone());
    let before = (snapshot(&confs), snapshot(&programs));
    let mut world = installed((builder, file));
    let live = world.attached("live", "lan");
    assert!(!attached(&world.lab, &live).is_empty(), "there is something to take off");
    let done = uninstall(&world.lab);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert!(done.out().contains("default/live") && done.out().contains("run this again"), "{}", done.out());
    assert!(wait_until(Duration::from_secs(5), || !world.agent.is_running()), "the agent has ended");
    assert_eq!(attached(&world.lab, &live), "", "programs, filters and qdiscs are off");
    assert!(!world.lab.bpffs.exists() && !world.agent.socket().exists());
    assert_same(&before.0, &snapshot(&confs), "uninstall with a running pod");
    assert!(live.netns.link("net1").is_some(), "the pod keeps its interface");
    assert!(!plugins::allocations(&world.lab.ipam_dir).is_empty());
    world.del(&live).expect_ok();
    assert_eq!(live.netns.link_names(), [""; 0]);
    assert!(plugins::allocations(&world.lab.ipam_dir).is_empty(), "its addresses are free");
    let done = uninstall(&world.lab);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert_same(&before.0, &snapshot(&confs), "the second uninstall");
    assert_same(&before.1, &snapshot(&programs), "the second uninstall");
    assert!(!world.lab.cni_dir.exists(), "nothing of our own is left");
    let done = uninstall(&world.lab);
    assert!(done.code == Some(0) && done.out().contains("nothing of ours"), "{}", done.out());
}

#[test]
fn containers_that_are_gone_are_deleted_without_an_agent() {
    needs_programs!();
    let (builder, file) = node("gone", Builder::with_host_exec);
    let programs = builder.lab.bin_dir.clone();
    let before = snapshot(&programs);
    let mut world = installed((builder, file));
    let pod = world.attached("cam", "lan");
    world.agent.kill9();
    pod.netns.remove();
    assert!(!plugins::allocations(&world.lab.ipam_dir).is_empty());
    let done = uninstall(&world.lab);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert!(plugins::allocations(&world.lab.ipam_dir).is_empty(), "{}", done.out());
    assert_same(&before, &snapshot(&programs), "uninstall");
    assert!(!world.lab.cni_dir.exists() && !world.lab.bpffs.exists());
}

#[test]
fn in_a_pod_addresses_are_freed_and_what_only_the_host_can_do_stays() {
    needs_programs!();
    let (builder, file) = node("confined", |builder| builder);
    let mut world = installed((builder, file));
    let pod = world.attached("cam", "lan");
    world.agent.kill9();
    pod.netns.remove();
    let before = plugins::allocations(&world.lab.ipam_dir);
    let done = uninstall(&world.lab);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert!(done.out().contains("DEL by bridge") && done.out().contains("default/cam"), "{}", done.out());
    let after = plugins::allocations(&world.lab.ipam_dir);
    assert!(!after.is_empty() && after.len() < before.len(), "net1's are freed, eth0's are not: {before:?} {after:?}");
    world.del(&pod).expect_ok();
    assert!(plugins::allocations(&world.lab.ipam_dir).is_empty(), "the plugin that stayed does the rest");
    let done = uninstall(&world.lab);
    assert!(done.code == Some(0) && !world.lab.cni_dir.exists(), "{}\n{}", done.out(), done.err());
}

#[test]
fn dels_that_wait_are_done_though_there_are_no_records() {
    needs_programs!();
    let (builder, file) = node("noted", |builder| builder);
    let mut world = installed((builder, file));
    let (pod, other) = (world.attached("cam", "lan"), world.attached("tv", "lan"));
    world.del(&other).expect_ok();
    world.agent.kill9();
    fs::remove_dir_all(world.lab.cni_dir.join("records")).expect("lose the records");
    let id = ContainerId::new(pod.id.as_str()).expect("an id");
    Spool::at(&world.lab.cni_dir).leave(&Note::put_off(id, "nobody serves".to_owned())).expect("leave a note");
    pod.netns.remove();
    let dry = on(
        &world.lab.node,
        &["uninstall", "--dry-run", "--config", &world.lab.dir.join("daemon-config.json").display().to_string()],
    );
    assert!(dry.out().contains(&pod.id) && !world.lab.cni_dir.join("records").exists(), "{}{}", dry.out(), dry.err());
    let done = uninstall(&world.lab);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert!(done.out().contains("could not be deleted") && !done.out().contains("still to come"), "{}", done.out());
    assert!(!plugins::allocations(&world.lab.ipam_dir).is_empty(), "what is left is not forgotten: {}", done.out());
    world.agent.reconfigure(|config| config["hostExec"] = "/proc/self/ns/mnt".into());
    let done = uninstall(&world.lab);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert!(plugins::allocations(&world.lab.ipam_dir).is_empty(), "{}", done.out());
    assert!(!world.lab.cni_dir.exists(), "nothing of our own is left");
}

#[test]
fn a_multus_that_is_gone_stays_away_until_the_node_is_given_back_to_it() {
    needs_programs!();
    let (builder, file) = node("orphan", |builder| builder);
    let confs = builder.lab.cni_conf_dir.clone();
    let before = snapshot(&confs);
    let world = installed((builder, file));
    let pod = world.attached("cam", "lan");
    fs::remove_file(multus_socket(&world.lab)).expect("its daemon is gone");
    let stands = || ["00-multus.conf", "00-multus.conflist"].map(|name| confs.join(name).exists());
    let config = world.lab.dir.join("daemon-config.json").display().to_string();
    let dry = on(&world.lab.node, &["uninstall", "--dry-run", "--config", &config]);
    assert!(
        dry.out().contains("stays away")
            && !dry.out().contains("leads to a Multus whose daemon does not answer: where"),
        "what goes is not told as staying: {}",
        dry.out()
    );
    let done = uninstall(&world.lab);
    assert_eq!(done.code, Some(1), "{}\n{}", done.out(), done.err());
    assert!(
        done.out().contains("00-multus.conf\" stays away") && done.out().contains("migrate --back"),
        "{}",
        done.out()
    );
    assert_eq!(stands(), [false, false], "new pods get the cluster's own network alone: {}", done.out());
    let kept = done.out().split('"').find(|part| part.contains(".kept")).map(PathBuf::from).expect("it says where");
    assert!(fs::read_to_string(kept).expect("the copy").contains("multus-cni-network"));
    let again = uninstall(&world.lab);
    assert!(again.code == Some(0) && again.out().contains("stays away"), "{:?} {}", again.code, again.out());
    assert!(again.out().contains("default/cam"), "a pod waits for its DEL: {}", again.out());
    world.del(&pod).expect_ok();
    for code in [1, 0] {
        let done = uninstall(&world.lab);
        assert!(done.code == Some(code) && done.out().contains("stays away"), "{:?} {}", done.code, done.out());
    }
    let back = on(&world.lab.node, &["migrate", "--back", "--config", &config]);
    assert_eq!(back.code, Some(0), "{}\n{}", back.out(), back.err());
    assert_same(&before, &snapshot(&confs), "giving the node back");
    assert!(!world.lab.cni_dir.exists(), "{}", back.out());
}

#[test]
fn uninstall_stays_until_nothing_is_left() {
    needs_programs!();
    let (builder, file) = node("waits", Builder::with_host_exec);
    let programs = builder.lab.bin_dir.clone();
    let before = snapshot(&programs);
    let world = installed((builder, file));
    let pod = world.attached("cam", "lan");
    let config = world.lab.dir.join("daemon-config.json").display().to_string();
    let args = ["uninstall", "--wait", "--config", &config, "--timeout"];
    let late = on(&world.lab.node, &[&args[..], &["1s"]].concat());
    assert!(
        late.code == Some(4) && late.err().contains("waiting for \"default/cam\""),
        "{:?} {}",
        late.code,
        late.err()
    );
    assert_eq!(late.out().matches("waiting for").count(), 1, "once: {}", late.out());
    let mut command = world.lab.node.command(agent::program("multus-agent"));
    let mut waiting = process::start(command.args(args).arg("60s"), b"");
    std::thread::sleep(Duration::from_millis(500));
    assert!(waiting.is_running(), "the pod is there");
    // Where the runtime asks others now, nobody says more than this.
    pod.netns.remove();
    let done = waiting.wait(Duration::from_secs(30));
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert!(plugins::allocations(&world.lab.ipam_dir).is_empty(), "{}", done.out());
    assert_same(&before, &snapshot(&programs), "waiting");
    assert!(!world.lab.cni_dir.exists(), "{}", done.out());
}

#[test]
fn a_conf_that_cilium_renamed_is_found_again() {
    needs_programs!();
    let (builder, file) = node("cilium", |builder| builder);
    let confs = builder.lab.cni_conf_dir.clone();
    fs::write(confs.join("10-other.conflist.cilium_bak"), "somebody's").expect("write");
    let before = snapshot(&confs);
    let mut world = installed((builder, file));
    let conf = confs.join("00-multus.conflist");
    fs::rename(&conf, confs.join("00-multus.conflist.cilium_bak")).expect("rename the conf");
    assert!(wait_until(Duration::from_secs(10), || conf.exists()), "the agent writes it again");
    world.agent.term();
    assert!(conf.exists(), "no end of an agent removes the conf");
    fs::rename(&conf, confs.join("00-multus.conflist.cilium_bak")).expect("rename the conf");
    let done = uninstall(&world.lab);
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert_same(&before, &snapshot(&confs), "uninstall");
}

#[test]
fn a_drained_agent_ends_what_runs_lets_nobody_in_and_new_pods_wait_for_the_next_one() {
    needs_programs!();
    let (builder, file) = node("drain", |builder| builder);
    let go = builder.lab.dir.join("go");
    let slow = plugins::conf(&builder.lab, "slow", &json!({"ADD": {"wait_for": go}}));
    let mut world = installed((builder.network("slow", &slow), file));
    let old = world.attached("old", "lan");
    let (pod, next) = (world.lab.pod("cam").networks("slow"), world.lab.pod("next").networks("lan"));
    let add = world.runtime.call("ADD", Some(&pod)).start(&world.lab.node);
    let is_at_work = || !plugins::journal(&world.lab, "slow").is_empty();
    assert!(wait_until(Duration::from_secs(10), is_at_work), "the slow ADD is under way");
    let early = world.agent.cli(&world.lab, &["drain", "--timeout", "200ms"]);
    assert!(early.code == Some(4) && early.err().contains("1 attachment;"), "{:?} {}", early.code, early.err());
    let mut command = world.lab.node.command(agent::program("multus-agent"));
    let mut drain =
        process::start(command.args(["drain", "--timeout", "20s"]).env("MULTUS_SOCKET", world.agent.socket()), b"");
    let mut waiting = world.runtime.call("ADD", Some(&next)).start(&world.lab.node);
    world.del(&old).expect_ok();
    let status = world.agent.cli(&world.lab, &["status"]).out();
    assert!(status.contains("drained: new pods wait"), "{status}");
    std::thread::sleep(Duration::from_millis(300));
    assert!(drain.is_running() && waiting.is_running(), "one is at work, the other waits");
    fs::write(go, "").expect("let it go on");
    let added = add.wait(Duration::from_secs(20));
    assert!(added.success(), "{}\n{}", added.out(), added.err());
    let drained = drain.wait(Duration::from_secs(20));
    assert!(drained.success() && drained.out().contains("drained"), "{:?} {}", drained.code, drained.err());
    assert!(waiting.is_running() && next.netns.link("net1").is_none());
    assert!(world.lab.cni_conf_dir.join("00-multus.conflist").exists(), "the conf stays");
    world.agent.term();
    world.agent.start_again(&world.lab);
    let added = waiting.wait(Duration::from_secs(20));
    assert!(added.success() && next.netns.link("net1").is_some(), "{}\n{}", added.out(), added.err());
    world.del(&next).expect_ok();
    world.del(&pod).expect_ok();
}
