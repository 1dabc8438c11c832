//! Eight broken set-ups, each broken for real: one command shows cause and remedy, and the how-to shows what it prints.
//!
//! With `MULTUS_REGENERATE=1` the transcripts of docs/how-to/broken-set-ups.md are written anew.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lab::world::Builder;
use lab::{Lab, Pod, World, agent, wait_for};
use serde_json::{Value, json};

use crate::api::Cluster;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/how-to/broken-set-ups.md");

/// One test at a time writes the page.
static WRITING: Mutex<()> = Mutex::new(());

/// A node as an installation leaves it: the plugin is where the runtime looks for it.
fn node(name: &str) -> Builder {
    let builder = Builder::new(name);
    install(&builder.lab);
    builder
}

fn install(lab: &Lab) {
    symlink(agent::program("multus-shim"), lab.bin_dir.join("multus-shim")).expect("link the shim");
}

fn pod(world: &World, name: &str, networks: &str) -> Pod {
    let pod = world.lab.pod(name).in_namespace("shop").networks(networks);
    world.lab.pod_object(&pod);
    pod
}

/// Runs the command, wants its exit code and these words, and compares what it printed with the page.
fn shown(world: &World, (name, line, code): (&str, &str, i32), words: &[&str]) {
    let args: Vec<&str> = line.split(' ').collect();
    let done = world.agent.cli(&world.lab, &args);
    assert_eq!(done.code, Some(code), "{line}: {}{}", done.out(), done.err());
    for word in words {
        assert!(done.out().contains(word), "{line}: no {word} in:\n{}", done.out());
    }
    let text = usual(&world.lab, &format!("# multus-agent {line}\n{}", done.out()));
    let _turn = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let page = fs::read_to_string(PAGE).expect("read the page");
    let head = format!("<!-- transcript: {name} -->\n```console\n");
    let (before, rest) = page.split_once(&head).unwrap_or_else(|| panic!("the page has no transcript {name}"));
    let (written, after) = rest.split_once("```\n").expect("the end of the transcript");
    if std::env::var_os("MULTUS_REGENERATE").is_some() {
        fs::write(PAGE, format!("{before}{head}{text}```\n{after}")).expect("write the page");
    } else {
        assert_eq!(written, text, "the page's transcript {name} is not what is printed; MULTUS_REGENERATE=1 writes it");
    }
}

/// The lab's folders as a node has them, and nothing that differs from run to run.
fn usual(lab: &Lab, text: &str) -> String {
    let at = |path: &Path| path.display().to_string();
    let folders = [
        (at(&lab.bin_dir), "/opt/cni/bin"),
        (at(&lab.cni_conf_dir), "/etc/cni/net.d"),
        (at(&lab.conf_dir), "/etc/cni/multus/net.d"),
        (at(&lab.ipam_dir), "/var/lib/cni/networks"),
        (at(&lab.socket_dir), "/run/multus"),
    ];
    let text = folders.iter().fold(text.to_owned(), |text, (folder, usual)| text.replace(folder, usual));
    // Identities: every word that begins like one of the lab's.
    let uid = format!("00000000-0000-4000-8000-{:06x}", std::process::id());
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once(&uid) {
        out += before;
        out += "6f1c0d1e-5b7a-4c1e-9a55-2f3b8c4d5e6f";
        rest = after.get(6..).unwrap_or_default();
    }
    (out + rest).lines().map(|line| without_times(line) + "\n").collect()
}

/// How long ago something was, and what led to a refused connection, differs from run to run.
fn without_times(line: &str) -> String {
    let parts = line.split_once("(last contact ").zip(line.split_once("tcp connect error"));
    match parts {
        Some(((before, _), (_, after))) => format!("{before}(last contact 4 s ago): tcp connect error{after}"),
        None => line.to_owned(),
    }
}

#[test]
fn a_missing_plugin_is_named_with_its_folder() {
    needs_programs!();
    let camera = json!({"cniVersion": "1.0.0", "type": "sriov"});
    let world = node("broken-plugin").network("camera", &camera).start();
    let pod = pod(&world, "recorder", "default/camera");
    assert!(world.add(&pod).expect_error(103).contains("\"sriov\""));
    let line = "check --category networks -o short";
    shown(&world, ("missing-plugin", line, 1), &["network default/camera", "\"sriov\"", "install it there"]);
}

