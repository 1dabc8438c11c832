//! The same beside the Multus that upstream ships, by its own programs: what they attached, wrote and remember is taken
//! over and given back.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::apiserver::ApiServer;
use lab::original::{self, Mode, Original};
use lab::traffic::Flow;
use lab::{Agent, Home, Lab, Pod, Runtime, plugins, wait_until};
use serde_json::{Value, json};

use super::{document, migrate, picture, programs_on};
use crate::install::tree::{Snapshot, assert_same, snapshot, stamps};

/// Most datagrams that a pod loses on their way out, there and back together. Whenever a qdisc comes or goes, and be it
/// clsact, the kernel takes the link's queue away until no processor uses it any more, and drops what is sent meanwhile:
/// some milliseconds, and more where it has a lot to do.
const MOST_LOST: u64 = 100;

/// A node with upstream's Multus in one of its modes.
struct Node {
    original: Original,
    runtime: Runtime,
    api: ApiServer,
    /// What its DEL leaves of a pod that it attached itself, with nobody of us near; v4.3.0 forgets how addresses of a
    /// cluster network that is a list are to be given back.
    leaves: Vec<String>,
    lab: Lab,
}

/// macvlan as `lab` has it, with addresses of its own and an older version.
fn older(lab: &Lab, version: &str, from: u8) -> Value {
    let mut network = lab.macvlan("bridge");
    network["cniVersion"] = version.into();
    let range = json!({"subnet": "192.168.50.0/24", "rangeStart": format!("192.168.50.{from}"),
        "rangeEnd": format!("192.168.50.{}", from + 9)});
    network["ipam"]["ranges"] = json!([[range]]);
    network
}

