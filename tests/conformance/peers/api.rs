//! What happens while the API server is slow, frozen or away.

use std::time::Duration;

use crate::clause::{Clause, clause};
use crate::daemon::Daemon;
use crate::node::{Node, Plan};

pub(super) const CLAUSES: &[Clause] = &[
    clause("peers.api-frozen-add", "a frozen API server keeps no known pod waiting", frozen_add),
    clause("peers.api-frozen-del", "a frozen API server keeps no DEL waiting", frozen_del),
    clause("peers.api-refused-add", "an API server that is away keeps no known pod from coming up", refused_add),
    clause("peers.api-refused-del", "DEL needs no API server", refused_del),
    clause(
        "peers.api-frozen-start",
        "a daemon that starts beside a frozen API server serves DEL at once",
        frozen_start,
    ),
    clause("peers.api-back", "when the API server is back, statuses are written and pods come up", back),
];

/// Longer than any clause waits: as good as frozen.
const FROZEN: Duration = Duration::from_secs(40);

fn frozen_add() {
    let node = Node::new("p-frozen");
    let pod = node.pod("cam", "lan");
    std::thread::sleep(Duration::from_millis(500));
    node.api.set_latency(FROZEN);
    let answer = node.add(&pod);
    answer.expect_ok();
    assert!(answer.done.took < Duration::from_secs(3), "the ADD took {:?}", answer.done.took);
    assert!(pod.netns.link("net1").is_some());
}

fn frozen_del() {
    let node = Node::new("p-frozen-del");
    let pod = node.attached("cam", "lan");
    node.api.set_latency(FROZEN);
    let answer = node.del(&pod);
    answer.expect_ok();
    assert!(answer.done.took < Duration::from_secs(2), "the DEL took {:?}", answer.done.took);
    node.assert_gone(&pod, "DEL beside a frozen API server");
}

fn refused_add() {
    let node = Node::new("p-refused");
    let pod = node.pod("cam", "lan");
    std::thread::sleep(Duration::from_millis(500));
    node.api.set_down(true);
    let answer = node.add(&pod);
    answer.expect_ok();
    assert!(answer.done.took < Duration::from_secs(3), "the ADD took {:?}", answer.done.took);
    assert!(pod.netns.link("net1").is_some());
}

fn refused_del() {
    let node = Node::new("p-refused-del");
    let pod = node.attached("cam", "lan");
    node.api.set_down(true);
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL without an API server");
}

fn frozen_start() {
    let mut node = Node::new("p-frozen-start");
    let pod = node.attached("cam", "lan");
    node.daemon.kill9();
    node.api.set_latency(FROZEN);
    node.daemon = Daemon::spawn(&node.lab, &node.config);
    let served = lab::wait_until(Duration::from_secs(10), || node.daemon.socket.exists());
    assert!(served, "no socket after 10 s");
    let answer = node.del(&pod);
    answer.expect_ok();
    assert!(answer.done.took < Duration::from_secs(5), "the DEL took {:?}", answer.done.took);
    // What the daemon keeps in files of its own it may tidy up later.
    let left: Vec<_> = node.traces(&pod).into_iter().filter(|trace| !trace.starts_with("file")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn back() {
    let node = Plan::new("p-back-api").start();
    let pod = node.pod("cam", "lan");
    std::thread::sleep(Duration::from_millis(500));
    node.api.set_down(true);
    node.add(&pod);
    node.api.set_down(false);
    let written = lab::wait_for(Duration::from_secs(15), || node.network_status(&pod));
    assert!(written.is_some(), "the status that could not be written was forgotten");
    let up = lab::wait_until(Duration::from_secs(15), || {
        let next = node.pod("next", "lan");
        node.add(&next).ok() && next.netns.link("net1").is_some()
    });
    assert!(up, "no pod comes up after the API server is back");
}
