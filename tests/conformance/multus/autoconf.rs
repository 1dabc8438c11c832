//! The file that makes runtimes call us: whom it names as primary network, and that it is always there and whole.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::{wait_for, wait_until};
use serde_json::{Value, json};

use crate::clause::{Clause, clause};
use crate::daemon::Daemon;
use crate::node::{Node, PRIMARY, Plan, fake_list, generated};

pub(super) const CLAUSES: &[Clause] = &[
    clause("multus.conf.written", "a runtime's configuration is generated beside the primary network's", written),
    clause("multus.conf.content", "it has the well-known name, type and settings", content),
    clause("multus.conf.usable", "a runtime that reads it attaches pods through the primary network", usable),
    clause("multus.conf.capabilities", "its capabilities are the union of the primary network's", capabilities),
    clause("multus.conf.shrinks", "a capability the primary network loses is lost here, too", shrinks),
    clause("multus.conf.override-name", "overrideNetworkName gives it the primary network's name", override_name),
    clause("multus.conf.first", "the lexically first candidate is the primary network", first),
    clause("multus.conf.master-named", "multusMasterCNI names the primary network's file", master_named),
    clause("multus.conf.waits", "a daemon that starts before there is a primary network waits for it", waits),
    clause("multus.conf.readiness", "pods come up once the readiness file is there, not before", readiness),
    clause("multus.conf.renamed", "when the primary network's file is renamed, pods come up again", renamed),
    clause("multus.conf.earlier", "a candidate that comes to be first takes over", earlier),
    clause("multus.conf.deleted", "when the generated file is removed, it is written again", deleted),
    clause("multus.conf.moved-away", "when the generated file is renamed away, it is written again", moved_away),
    clause("multus.conf.emptied", "when the generated file is emptied, it is written again", emptied),
    clause("multus.conf.half-written", "a half-written primary network never empties the generated file", half_written),
    clause("multus.conf.nested", "a Multus configuration under another name is no primary network", nested),
    clause("multus.conf.forced", "forceCNIVersion leaves the primary network's file as it is", forced),
    clause("multus.conf.user-file", "a configuration the user wrote is put in place, delegates and all", user_file),
    clause("multus.conf.stays", "the generated file survives the daemon's end", stays),
];

/// Longest wait for the file to be made or made good.
const PATIENCE: Duration = Duration::from_secs(10);

fn wait_generated(node: &Node) -> (PathBuf, Value) {
    wait_for(PATIENCE, || generated(&node.lab)).expect("no 00-multus.conf or .conflist was generated")
}

/// The plugin of a generated file.
fn plugin(conf: &Value) -> &Value {
    if conf["plugins"].is_array() { &conf["plugins"][0] } else { conf }
}

/// Waits until what is generated says so.
fn wait_says(node: &Node, what: &str, says: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    let said = wait_until(PATIENCE, || {
        last = generated(&node.lab).map_or(Value::Null, |(_, conf)| conf);
        !last.is_null() && says(&last)
    });
    assert!(said, "{what}: {last:#}");
}

fn written() {
    let node = Node::new("m-conf");
    let (path, _) = wait_generated(&node);
    let others: Vec<_> = ["00-multus.conf", "00-multus.conflist"]
        .into_iter()
        .filter(|name| node.lab.cni_conf_dir.join(name).exists())
        .collect();
    assert_eq!(others.len(), 1, "{} and another: {others:?}", path.display());
    assert!(node.lab.cni_conf_dir.join(PRIMARY).exists());
}

fn content() {
    let node = Plan::new("m-conf-content").configure(|config, _| config["namespaceIsolation"] = true.into()).start();
    let (_, conf) = wait_generated(&node);
    assert_eq!((&conf["name"], &conf["cniVersion"]), (&json!("multus-cni-network"), &json!("1.0.0")), "{conf:#}");
    let plugin = plugin(&conf);
    assert_eq!(plugin["type"], "multus-shim", "{conf:#}");
    assert_eq!(plugin["daemonSocketDir"], json!(node.lab.socket_dir), "{conf:#}");
}

