//! The agent as the rendered manifest says: in the sandbox that a container runtime makes of it, with its own configuration.
//!
//! Capabilities, seccomp filter, read-only root, mounts, propagation, memory limit and names are the manifest's, kept by
//! runc; the shim runs outside, as on a host. What stands in for folders of the host, and the API server, is the lab's.

mod capabilities;
mod confined;
mod work;

use std::fs;
use std::time::Duration;

use lab::apiserver::{ApiServer, NETWORKS};
use lab::bundle::{self, Container, Wanted};
use lab::manifest::Manifest;
use lab::{Agent, Home, Lab, Pod, Runtime, World, process};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(15);

/// Ends the test, visibly, where no container can be run.
macro_rules! needs_runc {
    () => {
        needs_programs!();
        if let Some(reason) = lab::bundle::missing() {
            let name = std::thread::current().name().unwrap_or("a test").to_owned();
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("skipped: {name}: {reason}\n"));
            return;
        }
    };
}
pub(crate) use needs_runc;

/// A node on which the manifest was applied, and the API server it speaks to.
struct Site {
    world: World,
    api: ApiServer,
}

impl Site {
    /// With the manifest's configuration and how the API server of this node is reached.
    fn new(name: &str) -> Self {
        Self::with(name, None, |_| {})
    }

    /// The same without one capability of the agent, or with more said in the configuration.
    fn with(name: &str, without: Option<&'static str>, change: impl FnOnce(&mut Value)) -> Self {
        let lab = Lab::new(name);
        fs::write(lab.cni_conf_dir.join("10-default.conflist"), lab.bridge().to_string()).expect("a default network");
        let api = ApiServer::start().expect("an API server");
        lab.node.enter(|| api.open_here()).expect("its door on the node");
        for (name, mode) in [("lan", "bridge"), ("quiet", "private")] {
            let annotations = json!({"multus-ebpf.io/host-access": (name == "quiet").to_string()});
            let metadata = json!({"name": name, "namespace": "default", "annotations": annotations});
            api.put(NETWORKS, json!({"metadata": metadata, "spec": {"config": lab.macvlan(mode).to_string()}}));
        }
        let mut config = Manifest::rendered().config();
        config["kubeconfig"] = bundle::place_account(&lab, &api).into();
        change(&mut config);
        // The pod's first container, in its own sandbox: it has one capability.
        let installed = Container::new(&lab, &Wanted::new("install", &config)).run();
        assert!(installed.success(), "install: {}{}", installed.out(), installed.err());
        let agent = Agent::start_at(Home::Container(without), &lab, &config);
        let mut runtime = Runtime::new(&lab);
        runtime.program = lab.bin_dir.join("multus-shim");
        "1.1.0".clone_into(&mut runtime.version);
        Self { world: World { agent, runtime, lab }, api }
    }

    /// A command that the manifest has the kubelet run inside, under this key of the agent's container.
    fn kubelet(&self, pointer: &str) -> process::Finished {
        let manifest = Manifest::rendered();
        let words = Manifest::words(manifest.container("agent").pointer(pointer).expect("a command"));
        assert!(!words.is_empty(), "no command at {pointer}");
        self.world.agent.container().exec(&words)
    }

    /// What the operator's program says inside, as a document.
    fn document(&self, words: &[&str]) -> Value {
        let all: Vec<&str> = ["/usr/bin/multus-agent"].iter().chain(words).chain(&["-o", "json"]).copied().collect();
        let told = self.world.agent.container().exec(&all);
        serde_json::from_slice(&told.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {}", told.err()))
    }

    /// A pod that the API server knows, too, attached.
    fn attached(&self, pod: Pod) -> Pod {
        self.api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
        self.world.add(&pod).expect_ok();
        pod
    }
}
