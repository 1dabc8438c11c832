//! What happens while the daemon, or the primary network, is away.

use std::fs;
use std::time::Duration;

use crate::clause::{Clause, clause};
use crate::node::{Node, PRIMARY, Plan};
use crate::pair;

pub(super) const CLAUSES: &[Clause] = &[
    clause("peers.down-add", "an ADD waits while the daemon restarts, and ends soon after", down_add),
    clause("peers.down-add-long", "an ADD gives up after its deadline with code 11", down_add_long),
    clause("peers.down-del", "a DEL while the daemon is down cleans everything", down_del),
    clause(
        "peers.down-del-later",
        "what a DEL could not do while the daemon was down is done when it is back",
        down_later,
    ),
    clause(
        "peers.stale-conf",
        "a configuration with another socket folder fails in time, and DEL succeeds",
        stale_conf,
    ),
    clause(
        "peers.no-cluster-file",
        "without the primary network ADD fails within its deadline, and says so",
        no_cluster_file,
    ),
    clause("peers.primary-back", "a primary network that is away for a moment is used when it is back", primary_back),
];

/// Lets requests have a deadline of their own, where the pair knows such a setting.
fn deadline(node: &mut Node, time: &str) {
    if !pair::is_multus() {
        node.runtime.plugin["requestTimeout"] = time.into();
    }
}

fn down_add() {
    let mut node = Node::new("p-down-add");
    let pod = node.pod("cam", "lan");
    node.daemon.kill9();
    let add = node.call("ADD", Some(&pod)).start(&node.lab.node);
    std::thread::sleep(Duration::from_secs(1));
    node.daemon.start_again(&node.lab);
    let done = add.wait(Duration::from_secs(20));
    assert!(done.success(), "{}", done.out());
    assert!(done.took < Duration::from_secs(6), "{:?}", done.took);
    assert!(pod.netns.link("net1").is_some());
}

fn down_add_long() {
    let mut node = Node::new("p-down-long");
    deadline(&mut node, "3s");
    node.daemon.kill9();
    let answer = node.add(&node.pod("cam", "lan"));
    let error = answer.error();
    assert!(answer.done.took < Duration::from_secs(20), "the ADD took {:?}: {error}", answer.done.took);
    assert_eq!(error["code"], 11, "{error}");
}

fn down_del() {
    let mut node = Node::new("p-down-del");
    let pod = node.attached("cam", "lan");
    node.daemon.kill9();
    let answer = node.del(&pod);
    answer.expect_ok();
    assert!(answer.done.took < Duration::from_secs(5), "{:?}", answer.done.took);
    let left: Vec<_> = node.traces(&pod).into_iter().filter(|trace| !trace.starts_with("file")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn down_later() {
    let mut node = Node::new("p-down-later");
    let pod = node.attached("cam", "lan");
    node.daemon.kill9();
    // Its plugins cannot run just now either.
    let hidden = node.lab.dir.join("macvlan-hidden");
    fs::rename(node.lab.bin_dir.join("macvlan"), &hidden).expect("hide a plugin");
    node.del(&pod);
    pod.netns.remove();
    fs::rename(hidden, node.lab.bin_dir.join("macvlan")).expect("bring the plugin back");
    node.daemon.start_again(&node.lab);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "a DEL that could not be done, the daemon's return, and another DEL");
}

fn stale_conf() {
    let mut node = Node::new("p-stale");
    let pod = node.attached("cam", "lan");
    node.runtime.plugin["daemonSocketDir"] = node.lab.dir.join("nowhere").display().to_string().into();
    deadline(&mut node, "3s");
    let other = node.add(&node.pod("other", "lan"));
    assert!(!other.ok());
    assert!(other.done.took < Duration::from_secs(20), "the ADD took {:?}", other.done.took);
    node.del(&pod).expect_ok();
}

fn no_cluster_file() {
    let mut node = Node::new("p-nocluster");
    deadline(&mut node, "3s");
    fs::remove_file(node.lab.cni_conf_dir.join(PRIMARY)).expect("remove the primary network's file");
    // A daemon may take a moment to notice; a pod that came up before was served rightly.
    let refused = lab::wait_for(Duration::from_secs(8), || {
        let pod = node.pod("cam", "lan");
        let answer = node.add(&pod);
        if answer.ok() {
            node.del(&pod);
            return None;
        }
        assert_eq!(pod.netns.link_names(), [""; 0]);
        Some(answer)
    });
    let answer = refused.expect("pods come up without a primary network");
    assert!(answer.done.took < Duration::from_secs(5), "{:?}", answer.done.took);
    let folder = node.lab.cni_conf_dir.display().to_string();
    assert!(answer.error().to_string().contains(&folder), "{}", answer.describe());
}

fn primary_back() {
    let node = Plan::new("p-back").start();
    let file = node.lab.cni_conf_dir.join(PRIMARY);
    let text = fs::read(&file).expect("read the primary network");
    fs::remove_file(&file).expect("remove it");
    // Whether a pod comes up in between is told elsewhere.
    drop(node.add(&node.pod("early", "lan")));
    fs::write(&file, text).expect("bring it back");
    let pod = node.pod("late", "lan");
    let up = lab::wait_until(Duration::from_secs(8), || node.add(&pod).ok());
    assert!(up, "no pod comes up after the primary network is back");
    assert!(pod.netns.link("net1").is_some());
}
