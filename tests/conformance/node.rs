//! What a clause works with: a node with the judged daemon on it, an API server, a runtime, and eyes on all of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::apiserver::{ApiServer, EVENTS, PODS};
use lab::pod::NETWORK_STATUS;
use lab::runtime::ANNOTATIONS;
use lab::{Answer, Call, Lab, Pod, Runtime, http, original, place, plugins, wait_for, wait_until};
use serde_json::{Value, json};

use crate::clause::skip;
use crate::daemon::Daemon;
use crate::pair::{self, Flavour};

/// The file of the node's primary network, as the distribution's CNI would have put it there.
pub(crate) const PRIMARY: &str = "10-default.conflist";
/// The node's name.
const NODE: &str = "lab-node";
/// Longest wait for what happens beside an answer: a status, an event, a file.
pub(crate) const SOON: Duration = Duration::from_secs(8);

/// A node before its daemon starts.
pub(crate) struct Plan {
    pub(crate) lab: Lab,
    pub(crate) api: ApiServer,
    pub(crate) config: Value,
    version: String,
}

/// A node with its daemon.
pub(crate) struct Node {
    // The daemon goes first, the namespaces it lives in last.
    pub(crate) daemon: Daemon,
    pub(crate) runtime: Runtime,
    pub(crate) api: ApiServer,
    pub(crate) config: Value,
    pub(crate) lab: Lab,
}

impl Plan {
    /// A node whose primary network is a bridge, with the networks `lan` (macvlan) and `quiet` (another macvlan).
    pub(crate) fn new(name: &str) -> Self {
        let lab = Lab::new(name);
        let api = lab.node.enter(ApiServer::start).expect("start the API-server double");
        let plan = Self { config: settings(&lab, &api), version: "1.0.0".to_owned(), lab, api };
        let (primary, lan, quiet) = (plan.lab.bridge(), plan.lab.macvlan("bridge"), plan.lab.macvlan("private"));
        plan.primary(&primary).network("lan", &lan).network("quiet", &quiet)
    }

    /// One more network in namespace `default`.
    pub(crate) fn network(self, name: &str, config: &Value) -> Self {
        self.network_in("default", name, config)
    }

    /// One more network; a string is taken as it stands.
    pub(crate) fn network_in(self, namespace: &str, name: &str, config: &Value) -> Self {
        let text = config.as_str().map_or_else(|| config.to_string(), str::to_owned);
        self.api.put_network(namespace, name, &text);
        self
    }

    /// A network whose plugin is a fake of the same name that does what `programme` says.
    pub(crate) fn fake(self, name: &str, programme: &Value) -> Self {
        let conf = plugins::conf(&self.lab, name, programme);
        self.network(name, &conf)
    }

    /// Another primary network.
    pub(crate) fn primary(self, list: &Value) -> Self {
        fs::write(self.primary_file(), list.to_string()).expect("write the primary network's file");
        self
    }

    /// A primary network whose only plugin is the fake `name`.
    pub(crate) fn fake_primary(self, name: &str, version: &str, programme: &Value) -> Self {
        let list = fake_list(&self.lab, "lab-default", version, &[(name, programme)]);
        self.primary(&list)
    }

