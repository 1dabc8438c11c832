//! The agent as the rendered manifest says: in the sandbox that a container runtime makes of it, with its own configuration.
//!
//! Capabilities, seccomp filter, read-only root, mounts, propagation, memory limit and names are the manifest's, kept by
//! runc; the shim runs outside, as on a host. What stands in for folders of the host, and the API server, is the lab's.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lab::agent::CAPABILITIES;
use lab::apiserver::{ApiServer, NETWORKS};
use lab::bundle::{self, Container, Wanted};
use lab::manifest::Manifest;
use lab::peer::announcement;
use lab::udp::new_tag;
use lab::{
    Agent, Audience, Ear, Family, Home, Lab, Pod, Protocol, Runtime, Voice, World, plugins, process, wait_until,
};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(15);

/// Ends the test, visibly, where no container can be run.
macro_rules! needs_runc {
    () => {
        needs_programs!();
        if let Some(reason) = bundle::missing() {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {reason}\n"));
            return;
        }
    };
}

/// A node on which the manifest was applied, and the API server it speaks to.
struct Site {
    world: World,
    api: ApiServer,
}

impl Site {
    /// The manifest's configuration, and how the API server of this node is reached; no configuration says more.
    fn new(name: &str, without: Option<&'static str>, change: impl FnOnce(&mut Value)) -> Self {
        let lab = Lab::new(name);
        fs::write(lab.cni_conf_dir.join("10-default.conflist"), lab.bridge().to_string()).expect("a default network");
        let api = ApiServer::start().expect("an API server");
        lab.node.enter(|| api.open_here()).expect("its door on the node");
        for (name, mode) in [("lan", "bridge"), ("quiet", "private")] {
            let config = lab.macvlan(mode).to_string();
            let metadata = json!({"name": name, "namespace": "default",
                "annotations": {"multus-ebpf.io/host-access": (name == "quiet").to_string()}});
            api.put(NETWORKS, json!({"metadata": metadata, "spec": {"config": config}}));
        }
        let mut config = Manifest::rendered().config();
        config["kubeconfig"] = bundle::place_account(&lab, &api).into();
        change(&mut config);
        let installed = Container::new(&lab, &Wanted::new("install", &config)).run();
        assert!(installed.success(), "install: {installed:?}");
        let agent = Agent::start_at(Home::Container(without), &lab, &config);
        let mut runtime = Runtime::new(&lab);
        runtime.program = lab.bin_dir.join("multus-shim");
        "1.1.0".clone_into(&mut runtime.version);
        Self { world: World { agent, runtime, lab }, api }
    }

    /// A command of the manifest, run inside as the kubelet does.
    fn exec(&self, words: &[&str]) -> process::Finished {
        let words: Vec<&str> = std::iter::once("/usr/bin/multus-agent").chain(words.iter().copied()).collect();
        self.world.agent.container().exec(&words)
    }

    fn document(&self, words: &[&str]) -> Value {
        let told = self.exec(&[words, &["-o", "json"]].concat());
        serde_json::from_slice(&told.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {told:?}"))
    }

    /// A pod of the API server's, attached.
    fn attached(&self, name: &str, networks: &str) -> Pod {
        let pod = self.world.lab.pod(name).networks(networks);
        self.api.put_pod("default", name, &pod.uid, "lab-node", &json!(pod.annotations));
        self.world.add(&pod).expect_ok();
        pod
    }

    /// What `check` says is wrong under this name.
    fn complaint(&self, check: &str) -> String {
        let document = self.document(&["check"]);
        let list = document["checks"].as_array().unwrap_or_else(|| panic!("{document:#}"));
        let found = list.iter().find(|one| one["name"] == check).unwrap_or_else(|| panic!("no {check}: {document:#}"));
        found.to_string()
    }
}

/// A field of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or_default();
    line.trim().to_owned()
}

#[test]
fn the_sandbox_is_the_manifests() {
    needs_runc!();
    let site = Site::new("sandbox", None, |_| {});
    let pid = site.world.agent.pid();
    let wanted: u64 = CAPABILITIES.iter().map(|(_, number)| 1 << number).sum();
    for set in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status(pid, set), format!("{wanted:016x}"), "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(pid, set), format!("{:016x}", 0), "{set}");
    }
    assert_eq!((status(pid, "NoNewPrivs").as_str(), status(pid, "Seccomp").as_str()), ("1", "2"));
    assert_eq!(status(pid, "NSpid").split_whitespace().last(), Some("1"), "it sees its own processes alone");
    let ready = site.exec(&["status", "--brief"]);
    eprintln!("{}", ready.out());
    eprintln!("{}", site.exec(&["check"]).out());
    eprintln!("{}", fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap());
    eprintln!("{}", site.world.agent.log_text());
    assert_eq!(ready.code, Some(0), "{ready:?}");
    panic!("look");
}
