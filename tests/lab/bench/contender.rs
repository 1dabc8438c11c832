//! Who is measured: the delegates run directly, our agent in two modes, or another daemon of the same kind.
//!
//! Each has a lab of its own with the same networks, so that none disturbs another's kernel state.

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::figures::Figures;
use crate::apiserver::ApiServer;
use crate::direct::Direct;
use crate::world::Builder;
use crate::{Agent, Lab, Pod, Runtime, agent, wait_until};

/// Another daemon and its shim.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The daemon's program.
    pub daemon: PathBuf,
    /// The CNI plugin's program.
    pub shim: PathBuf,
    /// The daemon's arguments, `{config}` for its configuration file.
    pub args: String,
}

/// One contender.
pub struct Contender {
    /// What it is called in the tables.
    pub name: String,
    way: Way,
    // Before the lab, whose namespaces it may outlive in no case.
    resident: Option<Pod>,
    lab: Lab,
    pods: usize,
}

enum Way {
    Direct,
    Ours { agent: Agent, runtime: Runtime },
    Peer { daemon: Child, runtime: Runtime, api: ApiServer },
}

/// What a burst showed.
#[derive(Debug, Clone, Default)]
pub struct Burst {
    /// From the first start to the last end.
    pub add_total: Duration,
    /// Each ADD.
    pub adds: Figures,
    /// From the first start to the last end.
    pub del_total: Duration,
    /// The daemon's memory before.
    pub before_kib: u64,
    /// Its peak.
    pub peak_kib: u64,
}

/// A macvlan network with one IPv4 range, as the peers' own measurements used.
fn network(lab: &Lab) -> Value {
    let mut conf = lab.macvlan("bridge");
    conf["ipam"]["ranges"] =
        json!([[{"subnet": "192.168.48.0/21", "rangeStart": "192.168.52.1", "rangeEnd": "192.168.55.200"}]]);
    conf
}

impl Contender {
    /// The delegates, one after the other.
    pub fn direct() -> Self {
        Self { name: "direct".into(), way: Way::Direct, resident: None, lab: Lab::new("direct"), pods: 0 }
    }

    /// Our shim and agent with the datapath in `mode`.
    pub fn ours(mode: &str) -> Self {
        let builder = Builder::new("ours");
        let conf = network(&builder.lab);
        let builder = builder.network("lan", &conf).configure(|config, _| {
            config["datapath"]["mode"] = mode.into();
            config["logLevel"] = "error".into();
        });
        let world = builder.start();
        Self {
            name: format!("ours, datapath {mode}"),
            way: Way::Ours { agent: world.agent, runtime: world.runtime },
            resident: None,
            lab: world.lab,
            pods: 0,
        }
    }

    /// Another daemon with its shim, over an API-server double.
    pub fn peer(peer: &Peer) -> Self {
        let lab = Lab::new("peer");
        let api = lab.node.enter(ApiServer::start).expect("start the API-server double");
        api.put_network("default", "lan", &network(&lab).to_string());
        let kubeconfig = api.write_kubeconfig(&lab.dir).expect("write a kubeconfig");
        let mut config = agent::config(&lab);
        config["kubeconfig"] = json!(kubeconfig);
        config["logLevel"] = "error".into();
        if let Some(config) = config.as_object_mut() {
            for ours in ["objects", "metricsAddress", "requestTimeout", "nodeName"] {
                config.remove(ours);
            }
        }
        let file = lab.dir.join("daemon-config.json");
        std::fs::write(&file, config.to_string()).expect("write the peer's configuration");
        let args: Vec<_> =
            peer.args.split_whitespace().map(|arg| arg.replace("{config}", &file.to_string_lossy())).collect();
        let log = std::fs::File::create(lab.dir.join("peer.log")).expect("create the peer's log");
        let mut command = lab.node.command(&peer.daemon);
        command.args(args).env("MULTUS_NODE_NAME", "lab-node").stdin(Stdio::null());
        let daemon =
            command.stdout(log.try_clone().expect("a second handle")).stderr(log).spawn().expect("start the peer");
        let socket = lab.socket_dir.join("multus.sock");
        let up = wait_until(Duration::from_mins(1), || std::os::unix::net::UnixStream::connect(&socket).is_ok());
        let said = std::fs::read_to_string(lab.dir.join("peer.log")).unwrap_or_default();
        assert!(up, "the peer's socket did not appear:\n{said}");
        let mut runtime = Runtime::new(&lab);
        runtime.program.clone_from(&peer.shim);
        runtime.gives_annotations = false;
        runtime.limit = Duration::from_secs(90);
        runtime.plugin["clusterNetwork"] = config["clusterNetwork"].clone();
        runtime.plugin["kubeconfig"] = json!(kubeconfig);
        let name = peer.daemon.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { name, way: Way::Peer { daemon, runtime, api }, resident: None, lab, pods: 0 }
    }

