//! The networks of the cluster, which Multus reads there and nowhere else.

use std::fs;

use lab::apiserver::ApiServer;
use serde_json::{Value, json};

use super::hosts::{GENERATED, MASTER, document, document_of, migrate};
use crate::install::tree::{Tree, sentences};

const FILE: &str = "/srv/daemon-config.json";
const LIST: &str = "/apis/k8s.cni.cncf.io/v1/network-attachment-definitions";
const BY_HAND: &str = "kubectl get network-attachment-definitions --all-namespaces --output yaml | multus-agent lint -";
const LAN: &str = r#"{"cniVersion":"1.0.0","type":"macvlan","master":"eth0","ipam":{"type":"dhcp"}}"#;

fn host(name: &str) -> Tree {
    let tree = Tree::new(name);
    tree.file("/etc/cni/net.d/10-flannel.conflist", MASTER, 0o644);
    tree.file("/etc/cni/net.d/00-multus.conf", GENERATED, 0o600).folders(&["/opt/cni/bin", "/etc/kube"]);
    let config = json!({"datapath": {"bpffs": "/nowhere/multus"}, "cniConfigDir": "/host/etc/cni/net.d",
        "kubeconfig": "/host/etc/kube/kubeconfig"});
    tree.file(FILE, &config.to_string(), 0o644);
    tree
}

/// What is said of a network: nothing, if it can be used; `None` if nobody looked at it.
fn judgement(done: &Value, network: &str) -> Option<String> {
    let networks = done["networks"].as_array().expect("networks");
    let one = networks.iter().find(|one| one["network"].as_str().is_some_and(|name| name.ends_with(network)))?;
    Some(one["refused"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn networks_of_the_cluster_are_listed_once_and_judged_as_lint_does() {
    needs_programs!();
    let tree = host("migrate-networks");
    let api = ApiServer::start().expect("an API server");
    api.write_kubeconfig(&tree.path("/etc/kube")).expect("write a kubeconfig");
    for (name, config) in [("lan", LAN), ("half", "{"), ("again", r#"{"type":"multus"}"#), ("here", ""), ("lost", "")] {
        api.put_network("shop", name, config);
    }
    let here = LAN.replacen('{', r#"{"name":"here","#, 1);
    tree.file("/etc/cni/multus/net.d/here.conf", &here, 0o644);
    tree.file("/etc/cni/multus/net.d/torn.conf", "{", 0o644);
    let done = document_of(&migrate(&tree, FILE, &["-o", "json"]), 1);
    let said = sentences(&done);
    for (network, part) in [
        ("shop/lan", ""),
        ("shop/here", ""),
        ("shop/half", "JSON"),
        ("shop/again", "multus"),
        ("shop/lost", "confDir"),
        ("net.d/torn.conf", "JSON"),
    ] {
        let why = judgement(&done, network).unwrap_or_else(|| panic!("{network}: {done:#}"));
        assert!(why.is_empty() == part.is_empty() && why.contains(part), "{network}: {why}");
        assert_eq!(said.contains(&format!("{network}\" cannot be used")), !part.is_empty(), "{network}: {said}");
    }
    assert!(said.contains("2 networks can be used") && !said.contains(BY_HAND), "{said}");
    assert_eq!(api.count("GET", LIST), 1, "{:?}", api.seen());
    assert_eq!(api.seen().len(), 1, "nothing else is asked: {:?}", api.seen());
    assert!(api.seen().iter().all(|seen| seen.had_token));
    assert!(tree.path("/srv/multus-ebpf.json").exists(), "what is wrong with networks stops nothing");
}

#[test]
fn where_nobody_can_look_at_the_networks_it_is_said_and_no_secret_with_it() {
    needs_programs!();
    let tree = host("migrate-unlisted");
    let api = ApiServer::start().expect("an API server");
    let kubeconfig = api.write_kubeconfig(&tree.path("/etc/kube")).expect("write a kubeconfig");
    let of_lab = fs::read_to_string(&kubeconfig).expect("read the kubeconfig");
    let inline = of_lab.replace("\"tokenFile\"", "\"password\": \"canary\", \"username\": \"canary\", \"tokenFile\"");
    api.set_down(true);
    for (name, text, part) in [
        ("away", Some(of_lab.as_str()), "list the networks of the cluster"),
        ("away, with a password", Some(&inline), "list the networks of the cluster"),
        ("torn", Some("users: [{token: canary"), "not the YAML of a kubeconfig"),
        ("none", None, "/etc/kube/kubeconfig"),
    ] {
        match text {
            Some(text) => fs::write(&kubeconfig, text).expect("write a kubeconfig"),
            None => fs::remove_file(&kubeconfig).expect("remove the kubeconfig"),
        }
        let done = migrate(&tree, FILE, &["-o", "json"]);
        let (out, said) = (done.out() + &done.err(), sentences(&document(&done)));
        let steps: Vec<&str> = said.lines().filter(|line| line.contains(BY_HAND)).collect();
        assert!(matches!(steps[..], [one] if one.starts_with("left") && one.contains(part)), "{name}: {said}");
        assert!(!out.contains("canary") && !out.contains("lab-token"), "{name}: {out}");
    }
    let config = json!({"datapath": {"bpffs": "/nowhere/multus"}, "cniConfigDir": "/host/etc/cni/net.d"});
    tree.file("/srv/other/daemon-config.json", &config.to_string(), 0o644);
    let said = sentences(&document(&migrate(&tree, "/srv/other/daemon-config.json", &["--dry-run", "-o", "json"])));
    assert!(said.contains(BY_HAND) && said.contains("names no kubeconfig"), "{said}");
}