fn usable() {
    let mut node = Node::new("m-conf-usable");
    let (_, conf) = wait_generated(&node);
    node.use_conf(&conf);
    let pod = node.attached("cam", "lan");
    assert!(pod.netns.addresses("eth0")[0].starts_with("10.77.") && pod.netns.link("net1").is_some());
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

/// A primary network whose two plugins declare these capabilities.
fn capable(plan: &Plan, one: &Value, two: &Value) -> Value {
    let mut list = fake_list(&plan.lab, "lab-default", "1.0.0", &[("one", &json!({})), ("two", &json!({}))]);
    list["plugins"][0]["capabilities"] = one.clone();
    list["plugins"][1]["capabilities"] = two.clone();
    list
}

fn has(conf: &Value, name: &str) -> bool {
    plugin(conf)["capabilities"][name] == true
}

fn capabilities() {
    let plan = Plan::new("m-conf-cap");
    let list = capable(&plan, &json!({"portMappings": true, "mac": false}), &json!({"bandwidth": true}));
    let node = plan.primary(&list).start();
    let (_, conf) = wait_generated(&node);
    assert!(has(&conf, "portMappings") && has(&conf, "bandwidth") && !has(&conf, "mac"), "{conf:#}");
}

fn shrinks() {
    let plan = Plan::new("m-conf-shrinks");
    let (file, both) =
        (plan.primary_file(), capable(&plan, &json!({"portMappings": true}), &json!({"bandwidth": true})));
    let fewer = capable(&plan, &json!({"portMappings": true}), &json!({}));
    let node = plan.primary(&both).start();
    wait_says(&node, "bandwidth is missing", |conf| has(conf, "bandwidth"));
    fs::write(file, fewer.to_string()).expect("change the primary network");
    wait_says(&node, "bandwidth stays", |conf| has(conf, "portMappings") && !has(conf, "bandwidth"));
}

fn override_name() {
    let node = Plan::new("m-conf-name").configure(|config, _| config["overrideNetworkName"] = true.into()).start();
    wait_says(&node, "the name", |conf| conf["name"] == "lab-default");
}

/// Writes a network of the fake `name` as `file` into the folder of the node's networks.
fn put(lab: &lab::Lab, file: &str, name: &str) {
    let list = fake_list(lab, name, "1.0.0", &[(name, &json!({}))]);
    let hidden = lab.dir.join(file);
    fs::write(&hidden, list.to_string()).expect("write a network");
    fs::rename(hidden, lab.cni_conf_dir.join(file)).expect("place a network");
}

/// True when a pod that is added now gets its default network from the fake `name`.
fn attaches_through(node: &mut Node, name: &str) -> bool {
    let Some((_, conf)) = generated(&node.lab) else { return false };
    node.use_conf(&conf);
    let (before, pod) = (node.verbs(name).len(), node.pod("probe", ""));
    let answer = node.add(&pod);
    let through = answer.ok() && node.verbs(name).len() > before;
    node.del(&pod);
    through
}

fn first() {
    let plan = Plan::new("m-conf-first");
    put(&plan.lab, "05-early.conflist", "early");
    put(&plan.lab, "20-late.conflist", "late");
    fs::write(plan.lab.cni_conf_dir.join("01-note.txt"), "no network").expect("write a note");
    let mut node = plan.start();
    wait_generated(&node);
    assert!(attaches_through(&mut node, "early"));
}

fn master_named() {
    let plan = Plan::new("m-conf-master").configure(|config, _| config["multusMasterCNI"] = "20-late.conflist".into());
    put(&plan.lab, "20-late.conflist", "late");
    let mut node = plan.start();
    wait_generated(&node);
    assert!(attaches_through(&mut node, "late"));
}

fn waits() {
    let plan = Plan::new("m-conf-waits");
    let text = fs::read(plan.primary_file()).expect("read the primary network");
    fs::remove_file(plan.primary_file()).expect("remove the primary network");
    let daemon = Daemon::spawn(&plan.lab, &plan.config);
    let mut node = plan.into_node(daemon);
    std::thread::sleep(Duration::from_millis(1500));
    assert!(node.daemon.is_running(), "the daemon did not wait");
    fs::write(node.lab.cni_conf_dir.join(PRIMARY), text).expect("write the primary network");
    node.daemon.wait_healthy();
    let (_, conf) = wait_generated(&node);
    node.use_conf(&conf);
    let pod = node.attached("cam", "lan");
    assert!(pod.netns.addresses("eth0")[0].starts_with("10.77."));
}

fn readiness() {
    let plan = Plan::new("m-conf-ready");
    let file = plan.lab.dir.join("ready");
    let plan = plan.configure(|config, _| config["readinessindicatorfile"] = json!(file));
    let daemon = Daemon::spawn(&plan.lab, &plan.config);
    let mut node = plan.into_node(daemon);
    let pod = node.pod("cam", "lan");
    std::thread::sleep(Duration::from_millis(500));
    let add = node.call("ADD", Some(&pod)).start(&node.lab.node);
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(pod.netns.link_names(), [""; 0], "the default network is not ready yet");
    fs::write(&file, "").expect("write the readiness file");
    let done = add.wait(Duration::from_secs(20));
    assert!(done.success(), "{}", done.out());
    node.daemon.wait_healthy();
    assert!(pod.netns.link("net1").is_some());
}

fn renamed() {
    let mut node = Node::new("m-conf-renamed");
    wait_generated(&node);
    put(&node.lab, "20-other.conflist", "other");
    fs::remove_file(node.lab.cni_conf_dir.join(PRIMARY)).expect("remove the old primary network");
    let again = wait_until(PATIENCE, || attaches_through(&mut node, "other"));
    assert!(again, "no pod comes up after the primary network's file got another name");
}

fn earlier() {
    let mut node = Node::new("m-conf-earlier");
    wait_generated(&node);
    put(&node.lab, "05-early.conflist", "early");
    assert!(wait_until(PATIENCE, || attaches_through(&mut node, "early")), "the earlier candidate is ignored");
}

fn deleted() {
    spoilt("deleted", |path| fs::remove_file(path).expect("remove the generated file"));
}

fn moved_away() {
    spoilt("moved", |path| fs::rename(path, path.with_extension("cilium_bak")).expect("rename the generated file"));
}

fn emptied() {
    spoilt("emptied", |path| fs::write(path, "").expect("empty the generated file"));
}

fn spoilt(name: &str, spoil: fn(&std::path::Path)) {
    let node = Node::new(&format!("m-conf-{name}"));
    let (path, before) = wait_generated(&node);
    spoil(&path);
    let back = wait_until(PATIENCE, || generated(&node.lab).is_some_and(|(again, now)| again == path && now == before));
    assert!(back, "{} was not made good within {PATIENCE:?}", path.display());
}

fn half_written() {
    let plan = Plan::new("m-conf-half");
    let (file, whole) = (plan.primary_file(), plan.lab.bridge().to_string());
    let node = plan.start();
    let (path, _) = wait_generated(&node);
    for length in [0, 1, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).expect("write half a network");
        std::thread::sleep(Duration::from_millis(300));
        let text = fs::read_to_string(&path).unwrap_or_default();
        assert!(serde_json::from_str::<Value>(&text).is_ok_and(|conf| conf["name"].is_string()), "{length}: {text:?}");
    }
    fs::write(&file, whole).expect("write a whole network");
    let pod = node.attached("cam", "lan");
    assert!(pod.netns.link("net1").is_some());
}