impl Node {
    /// `None`, visibly, where upstream's programs are not there.
    fn new(name: &str, mode: Mode) -> Option<Self> {
        let skip = |why: &str| {
            let text = format!("skipped: beside the Multus that upstream ships, {mode:?}: {why}\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        };
        if let Some(why) = mode.missing() {
            skip(&why);
            return None;
        }
        let lab = Lab::new(name);
        let api = lab.node.enter(ApiServer::start).expect("start the API-server double");
        let mut chain = json!({"cniVersion": "1.0.0", "name": "chain", "plugins": [older(&lab, "1.0.0", 120)]});
        chain["plugins"][0]["capabilities"] = json!({"mac": true});
        chain["plugins"].as_array_mut().expect("a list").push(json!({"type": "tuning", "mtu": 1400}));
        let networks = [
            ("lan", lab.macvlan("bridge")),
            ("v031", older(&lab, "0.3.1", 100)),
            ("v040", older(&lab, "0.4.0", 110)),
            ("chain", chain),
        ];
        for (network, config) in networks {
            api.put_network("default", network, &config.to_string());
        }
        let kubeconfig = api.write_kubeconfig(&lab.dir).expect("write a kubeconfig");
        let Some(certificate) = original::certificate(&lab.dir.join("certificate"), &kubeconfig) else {
            skip("there is no openssl");
            return None;
        };
        let settings = settings(&lab, mode, &kubeconfig, &certificate);
        let mut original = Original::install(mode, &lab, &settings, &lab.bridge());
        original.start(&lab);
        let mut runtime = Runtime::new(&lab);
        original::follow(&mut runtime, &lab);
        let mut node = Self { original, runtime, api, leaves: Vec::new(), lab };
        let first = node.attached("first", "lan,v031,v040,chain");
        node.runtime.del(&node.lab, &first).expect_ok();
        node.leaves = node.clear(&first);
        if !node.leaves.is_empty() {
            eprintln!("{name}: upstream's Multus leaves of its own pods: {}", node.leaves.join(", "));
        }
        Some(node)
    }

    /// A pod that the API server knows, attached.
    fn attached(&self, name: &str, networks: &str) -> Pod {
        let pod = self.lab.pod(name).networks(networks);
        self.api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
        self.runtime.add(&self.lab, &pod).expect_ok();
        pod
    }

    /// Detached, and nothing of it is left: no interface, no address, no file.
    fn detach(&self, pod: &Pod, by: &str) {
        assert_ne!(self.traces(pod), [""; 0], "{}: there was nothing to be detached by {by}", pod.name);
        self.runtime.del(&self.lab, pod).expect_ok();
        assert_eq!(self.traces(pod), [""; 0], "{} is detached by {by}", pod.name);
        assert!(!pod.netns.path().exists() || pod.netns.link_names().is_empty(), "{} by {by}", pod.name);
    }

    /// The same by Multus of what it attached: no more is left than it leaves without us.
    fn detach_its_own(&self, pod: &Pod) {
        self.runtime.del(&self.lab, pod).expect_ok();
        let more: Vec<String> = self.clear(pod).into_iter().filter(|left| !self.leaves.contains(left)).collect();
        assert_eq!(more, [""; 0], "{} is detached by Multus", pod.name);
        assert_eq!(pod.netns.link_names(), [""; 0], "{} is detached by Multus", pod.name);
    }

    /// Removes what is left of `pod`, and says what kind of files it was.
    fn clear(&self, pod: &Pod) -> Vec<String> {
        let mut kinds = Vec::new();
        for file in self.traces(pod) {
            fs::remove_file(&file).expect("remove what is left");
            let shown = file.replace(&pod.id, "ID").replace(&format!("{}/", self.lab.dir.display()), "");
            let is_address = shown.starts_with("ipam/");
            kinds.push(if is_address { shown.rsplit_once('/').expect("a folder").0.to_owned() } else { shown });
        }
        kinds
    }

    /// host-local's addresses and the files of Multus, libcni and ours that are about `pod`.
    fn traces(&self, pod: &Pod) -> Vec<String> {
        let is_its = |text: String| text.contains(&pod.id);
        let addresses = lab::state::files(&self.lab.ipam_dir).into_iter();
        let addresses = addresses.filter(|file| fs::read_to_string(file).is_ok_and(is_its));
        let files = lab::state::files(&self.lab.cni_dir).into_iter().filter(|file| is_its(file.display().to_string()));
        addresses.chain(files).map(|file| file.display().to_string()).collect()
    }

    /// With the runtime's folder by name: thin mode's conf says nothing of it, and the usual one is this machine's.
    fn migrate(&self, file: &Path, more: &[&str]) -> lab::Finished {
        let folder = self.lab.cni_conf_dir.display().to_string();
        migrate(&self.lab, file, &[&["--cni-conf-dir", &folder], more].concat())
    }
}

/// What both of them are told: Multus reads what it knows.
fn settings(lab: &Lab, mode: Mode, kubeconfig: &Path, certificate: &Value) -> Value {
    let mut settings = json!({
        "cniVersion": "0.3.1", "logLevel": "verbose", "logToStderr": true, "kubeconfig": kubeconfig,
        "cniDir": lab.cni_dir, "binDir": lab.bin_dir, "confDir": lab.conf_dir, "nodeName": "lab-node",
        "requestTimeout": "20s", "datapath": {"bpffs": lab.bpffs}
    });
    if mode == Mode::Thin {
        settings["cniVersion"] = "1.0.0".into();
        return settings;
    }
    for (key, value) in [
        ("socketDir", json!(lab.socket_dir)),
        ("daemonSocketDir", json!(lab.socket_dir)),
        ("cniConfigDir", json!(lab.cni_conf_dir)),
        ("multusAutoconfigDir", json!(lab.cni_conf_dir)),
        ("multusConfigFile", json!("auto")),
        ("perNodeCertificate", certificate.clone()),
    ] {
        settings[key] = value;
    }
    settings
}

/// Everything of the node but what its daemon says meanwhile.
fn at_rest(lab: &Lab) -> Snapshot {
    let mut seen = stamps(&lab.dir);
    seen.retain(|path, _| !path.ends_with("daemon.log"));
    seen
}

/// Every file of others with its content: Multus's, libcni's and the runtime's.
fn left_by_multus(lab: &Lab) -> Snapshot {
    let mut seen = snapshot(&lab.cni_dir);
    seen.retain(|path, _| {
        !["install", "records", "networks", "spool", "traces"].iter().any(|own| path.starts_with(own))
    });
    seen
}

fn address(pod: &Pod, ifname: &str) -> IpAddr {
    let all = pod.netns.addresses(ifname);
    let v4 = all.iter().find(|address| address.contains('.')).expect("an IPv4 address");
    v4.split('/').next().expect("an address").parse().expect("an address")
}

/// There and back, with pods of each side in every condition.
fn there_and_back(name: &str, mode: Mode) {
    let Some(mut node) = Node::new(name, mode) else { return };
    let wishes = r#"[{"name":"lan","interface":"data"},{"name":"v031"},{"name":"chain","mac":"02:00:00:00:50:77"}]"#;
    let (live, cam) = (node.attached("live", "lan"), node.attached("cam", "lan,v031,v040,chain"));
    let (dish, gone, lost) =
        (node.attached("dish", wishes), node.attached("gone", "lan,v040"), node.attached("lost", "chain"));
    let flows = [
        Flow::start(&node.lab.lan().netns, &live.netns, address(&live, "net1")),
        Flow::start(&node.lab.node, &live.netns, address(&live, "eth0")),
        Flow::start(&live.netns, &node.lab.lan().netns, "192.168.50.254".parse().expect("an address")),
    ];
    let before = [&live, &cam, &dish].map(picture);
    for pod in [&gone, &lost] {
        pod.netns.remove();
    }
    let (theirs, confs) = (left_by_multus(&node.lab), snapshot(&node.lab.cni_conf_dir));
    let plugin = node.lab.bin_dir.join(mode.plugin());
    let program = fs::read(&plugin).expect("its plugin");

    let untouched = at_rest(&node.lab);
    let file = node.original.file.clone();
    let planned = document(&node.migrate(&file, &["--dry-run", "-o", "json"]));
    assert_same(&untouched, &at_rest(&node.lab), "a dry run");
    let containers = planned["containers"].as_array().expect("containers");
    let alive: Vec<&Value> = containers.iter().filter(|one| one["alive"] == true).collect();
    assert_eq!((containers.len(), alive.len()), (5, 3), "{planned:#}");
    let interfaces = |pod: &str| {
        let one = containers.iter().find(|one| one["pod"] == format!("default/{pod}")).expect("a pod");
        let named = one["interfaces"].as_array().into_iter().flatten();
        named.map(|one| format!("{} {}", one["interface"], one["network"]).replace('"', "")).collect::<Vec<_>>()
    };
    assert_eq!(
        interfaces("cam"),
        ["eth0 lab-default", "net1 default/lan", "net2 default/v031", "net3 default/v040", "net4 default/chain"]
    );
    assert_eq!(interfaces("dish"), ["eth0 lab-default", "data default/lan", "net2 default/v031", "net3 default/chain"]);

    // There: with Multus still at work, and then without it.
    document(&node.migrate(&file, &["-o", "json"]));
    assert_eq!(left_by_multus(&node.lab), theirs, "what Multus remembers is its own");
    let written = match mode {
        Mode::Thick => file.with_file_name("multus-ebpf.json"),
        Mode::Thin => node.lab.cni_conf_dir.join("multus.d/multus-ebpf.json"),
    };
    let other = node.attached("other", "lan");
    node.detach_its_own(&other);
    node.original.end();
    let mut config: Value = serde_json::from_slice(&fs::read(&written).expect("our configuration")).expect("JSON");
    if mode == Mode::Thin {
        // Thin mode names no socket, and the usual one is this machine's: the operator names another.
        config["socketDir"] = json!(node.lab.socket_dir);
        config["daemonSocketDir"] = json!(node.lab.socket_dir);
        fs::write(&written, config.to_string()).expect("change our configuration");
    }
    let mut agent = Agent::start_at(Home::Pod, &node.lab, &config);
    let conf = node.lab.cni_conf_dir.join("00-multus.conflist");
    let is_ours = || fs::read_to_string(&conf).is_ok_and(|text| text.contains("multus-shim"));
    assert!(wait_until(Duration::from_secs(5), is_ours), "our conf stands");
    original::follow(&mut node.runtime, &node.lab);
    assert_eq!([&live, &cam, &dish].map(picture), before, "no interface is touched by the way there");
    let listed = agent.cli(&node.lab, &["get", "attachments", "-o", "json"]).out();
    assert_eq!(listed.matches(r#""origin": "multus""#).count(), 2 + 5 + 4 + 3 + 2, "{listed}");
    assert!(wait_until(Duration::from_secs(5), || programs_on(&live).contains("pod_")), "{}", programs_on(&live));
    node.detach(&cam, "us");
    node.detach(&gone, "us, long after its namespace went");
    let own = node.attached("own", "lan");
    node.detach(&own, "us");
    let tv = node.attached(
        "tv",
        r#"[{"name":"lan"},{"name":"v031","interface":"old"},{"name":"chain","mac":"02:00:00:00:50:78"}]"#,
    );
    let tvs = picture(&tv);

    // Back: Multus starts on what it finds.
    let back = node.migrate(&written, &["--back"]);
    let wanted = if mode == Mode::Thin { 1 } else { 0 };
    assert_eq!(back.code, Some(wanted), "{}\n{}", back.out(), back.err());
    assert!(wait_until(Duration::from_secs(10), || !agent.is_running()), "the agent has ended");
    if mode == Mode::Thin {
        assert!(back.out().contains("is left as it is"), "what the operator changed is: {}", back.out());
        fs::remove_dir_all(written.parent().expect("a folder")).expect("remove our configuration");
    }
    assert_eq!(fs::read(&plugin).expect("its plugin"), program, "Multus's own plugin is there again");
    assert_same(&confs, &snapshot(&node.lab.cni_conf_dir), "the way back");
    node.original.start(&node.lab);
    original::follow(&mut node.runtime, &node.lab);
    assert_eq!([&live, &dish].map(picture), [&before[0], &before[2]].map(Value::clone), "no interface is touched");
    assert_eq!((picture(&tv), programs_on(&tv)), (tvs, "[]".to_owned()));
    assert_eq!(node.traces(&lost), [""; 0], "nobody will ask for what is gone: {}", back.out());
    let fresh = node.attached("fresh", "lan,chain");
    node.detach(&tv, "Multus, which did not attach it");
    for pod in [&dish, &fresh] {
        node.detach_its_own(pod);
    }
    let ways = [("LAN to pod", 0), ("node to pod", 0), ("pod to LAN", MOST_LOST)];
    for (flow, (way, most)) in flows.into_iter().zip(ways) {
        let (sent, arrived, twice) = flow.end();
        eprintln!("{name}: {way}: {arrived} of {sent} datagrams arrived, {twice} twice");
        assert!(sent - arrived <= most && twice == 0, "{way}: {arrived} of {sent} arrived, {twice} twice");
        assert!(sent > 200, "{way}: only {sent} were sent");
    }
    node.detach_its_own(&live);
    assert_eq!(plugins::allocations(&node.lab.ipam_dir), [""; 0]);
    let left: Vec<PathBuf> =
        left_by_multus(&node.lab).into_keys().filter(|path| path != &PathBuf::from("results")).collect();
    assert_eq!(left, [PathBuf::new(); 0], "libcni's and Multus's files");
}

#[test]
fn a_node_goes_over_from_the_thick_multus_of_upstream_and_back() {
    needs_programs!();
    there_and_back("beside-thick", Mode::Thick);
}

#[test]
fn a_node_goes_over_from_the_thin_multus_of_upstream_and_back() {
    needs_programs!();
    there_and_back("beside-thin", Mode::Thin);
}
