//! Killed before every single change that installing, or uninstalling, makes: the host comes back as it was.

use lab::sys::traced::{Killed, kill_at_change};
use serde_json::json;

use super::tree::{FLANNEL, Tree, config};

/// More changes than either makes.
const MOST: usize = 120;

fn host(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.file("/etc/cni/net.d/10-flannel.conflist", FLANNEL, 0o644).file("/opt/cni/bin/multus-shim", "Multus's", 0o700);
    tree
}

#[test]
fn killed_before_any_change_of_installing_uninstall_finds_the_way_back() {
    needs_programs!();
    // A plugin's folder that has to be made, too.
    let folders = config(&json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin"}));
    let moved = config(&json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/new/bin"}));
    let tree = host("killed");
    let before = tree.snapshot();
    for (config, least) in [(&folders, 10), (&moved, 12)] {
        let mut steps = 0;
        loop {
            let ended = kill_at_change(tree.command(&["install"], config).stdout(std::process::Stdio::null()), steps);
            tree.document(&["uninstall"], config);
            tree.assert_is(&before, &format!("a kill before change {steps} of installing"));
            if let Killed::Ended(code) = ended {
                assert_eq!(code, 0);
                break;
            }
            steps += 1;
            assert!(steps < MOST, "it never ends");
        }
        assert!(steps >= least, "only {steps} changes were seen");
    }
}

#[test]
fn killed_before_any_change_of_uninstalling_the_next_one_ends_it() {
    needs_programs!();
    let folders = config(&json!({"cniConfigDir": "/etc/cni/net.d", "binDir": "/opt/cni/bin"}));
    let tree = host("unkilled");
    let before = tree.snapshot();
    let mut steps = 0;
    loop {
        tree.document(&["install"], &folders);
        let ended = kill_at_change(tree.command(&["uninstall"], &folders).stdout(std::process::Stdio::null()), steps);
        tree.document(&["uninstall"], &folders);
        tree.assert_is(&before, &format!("a kill before change {steps} of uninstalling"));
        if let Killed::Ended(code) = ended {
            assert_eq!(code, 0);
            break;
        }
        steps += 1;
        assert!(steps < MOST, "it never ends");
    }
    assert!(steps >= 6, "only {steps} changes were seen");
}
