//! Other hosts than the lab's: thin mode, distributions, a configuration that cannot be used. Files alone.

use std::fs;
use std::process::Command;
use std::time::Duration;

use lab::agent;
use lab::process::{self, Finished};
use lab::sys::traced::{Killed, kill_at_change};
use serde_json::{Value, json};

use crate::install::tree::{FLANNEL, SHIM, Tree, sentences};

pub(super) const MASTER: &str = r#"{"name":"cbr0","cniVersion":"1.0.0","plugins":[{"type":"flannel"},{"type":"portmap","capabilities":{"portMappings":true}}]}"#;
pub(super) const K3S_CONF: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
pub(super) const K3S_BIN: &str = "/var/lib/rancher/k3s/data/cni";
/// With a bpffs that is nowhere, as in all of them: what is taken off must not be this machine's.
pub(super) const GENERATED: &str = r#"{"datapath":{"bpffs":"/nowhere/multus"},"capabilities":{"portMappings":true},"cniVersion":"0.3.1","name":"multus-cni-network","clusterNetwork":"/host/etc/cni/net.d/10-flannel.conflist","type":"multus-shim","daemonSocketDir":"/run/multus"}"#;

/// What thin mode writes at 1.0.0: a list under the very name of ours.
fn thin() -> String {
    let delegate: Value = serde_json::from_str(FLANNEL).expect("JSON");
    let plugin = json!({
        "datapath": {"bpffs": "/nowhere/multus"}, "type": "multus", "capabilities": {"portMappings": true}, "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig",
        "cniConf": "/host/etc/cni/multus/net.d", "delegates": [delegate]
    });
    json!({"cniVersion": "1.0.0", "name": "cbr0", "plugins": [plugin]}).to_string()
}

/// `migrate` of a file of this host.
pub(super) fn command(tree: &Tree, file: &str, more: &[&str]) -> Command {
    let shim = tree.root.with_extension("shim");
    fs::write(&shim, SHIM).expect("write a plugin");
    let mut command = Command::new(agent::program("multus-agent"));
    command.arg("migrate").arg("--host-root").arg(&tree.root).arg("--config").arg(tree.path(file)).args(more);
    if !more.contains(&"--back") {
        command.arg("--shim").arg(shim);
    }
    command
}

pub(super) fn migrate(tree: &Tree, file: &str, more: &[&str]) -> Finished {
    process::run(&mut command(tree, file, more), b"", Duration::from_secs(20))
}

pub(super) fn document(done: &Finished) -> Value {
    document_of(done, 0)
}

pub(super) fn document_of(done: &Finished, code: i32) -> Value {
    assert_eq!(done.code, Some(code), "{}\n{}", done.out(), done.err());
    serde_json::from_slice(&done.stdout).expect("JSON")
}

/// What a host has beside the conf.
type Make<'a> = &'a dyn Fn(&Tree);

