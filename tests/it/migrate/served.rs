//! Whose socket is it? A Multus that serves keeps its own; what a dead agent left goes.

use std::os::unix::net::UnixListener;

use lab::upstream::{self, Daemon};
use serde_json::Value;

use super::hosts::{GENERATED, MASTER, document, migrate};
use crate::install::tree::{Tree, config};

const FILE: &str = "/etc/cni/net.d/00-multus.conf";
const SOCKET: &str = "/run/multus/multus.sock";

fn host(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.file("/etc/cni/net.d/10-flannel.conflist", MASTER, 0o644).file(FILE, GENERATED, 0o600);
    tree.file("/opt/cni/bin/multus-shim", "theirs", 0o755);
    tree
}

#[test]
fn a_multus_that_serves_keeps_its_socket() {
    needs_programs!();
    let tree = host("migrate-served");
    tree.folders(&["/var/lib/cni/multus/results"]);
    let multus = Daemon::start(&tree.path("/run/multus"), true);
    let before = tree.snapshot();
    let answers = || upstream::ask(&tree.path(SOCKET), "/readyz", &Value::Null).expect("Multus answers still");
    for (name, is_back) in [("the way back", true), ("the way back once more", true), ("uninstall", false)] {
        if name != "the way back once more" {
            document(&migrate(&tree, FILE, &["-o", "json"]));
        }
        let go = |more: &[&str]| {
            if is_back {
                return migrate(&tree, FILE, &[&["--back"], more].concat());
            }
            let config = config(&serde_json::json!({"cniConfigDir": "/etc/cni/net.d"}));
            tree.run(&[&["uninstall"], more].concat(), &config)
        };
        for more in [&["--dry-run"][..], &[]] {
            let done = go(more);
            assert_eq!(done.code, Some(0), "{name}: {}\n{}", done.out(), done.err());
            assert!(done.out().contains("multus.sock\" stays"), "{name}: {}", done.out());
            assert!(!done.out().contains("start Multus again"), "{name}: {}", done.out());
            answers();
        }
        tree.assert_is(&before, name);
    }
    assert!(!multus.asked("/v1/drain?for=20000&then=end").is_empty(), "it was asked, as an agent is");
}

#[test]
fn empty_folders_stay_where_they_were_there_before_and_a_dead_socket_goes() {
    needs_programs!();
    for was_there in [true, false] {
        let tree = host(&format!("migrate-empty-{was_there}"));
        if was_there {
            tree.folders(&["/var/lib/cni/multus/results", "/run/multus"]);
        }
        let before = tree.snapshot();
        for is_back in [true, false] {
            let written = document(&migrate(&tree, FILE, &["-o", "json"]))["configuration"].clone();
            // As an agent that was killed.
            tree.folders(&["/run/multus", "/var/lib/cni/multus/results", "/var/lib/cni/multus/records"]);
            drop(UnixListener::bind(tree.path(SOCKET)).expect("bind a socket"));
            let done = if is_back { migrate(&tree, FILE, &["--back"]) } else { tree.run(&["uninstall"], &written) };
            // Multus's conf stands, and nobody answers where it leads.
            assert_eq!(done.code, Some(i32::from(!is_back)), "{}\n{}", done.out(), done.err());
            tree.assert_is(&before, &format!("folders there before: {was_there}, back to Multus: {is_back}"));
            if is_back {
                migrate(&tree, FILE, &["--back"]);
                tree.assert_is(&before, "the way back once more");
            }
        }
    }
}