    /// The CNI version of the daemon and of the runtime's configuration.
    pub(crate) fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self.config["cniVersion"] = version.into();
        self
    }

    /// A change of the daemon's settings.
    pub(crate) fn configure(mut self, change: impl FnOnce(&mut Value, &Lab)) -> Self {
        change(&mut self.config, &self.lab);
        self
    }

    /// Where the primary network's file is.
    pub(crate) fn primary_file(&self) -> PathBuf {
        self.lab.cni_conf_dir.join(PRIMARY)
    }

    /// Starts the daemon, and configures a runtime with what it generated, or the equivalent.
    pub(crate) fn start(self) -> Node {
        let mut daemon = Daemon::spawn(&self.lab, &self.config);
        daemon.wait_healthy();
        let mut node = self.into_node(daemon);
        // Some daemons write their file only after their socket answers; without one the runtime uses the equivalent.
        let patience = if pair::is_multus() { SOON } else { Duration::from_millis(100) };
        if let Some((_, conf)) = wait_for(patience, || generated(&node.lab)) {
            node.use_conf(&conf);
        }
        node
    }

    /// A node whose daemon was started in a way of its own.
    pub(crate) fn into_node(self, daemon: Daemon) -> Node {
        let mut runtime = Runtime::new(&self.lab);
        runtime.program.clone_from(&pair::judged().shim);
        runtime.version = self.version;
        // What a generated file would say. Only ours asks the runtime for the pod's annotations.
        runtime.gives_annotations = !pair::is_multus();
        runtime.plugin["capabilities"] = json!({"portMappings": true, "bandwidth": true});
        if runtime.gives_annotations {
            runtime.plugin["capabilities"][ANNOTATIONS] = true.into();
        }
        runtime.plugin["clusterNetwork"] = json!(self.lab.cni_conf_dir.join(PRIMARY));
        runtime.plugin["confDir"] = json!(self.lab.conf_dir);
        if pair::is_multus() {
            runtime.limit = Duration::from_secs(75);
        }
        Node { daemon, runtime, api: self.api, config: self.config, lab: self.lab }
    }
}

/// The settings every daemon of this kind knows, and what each flavour needs beside them.
fn settings(lab: &Lab, api: &ApiServer) -> Value {
    let mut config = json!({
        "cniVersion": "1.0.0", "logLevel": "verbose", "logToStderr": true,
        "socketDir": lab.socket_dir, "daemonSocketDir": lab.socket_dir,
        "cniDir": lab.cni_dir, "binDir": lab.bin_dir, "confDir": lab.conf_dir,
        "cniConfigDir": lab.cni_conf_dir, "multusAutoconfigDir": lab.cni_conf_dir, "multusConfigFile": "auto"
    });
    let kubeconfig = api.write_kubeconfig(&lab.dir).expect("write a kubeconfig");
    match pair::judged().flavour {
        Flavour::Ours => {
            config["kubeconfig"] = json!(kubeconfig);
            config["nodeName"] = NODE.into();
            config["requestTimeout"] = "15s".into();
            config["datapath"] = json!({"mode": "off", "bpffs": lab.bpffs});
        }
        // Its daemon takes a kubeconfig only together with a certificate of its own, which it finds there.
        Flavour::Multus => {
            config["perNodeCertificate"] = original::certificate(&lab.dir.join("certificate"), &kubeconfig)
                .unwrap_or_else(|| skip("openssl makes no certificate for a daemon of this flavour"));
        }
    }
    config
}

/// The file the daemon generated for runtimes, and its content.
pub(crate) fn generated(lab: &Lab) -> Option<(PathBuf, Value)> {
    ["00-multus.conflist", "00-multus.conf"].iter().find_map(|name| {
        let path = lab.cni_conf_dir.join(name);
        let conf = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        Some((path, conf))
    })
}

/// A network of fakes, one after the other.
pub(crate) fn fake_list(lab: &Lab, name: &str, version: &str, fakes: &[(&str, &Value)]) -> Value {
    let plugin = |(fake, programme): &(&str, &Value)| {
        let mut conf = plugins::conf(lab, fake, programme);
        conf.as_object_mut().expect("an object").remove("cniVersion");
        conf
    };
    json!({"cniVersion": version, "name": name, "plugins": fakes.iter().map(plugin).collect::<Vec<_>>()})
}

impl Node {
    /// The node as [`Plan::new`] describes it, daemon running.
    pub(crate) fn new(name: &str) -> Self {
        Plan::new(name).start()
    }

    /// Lets the runtime use this configuration, as it would have read it from its folder.
    pub(crate) fn use_conf(&mut self, conf: &Value) {
        let mut plugin = if conf["plugins"].is_array() { conf["plugins"][0].clone() } else { conf.clone() };
        for injected in ["name", "cniVersion"] {
            plugin.as_object_mut().expect("an object").remove(injected);
        }
        self.runtime.gives_annotations = plugin["capabilities"][ANNOTATIONS] == true;
        self.runtime.plugin = plugin;
    }