fn nested() {
    let plan = Plan::new("m-conf-nested");
    let list = json!({"cniVersion": "1.0.0", "name": "node-network", "plugins": [
        {"type": "multus-shim", "daemonSocketDir": plan.lab.socket_dir}]});
    fs::write(plan.lab.cni_conf_dir.join("05-multus.conflist"), list.to_string())
        .expect("write a Multus configuration");
    let single = json!({"cniVersion": "1.0.0", "name": "m", "type": "multus", "delegates": []});
    fs::write(plan.lab.cni_conf_dir.join("02-nodes.conf"), single.to_string()).expect("write another");
    let mut node = plan.start();
    let (_, conf) = wait_generated(&node);
    node.use_conf(&conf);
    node.runtime.limit = Duration::from_secs(20);
    let pod = node.attached("cam", "lan");
    assert!(pod.netns.addresses("eth0")[0].starts_with("10.77.") && pod.netns.link("net1").is_some());
}

fn forced() {
    let plan = Plan::new("m-conf-forced").configure(|config, _| {
        config["forceCNIVersion"] = true.into();
        config["cniVersion"] = "0.4.0".into();
    });
    let file = plan.primary_file();
    let before = fs::read(&file).expect("read the primary network");
    let node = plan.start();
    wait_says(&node, "the version", |conf| conf["cniVersion"] == "0.4.0");
    assert!(fs::read(&file).ok() == Some(before), "the primary network's file was changed");
}

fn user_file() {
    let plan = Plan::new("m-conf-user");
    let list = fake_list(&plan.lab, "embedded", "1.0.0", &[("one", &json!({}))]);
    let conf = json!({"cniVersion": "1.0.0", "name": "node-net", "type": "multus-shim", "binDir": plan.lab.bin_dir,
        "cniDir": plan.lab.cni_dir, "daemonSocketDir": plan.lab.socket_dir, "delegates": [list]});
    let file = plan.lab.dir.join("00-own.conf");
    fs::write(&file, conf.to_string()).expect("write the user's configuration");
    let mut node = plan.configure(|config, _| config["multusConfigFile"] = json!(file)).start();
    let placed = node.lab.cni_conf_dir.join("00-own.conf");
    let read = || fs::read(&placed).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let found = wait_for(PATIENCE, read).expect("the user's configuration is not put in place");
    assert_eq!(found, conf);
    node.use_conf(&found);
    let pod = node.attached("cam", "lan");
    assert_eq!(node.verbs("one"), ["ADD"]);
    assert!(pod.netns.link("net1").is_some());
    node.del(&pod).expect_ok();
    node.assert_gone(&pod, "DEL");
}

fn stays() {
    let mut node = Node::new("m-conf-stays");
    let (path, before) = wait_generated(&node);
    node.daemon.ask_to_end();
    assert!(node.daemon.ended_within(Duration::from_secs(20)).is_some(), "SIGTERM is ignored");
    let after = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    assert_eq!(after, Some(before), "{}", path.display());
    node.daemon.start_again(&node.lab);
    node.assert_works("a restart");
}
