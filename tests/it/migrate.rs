//! From Multus and back: a node's files and pods as Multus left them, taken over and given back with no interface touched.

mod beside;
mod cluster;
mod folders;
mod hosts;
mod odd;
mod served;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::multus::{self, Attached};
use lab::process::Finished;
use lab::world::Builder;
use lab::{Agent, Home, Lab, Pod, Runtime, World, plugins, process, wait_until};
use multus_agent::names::ContainerId;
use multus_agent::records::Records;
use multus_agent::spool::{Note, Spool};
use serde_json::{Value, json};

use super::install::tree::{Snapshot, assert_same, on, sentences, snapshot, stamps};

/// What Multus's daemon writes for the runtime.
const CONF: &str = r#"{"capabilities":{"portMappings":true},"cniVersion":"0.3.1","name":"multus-cni-network","clusterNetwork":"/host/etc/cni/net.d/10-default.conflist","type":"multus-shim"}"#;
const SHIM: &str = "#!/bin/sh\n# somebody else's CNI plugin\n";

/// A node on which Multus runs: its conf, its plugin, the daemon's configuration.
struct Node {
    lab: Lab,
    /// Multus's configuration, and ours that is made of it.
    files: (PathBuf, PathBuf),
    /// The runtime's folder and that of plugins, as Multus left them.
    before: (Snapshot, Snapshot),
}

impl Node {
    fn new(name: &str) -> Self {
        let builder = Builder::new(name);
        let lan = builder.lab.macvlan("bridge");
        let Builder { lab, mut config, .. } = builder.network("lan", &lan);
        put(&lab.cni_conf_dir.join("00-multus.conf"), CONF, 0o600);
        put(&lab.bin_dir.join("multus-shim"), SHIM, 0o755);
        config["chrootDir"] = "/hostroot".into();
        config["binDir"] = format!("/hostroot{}", lab.bin_dir.display()).into();
        config["socketDir"] = format!("/host{}", lab.socket_dir.display()).into();
        config["perNodeCertificate"] = json!({"enabled": false});
        let folder = lab.dir.join("multus");
        fs::create_dir_all(&folder).expect("make a folder");
        let files = (folder.join("daemon-config.json"), folder.join("multus-ebpf.json"));
        put(&files.0, &config.to_string(), 0o644);
        let before = (snapshot(&lab.cni_conf_dir), snapshot(&lab.bin_dir));
        Self { lab, files, before }
    }

    fn migrate(&self, more: &[&str]) -> Finished {
        migrate(&self.lab, &self.files.0, more)
    }

    /// Multus's daemon ends, and takes its conf along; our agent starts with what was written for it.
    fn swap(self) -> (World, (PathBuf, PathBuf), (Snapshot, Snapshot)) {
        let Self { lab, files, before } = self;
        fs::remove_file(lab.cni_conf_dir.join("00-multus.conf")).expect("take Multus's conf away");
        let stands = fs::read_to_string(lab.cni_conf_dir.join("00-multus.conflist")).expect("ours stands at once");
        let config: Value = serde_json::from_slice(&fs::read(&files.1).expect("our configuration")).expect("JSON");
        let agent = Agent::start_at(Home::Pod, &lab, &config);
        let kept = fs::read_to_string(lab.cni_conf_dir.join("00-multus.conflist")).expect("it goes on standing");
        assert_eq!(stands, kept, "the agent would have written the same");
        let mut runtime = Runtime::new(&lab);
        runtime.program = lab.bin_dir.join("multus-shim");
        (World { agent, runtime, lab }, files, before)
    }
}

fn put(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("write a file");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set a mode");
}

fn migrate(lab: &Lab, file: &Path, more: &[&str]) -> Finished {
    let file = file.display().to_string();
    on(&lab.node, &[&["migrate", "--config", &file], more].concat())
}

fn document(done: &Finished) -> Value {
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.out()))
}

/// Every link of a pod with index, hardware address and addresses, and its routes.
fn picture(pod: &Pod) -> Value {
    let links = pod.netns.ip_json("-details address show");
    let link = |link: &Value| {
        let address = |one: &Value| json!([one["local"], one["prefixlen"]]);
        let addresses: Vec<Value> = link["addr_info"].as_array().into_iter().flatten().map(address).collect();
        json!([link["ifindex"], link["ifname"], link["address"], link["link_index"], link["mtu"], addresses])
    };
    let links: Vec<Value> = links.as_array().into_iter().flatten().map(link).collect();
    json!([links, pod.netns.ip_json("-4 route show"), pod.netns.ip_json("-6 route show")])
}

