//! What must not happen to pods that run, and to requests under way.

use std::fs;
use std::time::{Duration, Instant};

use lab::{process::Running, wait_until};
use serde_json::json;

use crate::clause::{Clause, clause};
use crate::node::{Node, Plan, is_gone};
use crate::pair;

pub(super) const CLAUSES: &[Clause] = &[
    clause("peers.second-add", "a second ADD with the same id takes nothing from the running pod", second_add),
    clause("peers.hang-others", "a delegate that hangs keeps no other pod waiting", hang_others),
    clause("peers.hang-deadline", "a delegate that hangs is ended by itself in the end", hang_deadline),
    clause("peers.hang-killed", "a delegate whose ADD was given up is ended, and writes no status", hang_killed),
    clause("peers.hang-del", "DEL while a delegate hangs frees everything, and nothing comes after it", hang_del),
    clause(
        "peers.killed-mid-add",
        "a daemon killed during ADD: the ADD ends soon or is done by the next daemon",
        killed,
    ),
    clause("peers.term-mid-add", "SIGTERM lets a running ADD finish", term_busy),
    clause("peers.term-idle", "SIGTERM ends an idle daemon within two seconds", term_idle),
];

fn second_add() {
    let node = Node::new("p-second");
    let pod = node.attached("cam", "lan");
    let (links, eth0, net1) = (pod.netns.link_names(), pod.netns.addresses("eth0"), pod.netns.addresses("net1"));
    let before = node.traces(&pod);
    let _whatever_it_says = node.add(&pod);
    assert_eq!(pod.netns.link_names(), links);
    assert_eq!((pod.netns.addresses("eth0"), pod.netns.addresses("net1")), (eth0, net1));
    assert_eq!(node.traces(&pod), before);
    node.check(&pod).expect_ok();
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

/// A node whose network `slow` hangs until the returned file exists.
fn hanging(name: &str) -> (Node, std::path::PathBuf) {
    let mut plan = Plan::new(name);
    let healed = plan.lab.dir.join("healed");
    if !pair::is_multus() {
        plan = plan.configure(|config, _| config["requestTimeout"] = "5s".into());
    }
    let mut node = plan.fake("slow", &json!({"ADD": {"hang": true, "until": healed}})).start();
    if !pair::is_multus() {
        node.runtime.plugin["requestTimeout"] = "5s".into();
    }
    (node, healed)
}

fn start(node: &Node, pod: &lab::Pod) -> Running {
    node.call("ADD", Some(pod)).start(&node.lab.node)
}

fn hang_others() {
    let (node, _) = hanging("p-hang-others");
    let stuck = node.pod("stuck", "slow");
    let mut add = start(&node, &stuck);
    node.wait_called("slow");
    let began = Instant::now();
    node.attached("other", "lan");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    add.kill();
}

fn hang_deadline() {
    let (node, _) = hanging("p-hang-deadline");
    let pod = node.pod("stuck", "lan,slow");
    let mut add = start(&node, &pod);
    let slow = node.wait_called("slow");
    // The configured five seconds, where a daemon has such a setting; else what a kubelet has patience for.
    let limit = Duration::from_secs(if pair::is_multus() { 30 } else { 10 });
    let ended = wait_until(limit, || !add.is_running());
    add.kill();
    lab::sys::signal(slow.pid(), if ended { 0 } else { libc::SIGKILL });
    assert!(ended, "the ADD waits for a hanging delegate for {limit:?} and more");
    assert!(wait_until(Duration::from_secs(3), || is_gone(slow.pid())), "the hanging delegate lives on");
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "an ADD that ran out of time, and DEL");
}

fn hang_killed() {
    let (node, _) = hanging("p-hang-killed");
    let pod = node.pod("stuck", "lan,slow");
    let mut add = start(&node, &pod);
    let slow = node.wait_called("slow");
    add.kill();
    let gone = wait_until(Duration::from_secs(4), || is_gone(slow.pid()));
    lab::sys::signal(slow.pid(), if gone { 0 } else { libc::SIGKILL });
    assert!(gone, "the delegate outlived its ADD");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(node.network_status(&pod), None, "the dead ADD wrote a status");
}

fn hang_del() {
    let plan = Plan::new("p-hang-del");
    let result = json!({"interfaces": [{"name": "net2", "sandbox": "/x"}], "ips": [{"address": "10.9.0.2/24",
        "interface": 0}]});
    let node = plan.fake("late", &json!({"ADD": {"sleep_ms": 3000, "result": result}})).start();
    let pod = node.pod("stuck", "lan,late");
    let mut add = start(&node, &pod);
    node.wait_called("late");
    add.kill();
    drop(add.wait(Duration::from_secs(1)));
    let del = node.del(&pod);
    del.expect_ok();
    assert!(del.done.took < Duration::from_secs(10), "{:?}", del.done.took);
    std::thread::sleep(Duration::from_millis(3500));
    node.assert_gone(&pod, "DEL of an ADD that was given up");
    assert_eq!(node.network_status(&pod), None, "the dead ADD wrote a status");
}

fn killed() {
    let plan = Plan::new("p-killed");
    let healed = plan.lab.dir.join("healed");
    let mut node = plan.fake("slow", &json!({"ADD": {"hang": true, "until": healed}})).start();
    let pod = node.pod("cam", "lan,slow");
    let add = start(&node, &pod);
    let slow = node.wait_called("slow");
    node.daemon.kill9();
    fs::write(&healed, "").expect("heal the plugin");
    node.daemon.start_again(&node.lab);
    let done = add.wait(Duration::from_secs(20));
    assert!(!done.timed_out, "the ADD hangs after its daemon was killed");
    let ended = wait_until(Duration::from_secs(2), || is_gone(slow.pid()));
    lab::sys::signal(slow.pid(), if ended { 0 } else { libc::SIGKILL });
    assert!(ended, "the delegate lives on without anybody");
    if done.success() {
        assert!(pod.netns.link("eth0").is_some() && pod.netns.link("net1").is_some(), "a success without interfaces");
    }
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "a daemon killed during ADD, and DEL");
}

fn term_busy() {
    let node = Plan::new("p-term").fake("slow", &json!({"ADD": {"sleep_ms": 1500}})).start();
    let pod = node.pod("cam", "lan,slow");
    let add = start(&node, &pod);
    node.wait_called("slow");
    node.daemon.ask_to_end();
    let done = add.wait(Duration::from_secs(20));
    assert!(done.success(), "{}", done.out());
    assert!(pod.netns.link("net1").is_some());
}

fn term_idle() {
    let mut node = Node::new("p-term-idle");
    node.attached("cam", "lan");
    node.daemon.ask_to_end();
    let took = node.daemon.ended_within(Duration::from_secs(20));
    assert!(took.is_some_and(|took| took < Duration::from_secs(2)), "{took:?}");
}
