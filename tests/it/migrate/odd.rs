//! Nodes on which Multus is set up in a way that is not the usual one, or left much behind.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::multus::{self, Attached};
use lab::upstream::base64;
use lab::{Lab, plugins, process};
use serde_json::{Value, json};

use super::hosts::{command, document_of, migrate};
use super::{Node, document, picture};
use crate::install::tree::{FLANNEL, Tree, assert_same, sentences, stamps};

/// What every file here has beside its own: pins that are nowhere, for this machine's are nobody's business.
fn with(more: &Value) -> Value {
    let mut config = json!({"datapath": {"bpffs": "/nowhere/multus"}, "cniVersion": "0.3.1"});
    for (key, value) in more.as_object().expect("an object") {
        config[key] = value.clone();
    }
    config
}

/// The conf of thin mode.
fn thin(more: &Value) -> String {
    let mut conf = with(
        &json!({"type": "multus", "name": "multus-cni-network", "delegates": [{"name": "cbr0", "type": "flannel"}],
        "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig"}),
    );
    for (key, value) in more.as_object().expect("an object") {
        conf[key] = value.clone();
    }
    conf.to_string()
}

/// A host on which Multus runs.
fn host(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.file("/etc/cni/net.d/10-flannel.conflist", FLANNEL, 0o644).file("/opt/cni/bin/multus-shim", "theirs", 0o755);
    tree.file("/opt/cni/bin/multus", "theirs", 0o755).file("/var/lib/cni/multus/results/x", "", 0o600);
    tree
}

/// Tries it without doing it, does it, and goes back: the first changes nothing at all, the last leaves all as it was.
/// The document of the second, whose exit code is `code`.
fn round_trip(tree: &Tree, file: &str, code: i32, done: impl FnOnce(&Value)) {
    let (before, untouched) = (tree.snapshot(), stamps(&tree.root));
    document_of(&migrate(tree, file, &["--dry-run", "-o", "json"]), code);
    assert_same(&untouched, &stamps(&tree.root), "a dry run");
    let document = document_of(&migrate(tree, file, &["-o", "json"]), code);
    done(&document);
    let beside = Path::new(file).parent().expect("a folder");
    let ours = ["multus.d/multus-ebpf.json", "multus-ebpf.json"].map(|name| beside.join(name));
    let ours = ours.iter().find(|path| tree.path(&path.display().to_string()).is_file()).expect("our configuration");
    let back = migrate(tree, &ours.display().to_string(), &["--back"]);
    assert_eq!(back.code, Some(0), "{}\n{}", back.out(), back.err());
    tree.assert_is(&before, "there and back");
}

#[test]
fn what_a_daemon_is_told_is_carried_over_with_the_hosts_own_paths() {
    needs_programs!();
    let tree = host("migrate-told");
    tree.file("/usr/libexec/cni/multus-shim", "theirs", 0o755).file("/var/lib/cni/other/results/x", "", 0o600);
    let delegates = json!([{"cniVersion": "1.0.0", "name": "cbr0", "plugins": [{"type": "flannel"},
        {"type": "portmap", "capabilities": {"portMappings": true}}]}]);
    let config = with(&json!({
        "chrootDir": "/hostroot", "cniConfigDir": "/host/etc/cni/net.d", "multusAutoconfigDir": "/host/etc/cni/net.d",
        "socketDir": "/host/run/multus/", "readinessindicatorfile": "/host/etc/cni/net.d/10-flannel.conflist",
        "namespaceIsolation": true, "globalNamespaces": "default,lan", "systemNamespaces": ["kube-system"],
        "multusNamespace": "kube-system", "cniDir": "/var/lib/cni/other", "binDir": "/hostroot/usr/libexec/cni",
        "delegates": delegates
    }));
    tree.file("/srv/daemon-config.json", &config.to_string(), 0o644);
    round_trip(&tree, "/srv/daemon-config.json", 0, |done| {
        let wanted = with(&json!({
            "cniConfigDir": "/etc/cni/net.d", "multusAutoconfigDir": "/etc/cni/net.d", "socketDir": "/run/multus/",
            "readinessindicatorfile": "/etc/cni/net.d/10-flannel.conflist", "namespaceIsolation": true,
            "globalNamespaces": "default,lan", "systemNamespaces": ["kube-system"], "multusNamespace": "kube-system",
            "cniDir": "/var/lib/cni/other", "binDir": "/usr/libexec/cni", "delegates": delegates
        }));
        assert_eq!(done["configuration"], wanted);
        assert!(tree.path("/var/lib/cni/other/install").is_dir(), "the revert log is where the state is");
        assert_eq!(fs::read_to_string(tree.path("/opt/cni/bin/multus-shim")).unwrap(), "theirs");
        assert!(fs::read_to_string(tree.path("/usr/libexec/cni/multus-shim")).unwrap().contains("multus-ebpf"));
        let conf = fs::read_to_string(tree.path("/etc/cni/net.d/00-multus.conflist")).expect("our conf");
        assert!(conf.contains("portMappings") && conf.contains("/var/lib/cni/other"), "{conf}");
    });
}

