//! Folders as Multus's pod sees them, and as the host has them; and files that are not Multus's at all.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::Node;
use super::hosts::{GENERATED, K3S_BIN, K3S_CONF, MASTER, document, document_of, migrate};
use crate::install::tree::{Tree, sentences};

const FILE: &str = "/srv/daemon-config.json";

/// A K3s node whose operator changed nothing but the volume's path, and on which podman was used once.
fn k3s(name: &str) -> Tree {
    let tree = Tree::new(name);
    let config = json!({"datapath": {"bpffs": "/nowhere/multus"}, "cniConfigDir": "/host/etc/cni/net.d",
        "multusAutoconfigDir": "/host/etc/cni/net.d", "multusConfigFile": "auto"});
    tree.folders(&[K3S_BIN, "/etc/cni/net.d", "/opt/cni/bin"]).file(FILE, &config.to_string(), 0o644);
    tree.file(&format!("{K3S_CONF}/10-flannel.conflist"), MASTER, 0o644);
    tree.file(&format!("{K3S_CONF}/00-multus.conf"), GENERATED, 0o600);
    tree
}

fn written(tree: &Tree) -> Value {
    serde_json::from_slice(&fs::read(tree.path("/srv/multus-ebpf.json")).expect("our configuration")).expect("JSON")
}

#[test]
fn a_folder_that_only_multus_pod_calls_so_is_asked_about_and_an_answer_is_taken() {
    needs_programs!();
    let tree = k3s("migrate-pods-view");
    let before = tree.snapshot();
    let refused = |why: &str| {
        let asked = document_of(&migrate(&tree, FILE, &["-o", "json"]), 1);
        let said = sentences(&asked);
        let remedy = format!("say --cni-conf-dir \"{K3S_CONF}\"");
        assert!(said.contains("nothing is done") && said.contains(&remedy), "{why}: {said}");
        assert!(asked["configuration"].is_null(), "{why}: {asked:#}");
        let told = migrate(&tree, FILE, &["--dry-run"]);
        assert!(told.code == Some(1) && told.out().contains(&remedy), "{why}: {}", told.out());
    };
    refused("no network in the configured folder");
    tree.assert_is(&before, "a doubt");
    let says = format!("[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  conf_dir = \"{K3S_CONF}\"\n");
    tree.file("/var/lib/rancher/k3s/agent/etc/containerd/config.toml", &says, 0o644);
    tree.file("/etc/cni/net.d/87-podman.conflist", MASTER, 0o644);
    refused("the runtime reads another one");
    let before = tree.snapshot();
    let as_seen = tree.path(K3S_CONF).display().to_string();
    for more in [["--preset", "k3s"], ["--cni-conf-dir", K3S_CONF], ["--cni-conf-dir", &as_seen]] {
        document(&migrate(&tree, FILE, &[&more[..], &["-o", "json"]].concat()));
        let written = written(&tree);
        assert_eq!((&written["cniConfigDir"], &written["multusAutoconfigDir"]), (&json!(K3S_CONF), &json!(K3S_CONF)));
        assert!(tree.path(&format!("{K3S_CONF}/00-multus.conflist")).exists(), "{more:?}");
        let back = migrate(&tree, "/srv/multus-ebpf.json", &["--back"]);
        assert_eq!(back.code, Some(0), "{}\n{}", back.out(), back.err());
        tree.assert_is(&before, "there and back");
    }
}

#[test]
fn a_link_to_the_runtimes_folder_is_no_other_folder() {
    needs_programs!();
    let tree = k3s("migrate-linked");
    fs::remove_dir(tree.path("/etc/cni/net.d")).expect("remove a folder");
    symlink(K3S_CONF, tree.path("/etc/cni/net.d")).expect("make a link");
    document(&migrate(&tree, FILE, &["-o", "json"]));
    assert_eq!(written(&tree)["cniConfigDir"], "/etc/cni/net.d");
}

#[test]
fn an_agent_with_the_folders_that_were_named_finds_its_master() {
    needs_programs!();
    let node = Node::new("migrate-named");
    let text = fs::read_to_string(&node.files.0).expect("Multus's configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let keys = config.as_object_mut().expect("an object");
    keys.retain(|key, _| !["clusterNetwork", "binDir"].contains(&key.as_str()));
    keys.insert("cniConfigDir".into(), "/host/nowhere/net.d".into());
    keys.insert("multusAutoconfigDir".into(), "/host/nowhere/net.d".into());
    keys.insert("cniBinDir".into(), "/hostroot/nowhere/bin".into());
    fs::write(&node.files.0, config.to_string()).expect("write Multus's configuration");
    fs::write(node.lab.cni_conf_dir.join("10-default.conflist"), node.lab.bridge().to_string())
        .expect("write a master");
    let folders = [node.lab.cni_conf_dir.display().to_string(), node.lab.bin_dir.display().to_string()];
    let more = ["--cni-conf-dir", &folders[0], "--cni-bin-dir", &folders[1]];
    super::document(&node.migrate(&[&more[..], &["-o", "json"]].concat()));
    let (world, (_, ours), _) = node.swap();
    let written: Value = serde_json::from_slice(&fs::read(&ours).expect("our configuration")).expect("JSON");
    assert_eq!((&written["binDir"], &written["cniBinDir"]), (&json!(folders[1]), &Value::Null));
    let pod = world.attached("cam", "lan");
    assert_eq!(pod.netns.link_names(), ["eth0", "net1"], "the master made eth0");
    world.del(&pod).expect_ok();
}

#[test]
fn the_clusters_own_network_does_not_become_ours() {
    needs_programs!();
    let tree = Tree::new("migrate-not-multus");
    let bridge = r#"{"cniVersion":"1.0.0","name":"cbr0","type":"bridge","bridge":"cni0","ipam":{"type":"host-local"}}"#;
    tree.file("/etc/cni/net.d/10-bridge.conf", bridge, 0o644).file("/opt/cni/bin/bridge", "theirs", 0o755);
    let before = tree.snapshot();
    let done = migrate(&tree, "/etc/cni/net.d/10-bridge.conf", &[]);
    assert_eq!(done.code, Some(1), "{}\n{}", done.out(), done.err());
    assert!(done.err().contains("plugin \"bridge\"") && done.err().contains("00-multus.conf"), "{}", done.err());
    tree.assert_is(&before, "a file that is not Multus's");
}

#[test]
fn a_file_with_a_key_that_is_refused_is_told_as_it_is() {
    needs_programs!();
    let tree = Tree::new("migrate-refused-folder");
    tree.file("/etc/cni/net.d/10-flannel.conflist", MASTER, 0o644);
    tree.file(FILE, r#"{"metricsPort":"9091","cniConfigDir":"/host/srv/net.d"}"#, 0o644);
    let told = migrate(&tree, FILE, &["--dry-run"]);
    assert!(told.code == Some(1) && told.out().contains("REFUSED"), "{}", told.out());
    assert!(told.out().contains("it is \"/srv/net.d\" on the host"), "{}", told.out());
}
