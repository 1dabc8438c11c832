//! The conf for the container runtime: whose network it is made for (`choice`), what it says, and that nobody takes it
//! away (`kept`).

mod choice;
mod kept;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::agent::Home;
use lab::world::Builder;
use lab::{Agent, Lab, World, agent, http, plugins, wait_until};
use serde_json::{Value, json};

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
const SOON: Duration = Duration::from_secs(4);
const MULTUS: &str = r#"{"cniVersion":"0.3.1","name":"m","type":"multus-shim"}"#;

/// A node whose agent searches the cluster's own network in `conf_dir`, where `10-default.conflist` is one.
fn searching(name: &str) -> Builder {
    Builder::new(name).configure(|config, _| {
        config.as_object_mut().expect("an object").remove("clusterNetwork");
        config["datapath"]["mode"] = "off".into();
    })
}

fn conf_path(lab: &Lab) -> PathBuf {
    lab.cni_conf_dir.join("00-multus.conflist")
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn conf(lab: &Lab) -> Value {
    read(&conf_path(lab)).unwrap_or_else(|| panic!("no valid conf: {:?}", fs::read_to_string(conf_path(lab))))
}

fn place(folder: &Path, name: &str, text: &str) {
    let hidden = folder.join(format!(".{name}.new"));
    fs::write(&hidden, text).expect("write a file");
    fs::rename(hidden, folder.join(name)).expect("place a file");
}

/// A network as a cluster's own plugin leaves it, with these capabilities.
fn network(name: &str, capabilities: &Value) -> String {
    let plugin = json!({"type": "bridge", "capabilities": capabilities});
    json!({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}).to_string()
}

fn status(agent: &Agent, lab: &Lab) -> Value {
    let done = agent.cli(lab, &["status", "-o", "json"]);
    let document: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|e| panic!("status is not JSON ({e}): {}{}", done.out(), done.err()));
    document["runtimeConf"].clone()
}

fn master(agent: &Agent, lab: &Lab) -> String {
    let path = status(agent, lab)["master"].as_str().unwrap_or_default().to_owned();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn expect_master(world: &World, wanted: &str, after: &str) {
    let mut last = String::new();
    let is = wait_until(SOON, || {
        last = master(&world.agent, &world.lab);
        last == wanted
    });
    assert!(is, "after {after} the master is {last:?} and not {wanted:?}");
}

fn comes_back(lab: &Lab, wanted: &[u8], after: &str) {
    let back = wait_until(SOON, || fs::read(conf_path(lab)).is_ok_and(|bytes| bytes == wanted));
    assert!(back, "after {after} the conf is {:?}", fs::read_to_string(conf_path(lab)));
}
