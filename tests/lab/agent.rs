//! How the agent is started, stopped, killed and watched on a lab's node.
//!
//! It never looks inside: readiness is what the socket and `/readyz` say.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bundle::{Container, Wanted};
use crate::{Lab, http, place, process, sys, wait_until};

/// Where the agent serves `/metrics` in the node's namespace.
pub const METRICS: &str = "127.0.0.1:9797";

/// The program `name` under test: in `MULTUS_BIN_DIR`, by default the workspace's `target/release`.
pub fn program(name: &str) -> PathBuf {
    let default = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release"));
    std::env::var_os("MULTUS_BIN_DIR").map_or_else(default, PathBuf::from).join(name)
}

/// Why the programs under test cannot be used, or `None` when they are there.
pub fn missing_programs() -> Option<String> {
    let missing: Vec<_> = ["multus-agent", "multus-shim"].into_iter().filter(|name| !program(name).exists()).collect();
    let folder = program("").display().to_string();
    (!missing.is_empty()).then(|| format!("no {} in {folder}: run `cargo xtask build`", missing.join(", ")))
}

/// Does this program need a loader and libraries, which an image of ours has not?
pub fn is_dynamic(program: &std::path::Path) -> bool {
    let mut head = [0; 4096];
    let read = File::open(program).and_then(|mut file| std::io::Read::read(&mut file, &mut head));
    read.unwrap_or_else(|error| panic!("read {}: {error}", program.display()));
    head.windows(9).any(|bytes| bytes == b"/ld-linux")
}

/// The configuration a lab gives its agent; change it before [`Agent::start`].
pub fn config(lab: &Lab) -> Value {
    let default_network = lab.conf_dir.join("10-default.conflist");
    fs::write(&default_network, lab.bridge().to_string()).expect("write the default network");
    // For kernels and builds without eBPF: everything but the datapath's own tests must hold there, too.
    let mode = std::env::var("MULTUS_LAB_DATAPATH").unwrap_or_else(|_| "full".to_owned());
    json!({
        "cniVersion": "1.0.0", "logLevel": "verbose", "logToStderr": true,
        "socketDir": lab.socket_dir, "daemonSocketDir": lab.socket_dir,
        "cniDir": lab.cni_dir, "binDir": lab.bin_dir, "confDir": lab.conf_dir,
        "cniConfigDir": lab.cni_conf_dir, "multusAutoconfigDir": lab.conf_dir, "clusterNetwork": default_network,
        "objects": lab.objects_dir, "nodeName": "lab-node",
        "kubeletDir": lab.dir.join("kubelet"), "deviceInfoDir": lab.dir.join("devinfo"),
        "metricsAddress": METRICS, "requestTimeout": "20s",
        "datapath": {"mode": mode, "bpffs": lab.bpffs}
    })
}

/// The capabilities that the manifests give the agent, by their numbers in `linux/capability.h`.
pub const CAPABILITIES: [(&str, u32); 4] = [("DAC_OVERRIDE", 1), ("NET_ADMIN", 12), ("NET_RAW", 13), ("SYS_ADMIN", 21)];
/// What the host-exec component adds.
pub const HOST_EXEC_CAPABILITIES: [(&str, u32); 2] = [("SYS_PTRACE", 19), ("SYS_CHROOT", 18)];