    /// A pod that stays, as on any node in use: what only the first pod of a parent costs is measured by nobody else.
    /// Says how long its ADD took.
    pub fn settle(&mut self) -> Duration {
        let pod = self.new_pod();
        let (took, _) = self.add(&pod);
        self.resident = Some(pod);
        took
    }

    fn new_pod(&mut self) -> Pod {
        self.pods += 1;
        let pod = self.lab.pod(&format!("pod{}", self.pods)).networks("lan");
        if let Way::Peer { api, .. } = &self.way {
            api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
            // Its watch sees the pod, as it would have by the time a kubelet asks the runtime.
            std::thread::sleep(Duration::from_millis(5));
        }
        pod
    }

    fn networks(&self) -> [Direct; 2] {
        [Direct::new(self.lab.bridge(), "lab-default", "eth0"), Direct::new(network(&self.lab), "lan", "net1")]
    }

    fn add(&self, pod: &Pod) -> (Duration, Vec<Value>) {
        let began = Instant::now();
        match &self.way {
            Way::Direct => {
                let results = self.networks().iter().map(|network| network.add(&self.lab, pod)).collect();
                (began.elapsed(), results)
            }
            Way::Ours { runtime, .. } | Way::Peer { runtime, .. } => {
                let answer = runtime.add(&self.lab, pod);
                let took = began.elapsed();
                answer.expect_ok();
                assert!(pod.netns.link("net1").is_some(), "{}: ADD made no net1", self.name);
                (took, Vec::new())
            }
        }
    }

    fn del(&self, pod: &Pod, results: &[Value]) -> Duration {
        let began = Instant::now();
        match &self.way {
            Way::Direct => {
                for (network, result) in self.networks().iter().zip(results).rev() {
                    network.del(&self.lab, pod, result);
                }
            }
            Way::Ours { runtime, .. } | Way::Peer { runtime, .. } => {
                runtime.del(&self.lab, pod).expect_ok();
            }
        }
        began.elapsed()
    }

    /// ADD and DEL of one pod.
    pub fn one_pod(&mut self) -> (Duration, Duration) {
        let pod = self.new_pod();
        let (add, results) = self.add(&pod);
        (add, self.del(&pod, &results))
    }

    /// ADD of `count` pods at once, then DEL of all at once.
    pub fn burst(&mut self, count: usize) -> Burst {
        let pods: Vec<_> = (0..count).map(|_| self.new_pod()).collect();
        let before_kib = self.resident_kib();
        self.reset_peak();
        let began = Instant::now();
        let added: Vec<_> = std::thread::scope(|scope| {
            let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| self.add(pod))).collect();
            adds.into_iter().map(|add| add.join().expect("an ADD")).collect()
        });
        let add_total = began.elapsed();
        let peak_kib = self.pid().map_or(0, |pid| agent::memory_kib(pid).1);
        let mut adds = Figures::default();
        for (took, _) in &added {
            adds.push(*took);
        }
        let began = Instant::now();
        std::thread::scope(|scope| {
            for (pod, (_, results)) in pods.iter().zip(&added) {
                scope.spawn(|| self.del(pod, results));
            }
        });
        Burst { add_total, adds, del_total: began.elapsed(), before_kib, peak_kib }
    }

    fn pid(&self) -> Option<u32> {
        match &self.way {
            Way::Direct => None,
            Way::Ours { agent, .. } => Some(agent.pid()),
            Way::Peer { daemon, .. } => Some(daemon.id()),
        }
    }

    /// Resident memory of its daemon; 0 without one.
    pub fn resident_kib(&self) -> u64 {
        self.pid().map_or(0, |pid| agent::memory_kib(pid).0)
    }

    fn reset_peak(&self) {
        if let Some(pid) = self.pid() {
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// Times of its shim for VERSION, and the program's size in bytes.
    pub fn version_times(&self, count: usize) -> (Figures, u64) {
        let (Way::Ours { runtime, .. } | Way::Peer { runtime, .. }) = &self.way else { return (Figures::default(), 0) };
        let mut figures = Figures::default();
        for _ in 0..count {
            figures.push(runtime.call("VERSION", None).run(&self.lab.node).done.took);
        }
        (figures, std::fs::metadata(&runtime.program).map_or(0, |file| file.len()))
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        if let Way::Peer { daemon, .. } = &mut self.way {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