    /// A pod on this node that the API server knows.
    pub(crate) fn pod(&self, name: &str, networks: &str) -> Pod {
        let pod = self.lab.pod(name);
        self.known(if networks.is_empty() { pod } else { pod.networks(networks) })
    }

    /// Lets the API server know `pod`.
    pub(crate) fn known(&self, pod: Pod) -> Pod {
        self.api.put_pod(&pod.namespace, &pod.name, &pod.uid, NODE, &json!(pod.annotations));
        pod
    }

    /// The same, attached.
    pub(crate) fn attached(&self, name: &str, networks: &str) -> Pod {
        let pod = self.pod(name, networks);
        self.add(&pod).expect_ok();
        pod
    }

    pub(crate) fn add(&self, pod: &Pod) -> Answer {
        self.runtime.add(&self.lab, pod)
    }

    pub(crate) fn del(&self, pod: &Pod) -> Answer {
        self.runtime.del(&self.lab, pod)
    }

    pub(crate) fn check(&self, pod: &Pod) -> Answer {
        self.runtime.check(&self.lab, pod)
    }

    /// The same once its daemon says that it is ready, where it knows the question: before that, STATUS rightly says no.
    pub(crate) fn when_ready(self) -> Self {
        let mut last = String::new();
        let is_ready = wait_until(Duration::from_secs(20), || {
            let reply = http::get_unix(&self.daemon.socket, "/readyz");
            last = format!("{reply:?}");
            reply.is_ok_and(|reply| [200, 404].contains(&reply.status))
        });
        assert!(is_ready, "the daemon was not ready after 20 s: {last}");
        self
    }

    pub(crate) fn status(&self) -> Answer {
        self.runtime.status(&self.lab)
    }

    pub(crate) fn gc(&self, valid: &[&Pod]) -> Answer {
        self.runtime.gc(&self.lab, valid)
    }

    pub(crate) fn call(&self, verb: &str, pod: Option<&Pod>) -> Call {
        self.runtime.call(verb, pod)
    }

    pub(crate) fn run(&self, call: &Call) -> Answer {
        call.run(&self.lab.node)
    }

    /// The journal of the fake `name`.
    pub(crate) fn journal(&self, name: &str) -> Vec<plugins::Entry> {
        plugins::journal(&self.lab, name)
    }

    /// The verbs the fake `name` was called with.
    pub(crate) fn verbs(&self, name: &str) -> Vec<String> {
        self.journal(name).iter().map(|entry| entry.verb().to_owned()).collect()
    }

    /// Waits until the fake `name` was called.
    pub(crate) fn wait_called(&self, name: &str) -> plugins::Entry {
        wait_for(SOON, || self.journal(name).first().cloned()).unwrap_or_else(|| panic!("{name} was never called"))
    }

    /// network-status of `pod` as it is now.
    pub(crate) fn network_status(&self, pod: &Pod) -> Option<String> {
        let object = self.api.get(PODS, &pod.namespace, &pod.name)?;
        object["metadata"]["annotations"][NETWORK_STATUS].as_str().map(str::to_owned)
    }

