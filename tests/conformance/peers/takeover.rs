//! Two daemons on one node: the old one that ends late, the new one that is already there.

use std::fs;
use std::time::Duration;

use lab::wait_until;

use crate::clause::{Clause, clause};
use crate::daemon::Daemon;
use crate::node::{Node, generated, remember_daemon};

pub(super) const CLAUSES: &[Clause] = &[
    clause(
        "peers.old-ends-late",
        "an old daemon that ends late takes neither the new one's socket nor its file",
        ends_late,
    ),
    clause("peers.sigterm-conf", "SIGTERM leaves the runtime's configuration in place", sigterm_conf),
    clause("peers.conf-by-hand", "a configuration deleted by hand is written again without a restart", conf_by_hand),
    clause("peers.stale-socket", "a socket left by a killed daemon is no obstacle", stale_socket),
];

fn ends_late() {
    let mut node = Node::new("p-late");
    node.attached("before", "lan");
    let conf = generated(&node.lab).map(|(path, _)| path);
    node.daemon.ask_to_end();
    std::thread::sleep(Duration::from_millis(300));
    let new = Daemon::spawn_as(&node.lab, &node.config, "second");
    let mut old = std::mem::replace(&mut node.daemon, new);
    remember_daemon(&node.lab, node.daemon.pid());
    assert!(old.ended_within(Duration::from_secs(25)).is_some(), "the old daemon did not end");
    let healthy = wait_until(Duration::from_secs(10), || {
        lab::http::get_unix(&node.daemon.socket, "/healthz").is_ok_and(|reply| reply.status == 200)
    });
    assert!(healthy, "after the old daemon's end the new one's socket is not there");
    if let Some(path) = conf {
        assert!(wait_until(Duration::from_secs(5), || path.exists()), "{} is gone", path.display());
    }
    node.assert_works("an old daemon that ended late");
}

fn sigterm_conf() {
    let mut node = Node::new("p-term-conf");
    let Some((path, _)) = lab::wait_for(Duration::from_secs(8), || generated(&node.lab)) else {
        panic!("no configuration was generated");
    };
    node.daemon.ask_to_end();
    assert!(node.daemon.ended_within(Duration::from_secs(25)).is_some(), "SIGTERM is ignored");
    assert!(path.exists(), "{} was deleted: pods would start without their networks", path.display());
}

fn conf_by_hand() {
    let node = Node::new("p-conf-hand");
    let Some((path, _)) = lab::wait_for(Duration::from_secs(8), || generated(&node.lab)) else {
        panic!("no configuration was generated");
    };
    fs::remove_file(&path).expect("delete the configuration");
    assert!(wait_until(Duration::from_secs(10), || path.exists()), "{} was not written again", path.display());
}

fn stale_socket() {
    let mut node = Node::new("p-stale-socket");
    node.daemon.kill9();
    assert!(node.daemon.socket.exists(), "the killed daemon left no socket, so this shows nothing");
    node.daemon.start_again(&node.lab);
    node.assert_works("a stale socket");
}