#[test]
fn a_wrong_parent_is_named() {
    needs_programs!();
    let mut lan = node("broken-parent");
    let conf = json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "eth9"});
    lan = lan.network("lan", &conf);
    let world = lan.start();
    assert!(world.add(&pod(&world, "printer", "default/lan")).expect_error(7).contains("eth9"));
    let line = "check --category parents -o short";
    shown(&world, ("wrong-parent", line, 1), &["master \"eth9\"", "does not exist", "correct \"master\""]);
}

#[test]
fn a_typing_error_is_shown_beside_what_was_read() {
    needs_programs!();
    let builder = node("broken-typo");
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).start();
    let pod = pod(&world, "home", "default/lna@lan0");
    world.add(&pod).expect_error(101);
    shown(
        &world,
        ("typo", "explain pod shop/home", 1),
        &["(lna)", "correct the", "default/lna as lan0", "did you mean default/lan?"],
    );
}

#[test]
fn isolation_says_whose_network_it_is_and_what_would_allow_it() {
    needs_programs!();
    let builder = node("broken-isolation").configure(|config, _| config["namespaceIsolation"] = true.into());
    builder.lab.network("office", "lan", &builder.lab.macvlan("bridge"), &json!({}));
    let world = builder.start();
    let pod = pod(&world, "till", "office/lan");
    world.add(&pod).expect_error(102);
    shown(&world, ("isolation", "explain pod shop/till", 1), &["target namespace office", "globalNamespaces"]);
}

#[test]
fn an_exhausted_range_is_counted() {
    needs_programs!();
    let builder = node("broken-range");
    let small = json!({
        "cniVersion": "1.0.0", "type": "macvlan", "master": "eth0",
        "ipam": {"type": "host-local", "dataDir": builder.lab.ipam_dir, "ranges": [
            [{"subnet": "192.168.50.0/24", "rangeStart": "192.168.50.10", "rangeEnd": "192.168.50.11"}]
        ]}
    });
    let world = builder.network("lan", &small).start();
    let pods: Vec<Pod> = ["one", "two", "three"].map(|name| pod(&world, name, "default/lan")).into();
    world.add(&pods[0]).expect_ok();
    let line = "check --category ipam -o short";
    let fine = world.agent.cli(&world.lab, &["check", "--category", "ipam", "-o", "short"]);
    assert_eq!(fine.code, Some(0), "one of two: {}", fine.out());
    world.add(&pods[1]).expect_ok();
    assert!(world.add(&pods[2]).error().to_string().contains("no IP addresses available"));
    shown(&world, ("exhausted", line, 1), &["2 of 2 addresses", "192.168.50.10-192.168.50.11", "enlarge the range"]);
    // What a container that is gone has left.
    world.del(&pods[0]).expect_ok();
    fs::write(world.lab.ipam_dir.join("lan/192.168.50.10"), "gone\r\neth0").expect("leave an address behind");
    let left = world.agent.cli(&world.lab, &["check", "--category", "ipam", "-o", "short"]).out();
    assert!(left.contains("1 of them by containers that are not on record"), "{left}");
}

#[test]
fn a_file_that_sorts_first_is_named_with_its_owners_option() {
    needs_programs!();
    let world = node("broken-order").configure(|config, _| config["cniVersion"] = "1.0.0".into()).start();
    let folder = &world.lab.cni_conf_dir;
    let there = wait_for(Duration::from_secs(5), || folder.join("00-multus.conflist").exists().then_some(()));
    assert!(there.is_some(), "the agent writes its conf");
    let line = "check --category cni-install -o short";
    let fine = world.agent.cli(&world.lab, &line.split(' ').collect::<Vec<_>>());
    assert_eq!(fine.code, Some(0), "{}{}", fine.out(), fine.err());
    let cilium = json!({"cniVersion": "0.3.1", "name": "cilium", "plugins": [{"type": "cilium-cni"}]});
    fs::write(folder.join("00-cilium.conflist"), cilium.to_string()).expect("write a foreign conf");
    shown(&world, ("foreign-conf", line, 1), &["00-cilium.conflist (cilium-cni)", "cni.exclusive=false"]);
}