#[test]
fn hosts_of_either_mode_are_changed_over_and_back_byte_for_byte() {
    needs_programs!();
    // Name, the file, the runtime's folder, that of plugins, Multus's conf and its text, and where ours goes.
    let k3s = |tree: &Tree| {
        tree.folders(&[K3S_BIN, "/var/lib/rancher/k3s/data"]);
    };
    let thin = thin();
    let table: [(&str, &str, &str, &str, &str, Make<'_>); 3] = [
        ("thick", "00-multus.conf", "/etc/cni/net.d", "/opt/cni/bin", GENERATED, &|_| {}),
        ("k3s", "00-multus.conf", K3S_CONF, K3S_BIN, GENERATED, &k3s),
        ("thin", "00-multus.conflist", "/etc/cni/net.d", "/opt/cni/bin", &thin, &|_| {}),
    ];
    for (name, file, conf_dir, bin_dir, text, make) in table {
        let tree = Tree::new(&format!("migrate-{name}"));
        make(&tree);
        let file = format!("{conf_dir}/{file}");
        tree.folders(&[bin_dir])
            .file(&format!("{conf_dir}/10-flannel.conflist"), MASTER, 0o644)
            .file(&file, text, 0o600);
        tree.file(&format!("{bin_dir}/multus"), "theirs", 0o755).file(
            &format!("{bin_dir}/multus-shim"),
            "theirs",
            0o755,
        );
        // Multus's own, and empty: it may run, and have attached nothing yet.
        tree.folders(&["/var/lib/cni/multus/results", "/run/multus"]);
        let before = tree.snapshot();
        let done = document(&migrate(&tree, &file, &["-o", "json"]));
        let ours = format!("{conf_dir}/multus.d/multus-ebpf.json");
        let written: Value = serde_json::from_slice(&fs::read(tree.path(&ours)).expect("ours")).expect("JSON");
        assert_eq!(written["cniConfigDir"], conf_dir, "{name}: {written:#}");
        assert_eq!(written, done["configuration"], "{name}");
        assert_eq!(written["datapath"]["bpffs"], "/nowhere/multus", "{name}: this machine's own is not touched");
        assert!(fs::read_to_string(tree.path(&format!("{bin_dir}/multus-shim"))).unwrap().contains("multus-ebpf"));
        assert_eq!(fs::read_to_string(tree.path(&file)).unwrap(), text, "{name}: Multus goes on");
        if name == "thin" {
            assert!(sentences(&done).contains("stays until the agent serves"), "{}", sentences(&done));
            assert_eq!(
                (&written["overrideNetworkName"], &written["delegates"][0]["name"]),
                (&json!(true), &json!("cbr0"))
            );
        } else {
            let conf = fs::read_to_string(tree.path(&format!("{conf_dir}/00-multus.conflist"))).expect("our conf");
            assert!(conf.contains("portMappings"), "the cluster network's own: {name}: {conf}");
        }
        let back = migrate(&tree, &ours, &["--back"]);
        assert_eq!(back.code, Some(0), "{name}: {}\n{}", back.out(), back.err());
        tree.assert_is(&before, &format!("{name}: there and back"));
        document(&migrate(&tree, &file, &["-o", "json"]));
        let off = tree.run(&["uninstall"], &written);
        // The conf of the thick one stands, and leads to a daemon that is not there.
        assert_eq!(off.code, Some(i32::from(name != "thin")), "{name}: {}\n{}", off.out(), off.err());
        tree.assert_is(&before, &format!("{name}: there and off"));
    }
}

#[test]
fn nothing_is_done_while_a_key_is_refused_and_all_of_them_are_named() {
    needs_programs!();
    let tree = Tree::new("migrate-refused");
    let config = json!({"datapath": {"bpffs": "/nowhere/multus"}, "metricsPort": "9091", "connectionLimit": 0, "logLevel": "verbose", "socketdir": "/host/run/multus/"});
    tree.folders(&["/etc/cni/net.d", "/opt/cni/bin"]).file("/srv/daemon-config.json", &config.to_string(), 0o644);
    let before = tree.snapshot();
    let done = migrate(&tree, "/srv/daemon-config.json", &[]);
    assert_eq!(done.code, Some(1), "{}\n{}", done.out(), done.err());
    assert_eq!(done.out().matches("REFUSED").count(), 2, "{}", done.out());
    tree.assert_is(&before, "a refusal");
    let missing = migrate(&tree, "/srv/multus-ebpf.json", &["--back"]);
    assert!(missing.code == Some(1) && missing.err().contains("that is done"), "{}", missing.err());
    tree.file("/srv/x.json", "[", 0o644);
    let odd = migrate(&tree, "/srv/x.json", &[]);
    assert!(odd.code == Some(1) && odd.err().contains("JSON"), "{}", odd.err());
}

#[test]
fn what_the_operator_changed_in_ours_stays() {
    needs_programs!();
    let tree = Tree::new("migrate-edited");
    tree.folders(&["/opt/cni/bin"]).file("/etc/cni/net.d/10-flannel.conflist", FLANNEL, 0o644);
    tree.file("/srv/daemon-config.json", r#"{"logLevel":"verbose","datapath":{"bpffs":"/nowhere/multus"}}"#, 0o644);
    document(&migrate(&tree, "/srv/daemon-config.json", &["-o", "json"]));
    let edited = r#"{"logLevel":"debug","cniConfigDir":"/etc/cni/net.d","datapath":{"bpffs":"/nowhere/multus"}}"#;
    tree.file("/srv/multus-ebpf.json", edited, 0o600);
    let again = document_of(&migrate(&tree, "/srv/daemon-config.json", &["-o", "json"]), 1);
    assert!(sentences(&again).contains("stays as it is"), "{}", sentences(&again));
    assert_eq!(fs::read_to_string(tree.path("/srv/multus-ebpf.json")).unwrap(), edited);
    let back = migrate(&tree, "/srv/multus-ebpf.json", &["--back"]);
    assert_eq!(back.code, Some(1), "what somebody changed is told and left: {}", back.out());
    assert!(tree.path("/srv/multus-ebpf.json").exists() && !tree.path("/etc/cni/net.d/00-multus.conflist").exists());
}

#[test]
fn killed_before_any_change_there_or_back_the_way_back_is_found() {
    needs_programs!();
    let tree = Tree::new("migrate-killed");
    tree.file("/etc/cni/net.d/10-flannel.conflist", FLANNEL, 0o644).file("/opt/cni/bin/multus-shim", "theirs", 0o755);
    tree.file("/etc/cni/net.d/00-multus.conf", GENERATED, 0o600);
    let file = "/etc/cni/net.d/00-multus.conf";
    let before = tree.folders(&["/var/lib/cni/multus/results", "/run/multus"]).snapshot();
    for is_back in [false, true] {
        let mut steps = 0;
        loop {
            if is_back {
                document(&migrate(&tree, file, &["-o", "json"]));
            }
            let mut command = command(&tree, file, if is_back { &["--back"] } else { &[] });
            let ended = kill_at_change(command.stdout(std::process::Stdio::null()), steps);
            let done = migrate(&tree, file, &["--back"]);
            assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
            tree.assert_is(&before, &format!("a kill before change {steps}, on the way back: {is_back}"));
            if let Killed::Ended(code) = ended {
                assert_eq!(code, 0);
                break;
            }
            steps += 1;
            assert!(steps < 150, "it never ends");
        }
        assert!(steps >= 8, "only {steps} changes were seen");
    }
}