/// Where the agent lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// In a mount namespace of its own and with the capabilities of the manifests, as in its pod: it may not run plugins
    /// by itself.
    Pod,
    /// The same without one of its capabilities.
    PodWithout(&'static str),
    /// On the host: it may.
    Host,
    /// In the sandbox that a container runtime makes of the rendered manifest, without that capability if one is named.
    Container(Option<&'static str>),
    /// In its pod, with the right to enter the host's mount namespace: the host-exec component.
    HostExec,
    /// The same without one of its capabilities.
    HostExecWithout(&'static str),
}

impl Home {
    /// May the agent there enter the host's mount namespace, as far as that is up to its configuration?
    fn has_host_exec(self) -> bool {
        matches!(self, Self::HostExec | Self::HostExecWithout(_))
    }

    /// The capabilities there, as a set of bits.
    fn capabilities(self) -> u64 {
        let more = if self.has_host_exec() { &HOST_EXEC_CAPABILITIES[..] } else { &[] };
        let lacks = |name| [Self::PodWithout(name), Self::Container(Some(name)), Self::HostExecWithout(name)];
        let has = |name: &&'static str| !lacks(*name).contains(&self);
        CAPABILITIES.iter().chain(more).filter(|(name, _)| has(name)).map(|(_, number)| 1 << number).sum()
    }
}

impl Home {
    /// With `MULTUS_LAB_SANDBOX` set, whatever a test wants done in the agent's pod is done in the sandbox of the rendered
    /// manifest: the same privileges, and all else that a runtime would do.
    fn as_asked(self) -> Self {
        let sandboxed = std::env::var_os("MULTUS_LAB_SANDBOX").is_some();
        match self {
            Self::Pod if sandboxed => Self::Container(None),
            Self::PodWithout(name) if sandboxed => Self::Container(Some(name)),
            home => home,
        }
    }

    /// The sandbox that it is in, if it is one that a runtime makes.
    fn container(self, lab: &Lab, config: &std::path::Path) -> Option<Container> {
        let Self::Container(without) = self else { return None };
        let text = fs::read_to_string(config).expect("read daemon-config.json");
        let config = serde_json::from_str(&text).expect("the configuration is JSON");
        Some(Container::new(lab, &Wanted { without, ..Wanted::new("agent", &config) }))
    }

    /// How it is started anywhere else.
    fn command(self, lab: &Lab, config: &std::path::Path, program: &std::path::Path) -> Command {
        let mut command = if lab.is_kept() { lab.node.lasting_command(program) } else { lab.node.command(program) };
        if self != Self::Host {
            sys::own_mounts(&mut command);
            sys::only_capabilities(&mut command, self.capabilities());
        }
        command.args(["run", "--config"]).arg(config).env("MULTUS_NODE_NAME", "lab-node");
        command
    }
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The agent; its container's keeper, where it is in one.
    child: Child,
    pid: u32,
    container: Option<Container>,
    log: PathBuf,
    config: PathBuf,
    socket: PathBuf,
    keep: bool,
    home: Home,
    program: PathBuf,
    /// From start to ready.
    pub started_in: Duration,
}

impl Agent {
    /// Starts the agent on the node with `config` and waits until it is ready.
    pub fn start(lab: &Lab, config: &Value) -> Self {
        Self::start_at(Home::Pod, lab, config)
    }

    /// The same in a home of choice.
    pub fn start_at(home: Home, lab: &Lab, config: &Value) -> Self {
        let mut agent = Self::start_unready(home, lab, config);
        agent.wait_ready();
        agent
    }

    /// The same without waiting: for a node on which it cannot become ready yet.
    pub fn start_unready(home: Home, lab: &Lab, config: &Value) -> Self {
        let home = home.as_asked();
        let file = lab.dir.join("daemon-config.json");
        let mut config = config.clone();
        match home {
            // Whoever runs the tests may well have the right to enter process 1's namespaces.
            Home::Pod | Home::PodWithout(_) => config["hostExec"] = "off".into(),
            // Nothing to be kept from: it may, or its sandbox keeps it.
            Home::Host | Home::Container(_) => {}
            // Process 1 may hide its namespaces from us; this process lives on the same host.
            Home::HostExec | Home::HostExecWithout(_) => {
                config["hostExec"] = format!("/proc/{}/ns/mnt", std::process::id()).into();
            }
        }
        fs::write(&file, format!("{config:#}")).expect("write daemon-config.json");
        Self::spawn(home, lab, file, program("multus-agent"))
    }

    fn spawn(home: Home, lab: &Lab, config: PathBuf, program: PathBuf) -> Self {
        let log = lab.dir.join("agent.log");
        let out = File::options().create(true).append(true).open(&log).expect("open agent.log");
        let keep = lab.is_kept();
        let container = home.container(lab, &config);
        let mut command = match &container {
            Some(container) => container.command(),
            None => home.command(lab, &config, &program),
        };
        command.stdin(Stdio::null()).stdout(out.try_clone().expect("a second handle")).stderr(out);
        let child = command.spawn().unwrap_or_else(|e| panic!("start {}: {e}", program.display()));
        let socket = lab.socket_dir.join("multus.sock");
        let pid = container.as_ref().map_or_else(
            || child.id(),
            |container| {
                container
                    .pid()
                    .unwrap_or_else(|| panic!("no container:\n{}", fs::read_to_string(&log).unwrap_or_default()))
            },
        );
        fs::write(lab.dir.join(place::AGENT_PID), pid.to_string()).expect("write the agent's process id");
        Self { child, pid, container, log, config, socket, keep, home, program, started_in: Duration::ZERO }
    }

    /// Waits until it is ready.
    pub fn wait_ready(&mut self) {
        let began = Instant::now();
        let mut last = String::new();
        let ready = wait_until(Duration::from_secs(15), || {
            let ended = !self.is_running();
            assert!(!ended, "the agent ended while starting:\n{}", self.log_text());
            let reply = http::get_unix(&self.socket, "/readyz");
            last = format!("{reply:?}");
            reply.is_ok_and(|reply| reply.status == 200)
        });
        assert!(ready, "the agent was not ready after 15 s: {last}\n{}", self.log_text());
        self.started_in = began.elapsed();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The container it is in.
    pub fn container(&self) -> &Container {
        self.container.as_ref().expect("an agent of Home::Container")
    }

    /// True while the process lives.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Path of its socket.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// SIGKILL, and waits for the end.
    pub fn kill9(&mut self) {
        if self.container.is_none() {
            let _ = self.child.kill();
        } else if self.is_running() {
            // The keeper ends when what it keeps has ended.
            sys::signal(self.pid, libc::SIGKILL);
        }
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end; says how long it took.
    pub fn term(&mut self) -> Duration {
        let began = Instant::now();
        sys::signal(self.pid, libc::SIGTERM);
        let ended = wait_until(Duration::from_secs(30), || !self.is_running());
        assert!(ended, "the agent ignored SIGTERM for 30 s:\n{}", self.log_text());
        began.elapsed()
    }

    /// Starts it again with the same configuration; it must be down.
    pub fn start_again(&mut self, lab: &Lab) {
        self.start_again_unready(lab);
        self.wait_ready();
    }

    /// Starts it again without waiting until it is ready.
    pub fn start_again_unready(&mut self, lab: &Lab) {
        *self = Self::spawn(self.home, lab, self.config.clone(), self.program.clone());
    }

    /// Says which program the next start runs, and the CLI's commands from now on: another release's.
    pub fn run_next(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// The file that it reads its configuration from.
    pub fn config_file(&self) -> &std::path::Path {
        &self.config
    }

    /// Changes the configuration that the next start reads.
    pub fn reconfigure(&self, change: impl FnOnce(&mut Value)) {
        let mut config = serde_json::from_slice(&fs::read(&self.config).expect("read the config")).expect("JSON");
        change(&mut config);
        fs::write(&self.config, format!("{config:#}")).expect("write the config");
    }

    /// Everything it logged so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in KiB (`VmRSS`), and its peak (`VmHWM`).
    pub fn memory_kib(&self) -> (u64, u64) {
        memory_kib(self.pid)
    }

    /// Anonymous memory in KiB (`RssAnon`): what it allocated, without its program's pages.
    pub fn allocated_kib(&self) -> u64 {
        status_kib(self.pid, "RssAnon:")
    }

    /// CPU time it has used so far, in user and kernel mode.
    pub fn cpu_time(&self) -> Duration {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        // The program's name may hold blanks; fields 14 and 15 of proc(5) are ticks of 10 ms.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        Duration::from_millis(fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10)
    }

    /// How many descriptors it has open, and how many threads it runs.
    pub fn descriptors_and_threads(&self) -> (usize, usize) {
        let count =
            |what: &str| fs::read_dir(format!("/proc/{}/{what}", self.pid)).into_iter().flatten().flatten().count();
        (count("fd"), count("task"))
    }

    /// Lets the peak of [`Self::memory_kib`] start anew.
    pub fn reset_memory_peak(&self) {
        let _ = fs::write(format!("/proc/{}/clear_refs", self.pid), "5");
    }

    /// `/metrics`, parsed.
    pub fn metrics(&self, lab: &Lab) -> crate::metrics::Samples {
        let text = fs::read_to_string(&self.config).expect("read the config");
        let config: Value = serde_json::from_str(&text).expect("JSON");
        let address = config["metricsAddress"].as_str().unwrap_or(METRICS);
        let reply = http::get_tcp(&lab.node, address, "/metrics").expect("GET /metrics");
        assert_eq!(reply.status, 200, "/metrics: {}", reply.body);
        crate::metrics::Samples::parse(&reply.body)
    }

    /// Runs the CLI against this agent's socket.
    pub fn cli(&self, lab: &Lab, args: &[&str]) -> process::Finished {
        let mut command = lab.node.command(&self.program);
        command.args(args).env("MULTUS_SOCKET", &self.socket);
        process::run(&mut command, b"", Duration::from_secs(15))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.log_text();
            let tail: Vec<_> = text.lines().rev().take(60).collect();
            eprintln!("--- the agent's last words ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        if !self.keep {
            self.kill9();
        }
    }
}

/// `VmRSS` and `VmHWM` of a process in KiB; zeros when it is gone.
pub fn memory_kib(pid: u32) -> (u64, u64) {
    (status_kib(pid, "VmRSS:"), status_kib(pid, "VmHWM:"))
}

fn status_kib(pid: u32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.split_whitespace().nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0)
}