#[test]
fn an_api_server_that_is_away_is_told_with_what_works_meanwhile() {
    needs_programs!();
    let cluster = Cluster::over(node("broken-api"));
    let world = &cluster.world;
    let line = "check --category api-access -o short";
    let run = || world.agent.cli(&world.lab, &line.split(' ').collect::<Vec<_>>());
    assert_eq!(run().code, Some(0), "{}", run().out());
    cluster.api.set_down(true);
    let told = wait_for(Duration::from_secs(15), || run().out().contains("Connection refused").then_some(()));
    assert!(told.is_some(), "{}", run().out());
    let document: Value = serde_json::from_slice(
        &world.agent.cli(&world.lab, &["check", "--category", "api-access", "-o", "json"]).stdout,
    )
    .expect("JSON");
    assert_eq!((&document["success"], &document["mayPass"]), (&json!(false), &json!(true)), "{document:#}");
    shown(world, ("api-away", line, 1), &["the API server does not answer", "networks kept on disk"]);
}

#[test]
fn who_switched_the_relay_off_is_named() {
    needs_programs!();
    let builder = node("broken-relay");
    builder.lab.network("shop", "lan", &builder.lab.macvlan("bridge"), &json!({"multus-ebpf.io/relay": "none"}));
    let world = builder.start();
    let pod = pod(&world, "speaker", "lan");
    world.add(&pod).expect_ok();
    let attached = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]).out();
    let attached: Value = serde_json::from_str(&attached).expect("JSON");
    let of_net1 = attached["items"].as_array().expect("items").iter().find(|item| item["interface"] == "net1");
    assert_eq!(of_net1.map(|item| &item["relay"]), Some(&json!([])), "{attached:#}");
    let words = ["annotation multus-ebpf.io/relay of the network is \"none\"", "remove it"];
    shown(&world, ("relay-off", "explain pod shop/speaker", 0), &words);
    world.del(&pod).expect_ok();
}

/// One check of a document.
fn named(document: &Value, name: &str) -> Value {
    let categories = document["categories"].as_array().expect("categories").iter();
    let mut checks = categories.flat_map(|category| category["checks"].as_array().expect("checks"));
    checks.find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {document:#}")).clone()
}

#[test]
fn the_layout_of_the_host_is_told_and_folders_that_do_not_fit_it() {
    needs_programs!();
    let lab = Lab::new("broken-layout");
    let host = lab.dir.join("host");
    let conf = "/var/lib/rancher/k3s/agent/etc/cni/net.d";
    let runtime = host.join("var/lib/rancher/k3s/agent/etc/containerd");
    fs::create_dir_all(&runtime).expect("make the host's folders");
    let text = format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/opt/k3s\"\n  conf_dir = \"{conf}\"\n"
    );
    fs::write(runtime.join("config.toml"), text).expect("write the runtime's configuration");
    let checked = |folder: &str| {
        let config = json!({"chrootDir": host, "cniConfigDir": host.join(&folder[1..]), "binDir": "/opt/k3s"});
        let file = lab.dir.join("layout.json");
        fs::write(&file, config.to_string()).expect("write the configuration");
        let mut command = lab.node.command(agent::program("multus-agent"));
        command.args(["check", "--pre", "--category", "cni-install", "-o", "json", "--config"]).arg(&file);
        let done = lab::process::run(&mut command, b"", Duration::from_secs(15));
        named(&serde_json::from_slice(&done.stdout).expect("JSON"), "cni-layout")
    };
    let fits = checked(conf);
    let detail = fits["detail"].as_str().unwrap_or_default();
    assert!(
        fits["result"] == "ok" && detail.starts_with("k3s-old; configurations in") && detail.contains(conf),
        "{fits:#}"
    );
    let other = checked("/etc/cni/net.d");
    let cause = other["problems"][0]["cause"].as_str().unwrap_or_default();
    assert!(other["result"] == "warning" && cause.contains("/etc/cni/net.d") && cause.contains(conf), "{other:#}");
}