#[test]
fn confs_of_other_names_and_several_of_them_stay_multus_own() {
    needs_programs!();
    // Multus's files, which of them is named, the exit code, what is said, and whether ours is written beside them.
    type Case<'a> = (&'a [&'a str], &'a str, i32, &'a str, bool);
    let table: [Case<'_>; 4] = [
        (&["05-multus.conf"], "05-multus.conf", 0, "sorts after", false),
        (&["00-a-multus.conf"], "00-a-multus.conf", 1, "sorts before ours", true),
        (&["00-multus.conf", "70-multus.conf"], "00-multus.conf", 0, "00-multus.conf\" is kept", true),
        (&["multus.conf", "05-multus.conf"], "multus.conf", 0, "05-multus.conf\" of Multus sorts after", false),
    ];
    for (files, named, code, said, is_written) in table {
        let tree = host("migrate-names");
        for file in files {
            tree.file(&format!("/etc/cni/net.d/{file}"), &thin(&json!({})), 0o600);
        }
        round_trip(&tree, &format!("/etc/cni/net.d/{named}"), code, |done| {
            assert!(sentences(done).contains(said), "{files:?}: {}", sentences(done));
            assert_eq!(tree.path("/etc/cni/net.d/00-multus.conflist").exists(), is_written, "{files:?}");
        });
    }
}

#[test]
fn a_conf_that_the_operator_wrote_is_copied_and_not_made_anew() {
    needs_programs!();
    let generated =
        r#"{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus-shim","daemonSocketDir":"/run/multus"}"#;
    // Where it is for Multus, whether the host has it, whether Multus has copied it, the exit code and what is said.
    let table = [
        (
            "/etc/cni/multus/70-multus.conf",
            true,
            true,
            0,
            "already: \"ROOT/etc/cni/net.d/70-multus.conf\" is there already",
        ),
        ("/etc/cni/multus/70-multus.conf", true, false, 0, "written by the agent when it serves, as the copy"),
        ("/tmp/multus-conf/70-multus.conf", false, true, 1, "is not on this host: it was in Multus's pod"),
    ];
    for (source, is_there, is_copied, code, said) in table {
        let tree = host("migrate-copied");
        for (path, wanted) in [(source, is_there), ("/etc/cni/net.d/70-multus.conf", is_copied)] {
            if wanted {
                tree.file(path, generated, 0o600);
            }
        }
        let config = with(&json!({"cniConfigDir": "/host/etc/cni/net.d", "multusConfigFile": source}));
        tree.file("/srv/daemon-config.json", &config.to_string(), 0o644);
        round_trip(&tree, "/srv/daemon-config.json", code, |done| {
            let all = sentences(done).replace(&tree.root.display().to_string(), "ROOT");
            assert!(all.contains(said), "{source}: {all}");
            assert!(!tree.path("/etc/cni/net.d/00-multus.conflist").exists(), "{source}");
            assert_eq!(done["configuration"]["multusConfigFile"], source);
        });
    }
}

#[test]
fn the_plugin_goes_where_multus_own_is_and_not_to_its_delegates() {
    needs_programs!();
    let tree = host("migrate-bin");
    tree.file("/etc/cni/net.d/00-multus.conf", &thin(&json!({"binDir": "/opt/more/bin"})), 0o600);
    tree.file("/opt/more/bin/macvlan", "a delegate", 0o755);
    round_trip(&tree, "/etc/cni/net.d/00-multus.conf", 0, |done| {
        assert!(fs::read_to_string(tree.path("/opt/cni/bin/multus-shim")).unwrap().contains("multus-ebpf"));
        assert!(!tree.path("/opt/more/bin/multus-shim").exists(), "the runtime does not look there");
        assert_eq!(done["configuration"]["binDir"], "/opt/more/bin", "delegates are looked for there");
        assert!(sentences(done).contains("--cni-bin-dir"), "{}", sentences(done));
    });
}

#[test]
fn credentials_in_the_place_of_a_path_are_refused_and_never_repeated() {
    needs_programs!();
    let tree = host("migrate-token");
    for kubeconfig in
        [json!("apiVersion: v1\nusers: [{user: {token: CANARY}}]"), json!({"users": [{"user": {"token": "CANARY"}}]})]
    {
        tree.file("/etc/cni/net.d/00-multus.conf", &thin(&json!({"kubeconfig": kubeconfig})), 0o600);
        let untouched = stamps(&tree.root);
        for how in [&[][..], &["-o", "json"], &["--dry-run"], &["--back"]] {
            let done = migrate(&tree, "/etc/cni/net.d/00-multus.conf", how);
            let said = done.out() + &done.err();
            assert!(done.code == Some(1) && said.contains("kubeconfig is no path"), "{said}");
            assert!(!said.contains("CANARY"), "{said}");
        }
        assert_same(&untouched, &stamps(&tree.root), "a refusal");
    }
}

/// What Multus and libcni left of `count` containers that are gone; every fiftieth file is torn.
fn leave(cni_dir: &Path, count: usize) {
    fs::create_dir_all(cni_dir.join("results")).expect("make a folder");
    let mut written = 0;
    let mut put = |path: &Path, text: &str| {
        written += 1;
        let kept = if written % 50 == 0 { text.len() / 2 } else { text.len() };
        fs::write(path, &text[..kept]).expect("write a file");
    };
    for at in 0..count {
        let container = format!("{at:064x}");
        let mut noted = String::new();
        for (network, ifname) in [("def", "eth0"), ("lan", "net1"), ("wan", "net2")] {
            let config = json!({"cniVersion": "0.3.1", "name": network, "type": "macvlan", "master": "eth0",
                "ipam": {"type": "host-local", "dataDir": "/nowhere", "ranges": [[{"subnet": "192.168.50.0/24"}]]}});
            let bytes = base64(config.to_string().as_bytes());
            let entry = json!({"kind": "cniCacheV1", "containerId": container, "config": bytes, "ifName": ifname,
                "networkName": network, "netns": format!("/run/netns/gone-{at}"),
                "cniArgs": [["K8S_POD_NAMESPACE", "default"], ["K8S_POD_NAME", format!("p{at}")]],
                "result": {"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "192.168.50.7/24"}]}});
            put(&cni_dir.join("results").join(format!("{network}-{container}-{ifname}")), &entry.to_string());
            let _ =
                write!(noted, r#"{}{{"Name":"{network}","Bytes":"{bytes}"}}"#, if noted.is_empty() { "" } else { "," });
        }
        put(&cni_dir.join(&container), &format!("[{noted}]"));
    }
}

#[test]
fn what_thousands_of_pods_left_takes_little_time_and_memory_and_a_short_table() {
    needs_programs!();
    let tree = host("migrate-many");
    tree.file("/etc/cni/net.d/00-multus.conf", &thin(&json!({})), 0o600);
    leave(&tree.path("/var/lib/cni/multus"), 2500);
    for how in [&["--dry-run"][..], &["--dry-run", "-o", "json"]] {
        let asked = command(&tree, "/etc/cni/net.d/00-multus.conf", how);
        // Seconds of a processor, whoever else has the machine, and bytes of its own.
        let mut limited = Command::new("prlimit");
        limited.args(["--cpu=4", "--data=100000000"]).arg(asked.get_program()).args(asked.get_args());
        let done = process::run(&mut limited, b"", Duration::from_secs(120));
        assert_eq!((done.code, done.signal), (Some(0), None), "{}", done.err());
        if how.contains(&"json") {
            let all: Value = serde_json::from_slice(&done.stdout).expect("JSON");
            assert_eq!(all["containers"].as_array().map(Vec::len), Some(2500), "torn files hide no container");
        } else {
            assert!(
                done.out().lines().count() < 120 && done.out().contains("2480 more that are gone"),
                "{}",
                done.out()
            );
        }
    }
}

/// macvlan with results of an older version, and addresses of its own.
fn older(lab: &Lab, name: &'static str, version: &str, ifname: &'static str, from: u8) -> Attached {
    let mut network = lab.macvlan("bridge");
    network["cniVersion"] = version.into();
    let (first, last) = (format!("192.168.50.{from}"), format!("192.168.50.{}", from + 9));
    network["ipam"]["ranges"] = json!([[{"subnet": "192.168.50.0/24", "rangeStart": first, "rangeEnd": last}]]);
    Attached { label: format!("default/{name}"), ..Attached::new(network, name, ifname) }
}

#[test]
fn results_of_every_version_go_there_and_back() {
    needs_programs!();
    let node = Node::new("migrate-versions");
    let versions = [("v031", "0.3.1", "net1", 100), ("v040", "0.4.0", "net2", 110), ("v100", "1.0.0", "net3", 120)];
    let older = versions.map(|(name, version, ifname, from)| older(&node.lab, name, version, ifname, from));
    for network in &older {
        node.lab.network("default", network.name, &network.network, &json!({}));
    }
    let mut networks = vec![Attached::new(node.lab.bridge(), "lab-default", "eth0")];
    networks.extend(older);
    let (cam, dish) = (node.lab.pod("cam"), node.lab.pod("dish"));
    for pod in [&cam, &dish] {
        multus::attach(&node.lab, pod, &networks);
    }
    let dishs = picture(&dish);
    document(&node.migrate(&["-o", "json"]));
    let (world, (_, ours), _) = node.swap();
    world.check(&cam).expect_ok();
    world.del(&cam).expect_ok();
    assert_eq!(cam.netns.link_names(), [""; 0]);
    let tv = world.attached("tv", "v031,v040,v100");
    let back = super::migrate(&world.lab, &ours, &["--back"]);
    assert_eq!(back.code, Some(0), "{}\n{}", back.out(), back.err());
    assert_eq!(picture(&dish), dishs);
    for (name, version, ifname, _) in versions {
        let file = multus::result_file(&world.lab, &tv, name, ifname);
        let entry: Value = serde_json::from_slice(&fs::read(file).expect("libcni's result")).expect("JSON");
        assert_eq!(entry["result"]["cniVersion"], version, "{name}");
    }
    for pod in [&dish, &tv] {
        multus::detach(&world.lab, pod);
        assert_eq!(pod.netns.link_names(), [""; 0], "{}", pod.name);
    }
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}