    /// network-status of `pod`, parsed, as soon as it is there.
    pub(crate) fn wait_status(&self, pod: &Pod) -> Value {
        let text = wait_for(SOON, || self.network_status(pod)).expect("no network-status was written");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("network-status is not JSON ({e}): {text}"))
    }

    /// Events about `pod` so far: type, reason, message.
    pub(crate) fn events(&self, pod: &Pod) -> Vec<(String, String, String)> {
        let all = self.api.all(EVENTS);
        let about = |event: &&Value| {
            let object = if event["involvedObject"].is_null() { &event["regarding"] } else { &event["involvedObject"] };
            object["name"] == pod.name.as_str()
        };
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let told = |event: &Value| {
            let message = if event["message"].is_null() { text(event, "note") } else { text(event, "message") };
            (text(event, "type"), text(event, "reason"), message)
        };
        all.iter().filter(about).map(told).collect()
    }

    /// Waits for a Warning event about `pod`; its reason and message.
    pub(crate) fn wait_warning(&self, pod: &Pod) -> (String, String) {
        let warning =
            wait_for(SOON, || self.events(pod).into_iter().find(|(kind, ..)| kind == "Warning").map(|e| (e.1, e.2)));
        warning.unwrap_or_else(|| panic!("no Warning event about {}: {:?}", pod.name, self.events(pod)))
    }

    /// What there is of `pod` on the node: its links, its addresses in host-local's folders, files named after it.
    pub(crate) fn traces(&self, pod: &Pod) -> Vec<String> {
        let mut found = Vec::new();
        if pod.netns.path().exists() {
            found.extend(pod.netns.link_names().iter().map(|link| format!("link {link} in the pod")));
        }
        for file in lab::state::files(&self.lab.ipam_dir) {
            if fs::read_to_string(&file).is_ok_and(|text| text.starts_with(&pod.id)) {
                found.push(format!("host-local's {}", tail(&file)));
            }
        }
        for file in lab::state::files(&self.lab.cni_dir) {
            if file.to_string_lossy().contains(&pod.id) {
                found.push(format!("file {}", tail(&file)));
            }
        }
        found
    }

    /// Demands that nothing is left of `pod`, at once or a moment later.
    pub(crate) fn assert_gone(&self, pod: &Pod, after: &str) {
        let mut left = Vec::new();
        let gone = wait_until(SOON, || {
            left = self.traces(pod);
            left.is_empty()
        });
        assert!(gone, "after {after} there is still: {}", left.join(", "));
    }

    /// Demands an answer that says no, a pod with no links, and no address taken; the error.
    pub(crate) fn assert_refused(&self, pod: &Pod) -> Value {
        let answer = self.add(pod);
        let error = answer.error();
        assert_eq!(pod.netns.link_names(), [""; 0], "links after a refused ADD: {error}");
        let taken: Vec<_> = self.traces(pod).into_iter().filter(|trace| trace.starts_with("host-local")).collect();
        assert!(taken.is_empty(), "after a refused ADD: {taken:?}: {error}");
        error
    }

    /// The daemon does its work.
    pub(crate) fn assert_works(&mut self, because: &str) {
        assert!(self.daemon.is_running(), "the daemon ended: {because}");
        let pod = self.attached("works", "lan");
        assert!(pod.netns.link("net1").is_some(), "no net1: {because}");
        self.del(&pod).expect_ok();
    }
}

/// The last two parts of a path.
fn tail(path: &Path) -> String {
    let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
    format!("{}/{}", folder.to_string_lossy(), path.file_name().unwrap_or_default().to_string_lossy())
}

/// `msg` and `details` of an error object.
pub(crate) fn said(error: &Value) -> String {
    format!("{} {}", error["msg"].as_str().unwrap_or_default(), error["details"].as_str().unwrap_or_default())
}

/// Default routes of `family` in the pod, as `gateway dev`, in the kernel's order.
pub(crate) fn default_routes(pod: &Pod, family: &str) -> Vec<String> {
    let routes = pod.netns.ip_json(&format!("{family} route show default"));
    let line = |route: &Value| {
        format!("{} {}", route["gateway"].as_str().unwrap_or("-"), route["dev"].as_str().unwrap_or("-"))
    };
    routes.as_array().into_iter().flatten().map(line).collect()
}

/// True when the process is gone.
pub(crate) fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

/// The process id that a lab's sweep would end; another daemon is put in its place.
pub(crate) fn remember_daemon(lab: &Lab, pid: u32) {
    fs::write(lab.dir.join(place::AGENT_PID), pid.to_string()).expect("write the daemon's process id");
}