/// What our programs are on.
fn programs_on(pod: &Pod) -> String {
    let seen = process::tool(pod.netns.command("bpftool").args(["-j", "net", "show"]));
    let seen: Value = serde_json::from_slice(&seen).expect("JSON");
    seen[0]["tc"].to_string()
}

fn networks(lab: &Lab, ifname: &'static str) -> Vec<Attached> {
    let lan = Attached { label: "default/lan".to_owned(), ..Attached::new(lab.macvlan("bridge"), "lan", ifname) };
    vec![Attached::new(lab.bridge(), "lab-default", "eth0"), lan]
}

#[test]
fn a_node_is_taken_over_and_given_back_with_no_interface_touched_and_every_del_clean() {
    needs_programs!();
    let node = Node::new("migrate");
    let (cam, dish) = (node.lab.pod("cam").networks("lan"), node.lab.pod("dish").networks("lan@data"));
    multus::attach(&node.lab, &cam, &networks(&node.lab, "net1"));
    multus::attach(&node.lab, &dish, &networks(&node.lab, "data"));
    let (cams, dishs) = (picture(&cam), picture(&dish));
    let mut left = fs::read(multus::scratch(&node.lab, &dish)).expect("Multus's note");
    left.push(b'\n');
    fs::write(multus::scratch(&node.lab, &dish), &left).expect("as nobody else would write it");

    let untouched = stamps(&node.lab.dir);
    let planned = document(&node.migrate(&["--dry-run", "-o", "json"]));
    assert_eq!(planned["containers"].as_array().map(Vec::len), Some(2), "{planned:#}");
    let of_dish = planned["containers"].as_array().unwrap().iter().find(|one| one["pod"] == "default/dish").unwrap();
    assert_eq!((&of_dish["interfaces"][1]["interface"], &of_dish["by"]), (&json!("data"), &json!("multus")));
    assert_eq!(planned["networks"], json!([{"network": "default/lan"}]));
    assert_same(&untouched, &stamps(&node.lab.dir), "a dry run");
    assert!(!node.files.1.exists());

    document(&node.migrate(&["-o", "json"]));
    let conf = node.lab.cni_conf_dir.join("00-multus.conf");
    assert_eq!(fs::read_to_string(&conf).unwrap(), CONF, "Multus may be at work still");
    let all = snapshot(&node.lab.dir);
    let again = sentences(&document(&node.migrate(&["-o", "json"])));
    assert!(again.contains("multus-ebpf.json\" already") && again.contains("conflist\" is ours already"), "{again}");
    assert_same(&all, &snapshot(&node.lab.dir), "a second run");

    let (world, (theirs, ours), before) = node.swap();
    assert_eq!((picture(&cam), picture(&dish)), (cams, dishs.clone()), "no interface was touched");
    let listed = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]).out();
    assert_eq!(listed.matches(r#""origin": "multus""#).count(), 4, "{listed}");
    assert_eq!(listed.matches(r#""network": "default/lan""#).count(), 2, "as Multus called it: {listed}");
    let tv = world.lab.pod("tv").networks(r#"[{"name":"lan"},{"name":"lan","interface":"dlna"}]"#);
    world.add(&tv).expect_ok();
    let tvs = picture(&tv);
    assert!(programs_on(&tv).contains("pod_") && programs_on(&dish).contains("pod_"), "{}", programs_on(&dish));
    world.check(&cam).expect_ok();
    world.del(&cam).expect_ok();
    assert_eq!(cam.netns.link_names(), [""; 0], "what Multus attached is detached by us");
    assert!(!multus::scratch(&world.lab, &cam).exists());

    let World { mut agent, lab, .. } = world;
    let back = migrate(&lab, &ours, &["--back"]);
    assert_eq!(back.code, Some(0), "{}\n{}", back.out(), back.err());
    assert!(wait_until(Duration::from_secs(5), || !agent.is_running()), "the agent has ended");
    assert_same(&before.0, &snapshot(&lab.cni_conf_dir), "the way back");
    assert_same(&before.1, &snapshot(&lab.bin_dir), "the way back");
    assert!(!ours.exists() && !lab.bpffs.exists() && !lab.cni_dir.join("records").exists());
    assert_eq!((picture(&dish), picture(&tv)), (dishs, tvs), "no interface was touched");
    assert_eq!((programs_on(&dish), programs_on(&tv)), ("[]".to_owned(), "[]".to_owned()));
    assert_eq!(fs::read(multus::scratch(&lab, &dish)).expect("Multus's note"), left, "Multus's own note is as it was");
    let mut wanted = networks(&lab, "net1");
    wanted.push(Attached { ifname: "dlna", ..wanted[1].clone() });
    let wanted: Vec<Value> = wanted.iter().enumerate().map(|(at, one)| multus::opened(one.noted(at))).collect();
    let noted: Vec<Value> = multus::scratch_of(&lab, &tv).into_iter().map(multus::opened).collect();
    assert_eq!(noted, wanted, "what Multus would have written itself");
    let all = snapshot(&lab.dir);
    let again = migrate(&lab, &theirs, &["--back"]);
    assert_eq!(again.code, Some(0), "{}\n{}", again.out(), again.err());
    assert_same(&all, &snapshot(&lab.dir), "a second run");

    for pod in [&dish, &tv] {
        multus::detach(&lab, pod);
        assert_eq!(pod.netns.link_names(), [""; 0], "{}", pod.name);
    }
    assert_eq!(plugins::allocations(&lab.ipam_dir), [""; 0]);
    assert_eq!(fs::read_dir(lab.cni_dir.join("results")).expect("libcni's results").count(), 0);
}

#[test]
fn what_multus_never_knew_and_what_is_gone_is_not_left_to_it() {
    needs_programs!();
    let node = Node::new("migrate-gone");
    document(&node.migrate(&["-o", "json"]));
    let (world, (theirs, ours), _) = node.swap();
    let (live, gone) = (world.attached("live", "lan"), world.attached("gone", "lan"));
    let torn = world.attached("torn", "lan");
    // Half of libcni's entries are lost: a note is made of the record then.
    fs::remove_file(multus::result_file(&world.lab, &live, "lan", "net1")).expect("lose a result");
    let World { mut agent, lab, .. } = world;
    agent.kill9();
    gone.netns.remove();
    let held = plugins::allocations(&lab.ipam_dir).len();
    fs::write(lab.cni_dir.join(format!("records/{}.record", torn.id)), "").expect("tear a record");
    fs::create_dir_all(lab.cni_dir.join("spool")).expect("make a folder");
    fs::write(lab.cni_dir.join("spool/0-broken.note"), "{").expect("leave half a note");
    let state = stamps(&lab.cni_dir);
    document(&migrate(&lab, &theirs, &["--dry-run", "-o", "json"]));
    assert_same(&state, &stamps(&lab.cni_dir), "a dry run over what is torn");
    let dry = migrate(&lab, &ours, &["--back", "--dry-run"]);
    assert_same(&state, &stamps(&lab.cni_dir), "a dry run over what is torn");
    assert!(dry.code == Some(0) && dry.out().contains("default/live is noted"), "{}\n{}", dry.out(), dry.err());
    assert!(!multus::scratch(&lab, &live).exists() && ours.exists());
    let back = migrate(&lab, &ours, &["--back"]);
    // Where a torn record had its programs nobody knows: they go with the pod, and that is told.
    assert_eq!(back.code, Some(1), "{}\n{}", back.out(), back.err());
    assert!(back.out().contains("program pod_ingress"), "{}", back.out());
    assert_eq!(plugins::allocations(&lab.ipam_dir).len() * 3, held * 2, "one of three is gone: {}", back.out());
    assert!(!multus::scratch(&lab, &gone).exists());
    for pod in [&live, &torn] {
        multus::detach(&lab, pod);
        assert_eq!(pod.netns.link_names(), [""; 0], "{}", pod.name);
    }
    assert_eq!(plugins::allocations(&lab.ipam_dir), [""; 0]);
}

#[test]
fn dels_that_are_still_to_be_done_or_under_way_are_not_left_to_multus() {
    needs_programs!();
    let node = Node::new("migrate-dels");
    document(&node.migrate(&["-o", "json"]));
    let (world, (_, ours), _) = node.swap();
    let (late, lost, busy) =
        (world.attached("late", "lan"), world.attached("lost", "lan"), world.attached("busy", "lan"));
    let World { mut agent, lab, .. } = world;
    agent.kill9();
    let records = Records::at(&lab.cni_dir);
    let [late_id, lost_id, busy_id] =
        [&late, &lost, &busy].map(|pod| ContainerId::new(pod.id.as_str()).expect("an id"));
    // The runtime has its answer, and asks no more; of one of them there is no record either.
    for id in [&late_id, &lost_id] {
        Spool::at(&lab.cni_dir).leave(&Note::put_off(id.clone(), "nobody serves".to_owned())).expect("leave a note");
    }
    records.remove(&lost_id).expect("lose a record");
    let held = records.hold(&busy_id).expect("the folder of records").expect("nobody has it");
    let back = migrate(&lab, &ours, &["--back"]);
    assert!(back.code.is_some_and(|code| code < 2), "{}\n{}", back.out(), back.err());
    for pod in [&late, &lost] {
        assert_eq!(pod.netns.link_names(), [""; 0], "{}: {}", pod.name, back.out());
        assert!(!multus::scratch(&lab, pod).exists(), "{}", pod.name);
    }
    assert!(!multus::scratch(&lab, &busy).exists() && ours.exists(), "{}", back.out());
    assert!(records.load(&busy_id).expect("a record").is_some());
    drop(held);
    let again = migrate(&lab, &ours, &["--back"]);
    assert_eq!(again.code, Some(0), "{}\n{}", again.out(), again.err());
    assert!(multus::scratch(&lab, &busy).exists() && !ours.exists(), "{}", again.out());
    multus::detach(&lab, &busy);
    assert_eq!(plugins::allocations(&lab.ipam_dir), [""; 0]);
}

#[test]
fn who_was_to_be_detached_and_lives_is_not_called_gone() {
    needs_programs!();
    let node = Node::new("migrate-lives");
    document(&node.migrate(&["-o", "json"]));
    let (world, (_, ours), _) = node.swap();
    let (late, gone) = (world.attached("late", "lan"), world.attached("gone", "lan"));
    let World { mut agent, lab, .. } = world;
    agent.kill9();
    let id = ContainerId::new(late.id.as_str()).expect("an id");
    Spool::at(&lab.cni_dir).leave(&Note::put_off(id, "nobody serves".to_owned())).expect("leave a note");
    gone.netns.remove();
    let bridge = lab.bin_dir.join("bridge");
    fs::rename(&bridge, lab.dir.join("bridge")).expect("take a plugin away");
    let back = migrate(&lab, &ours, &["--back"]);
    fs::rename(lab.dir.join("bridge"), &bridge).expect("put it back");
    assert_eq!(back.code, Some(1), "{}\n{}", back.out(), back.err());
    let says = |words: &str| back.out().contains(words);
    assert!(says("pod default/late was to be detached") && says("pod default/gone is gone"), "{}", back.out());
    for pod in [&late, &gone] {
        multus::detach(&lab, pod);
    }
    assert_eq!(plugins::allocations(&lab.ipam_dir), [""; 0]);
}

#[test]
fn uninstall_puts_back_what_migrate_changed_too_also_in_two_runs() {
    needs_programs!();
    let mut node = Node::new("migrate-off");
    let daemon = node.lab.dir.join("multus/multus.sock");
    let mut conf: Value = serde_json::from_str(CONF).expect("JSON");
    conf["daemonSocketDir"] = node.lab.dir.join("multus").display().to_string().into();
    put(&node.lab.cni_conf_dir.join("00-multus.conf"), &conf.to_string(), 0o600);
    node.before.0 = snapshot(&node.lab.cni_conf_dir);
    document(&node.migrate(&["-o", "json"]));
    let (world, (theirs, ours), before) = node.swap();
    let live = world.attached("live", "lan");
    // Without it Multus's conf would stay away.
    let _multus = UnixListener::bind(daemon).expect("Multus's daemon runs again");
    let uninstall = || on(&world.lab.node, &["uninstall", "--config", &ours.display().to_string()]);
    let done = uninstall();
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert_same(&before.0, &snapshot(&world.lab.cni_conf_dir), "the first uninstall");
    assert!(ours.exists(), "the second one needs it");
    world.del(&live).expect_ok();
    let done = uninstall();
    assert_eq!(done.code, Some(0), "{}\n{}", done.out(), done.err());
    assert_same(&before.1, &snapshot(&world.lab.bin_dir), "the second uninstall");
    assert!(!ours.exists() && theirs.exists());
    let left = fs::read_dir(&world.lab.cni_dir).expect("the folder was there before");
    assert_eq!(left.count(), 0);
}