#[test]
fn addresses_are_counted_by_the_records_where_their_files_cannot_be_seen() {
    needs_programs!();
    let world = World::new("broken-unseen");
    let pod = world.attached("cam", "lan");
    let used = || world.agent.metrics(&world.lab).sum("multus_address_pool_used", &[("network", "default/lan")]);
    let detail = || {
        let done = world.agent.cli(&world.lab, &["check", "--category", "ipam", "-o", "json"]);
        named(&serde_json::from_slice(&done.stdout).expect("JSON"), "ipam-exhausted")["detail"].to_string()
    };
    assert_eq!((used(), detail().contains("not seen")), (2, false), "one address of each family");
    let hidden = world.lab.dir.join("hidden");
    fs::rename(&world.lab.ipam_dir, &hidden).expect("hide host-local's folder");
    assert_eq!((used(), detail().contains("is not seen: mount")), (2, true), "{}", detail());
    fs::rename(&hidden, &world.lab.ipam_dir).expect("put it back");
    world.del(&pod).expect_ok();
    assert_eq!(used(), 0);
}

#[test]
fn an_agent_that_is_away_is_the_first_problem_and_files_tell_the_rest() {
    needs_programs!();
    let mut world = node("broken-agent").start();
    let config = world.lab.dir.join("daemon-config.json").display().to_string();
    world.agent.kill9();
    let args = ["check", "--config", &config, "--category", "agent,cni-install", "-o", "json"];
    let done = world.agent.cli(&world.lab, &args);
    assert_eq!(done.code, Some(3), "{}{}", done.out(), done.err());
    let document: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!((&document["apiVersion"], &document["kind"]), (&json!("multus-ebpf.io/v1"), &json!("Check")));
    let first = &document["categories"][0]["checks"][0];
    assert_eq!((&first["name"], &first["result"]), (&json!("agent-reachable"), &json!("error")), "{document:#}");
    let shim = named(&document, "cni-shim");
    assert_eq!(shim["result"], "ok", "{document:#}");
    let pre = world.agent.cli(&world.lab, &["check", "--pre", "--config", &config, "-o", "short"]);
    assert!(!pre.out().contains("agent cannot be reached"), "{}", pre.out());
    let usage = world.agent.cli(&world.lab, &["check", "--category", "kernal"]);
    assert_eq!(usage.code, Some(2), "{}", usage.err());
}

#[test]
fn a_healthy_node_is_told_so_and_waiting_ends_when_it_is() {
    needs_programs!();
    let builder = node("healthy");
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).start();
    let pod = pod(&world, "cam", "default/lan");
    world.add(&pod).expect_ok();
    let args = ["check", "--wait", "10s", "-o", "json"];
    let done = world.agent.cli(&world.lab, &args);
    let document: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(document["errors"], 0, "{document:#}");
    assert_eq!(done.code, Some(0));
    let checks = document["categories"]
        .as_array()
        .expect("categories")
        .iter()
        .flat_map(|c| c["checks"].as_array().cloned().unwrap_or_default());
    let results: std::collections::BTreeMap<String, String> = checks
        .map(|c| (c["name"].as_str().unwrap_or_default().into(), c["result"].as_str().unwrap_or_default().into()))
        .collect();
    let is_partial = std::env::var("MULTUS_LAB_DATAPATH").is_ok_and(|mode| mode != "full");
    let of_datapath = ["kernel-bpffs", "relay-programs", "datapath-open"];
    for name in [
        "kernel-bpffs",
        "cni-shim",
        "cni-conf",
        "cni-order",
        "primary-network",
        "primary-plugins",
        "networks-plugins",
        "parents-exist",
        "parents-up",
        "parents-carrier",
        "ipam-free",
        "pods-kernel",
        "relay-programs",
        "datapath-open",
        "versions-shim",
    ] {
        let wanted = if is_partial && of_datapath.contains(&name) { "skipped" } else { "ok" };
        assert_eq!(results.get(name).map(String::as_str), Some(wanted), "{name}: {document:#}");
    }
    // What somebody takes away from a pod is missed.
    pod.netns.ip("link del net1");
    let done = world.agent.cli(&world.lab, &["check", "--category", "pod-state", "-o", "short"]);
    assert_eq!(done.code, Some(1), "{}", done.out());
    assert!(done.out().contains("pod shop/cam: interface net1 is on record"), "{}", done.out());
    world.del(&pod).expect_ok();
}
