//! The node: kernel, eBPF, memory and rights of the agent, its configuration, and the interfaces of pods and parents.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use multus_ebpf_common::LAYOUT;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use crate::config::Settings;
use crate::ops::context::Context;
use crate::sys::{link_details, mounts};

/// The most interfaces that are looked at, and how long that may take altogether.
const MOST_LINKS: usize = 300;
const PATIENCE: Duration = Duration::from_secs(4);

/// What the kernel says of itself, one file for each.
const KERNEL: [(&str, &str); 8] = [
    ("ostype", "/proc/sys/kernel/ostype"),
    ("release", "/proc/sys/kernel/osrelease"),
    ("build", "/proc/sys/kernel/version"),
    ("uptimeSeconds", "/proc/uptime"),
    ("unprivilegedBpfDisabled", "/proc/sys/kernel/unprivileged_bpf_disabled"),
    ("bpfStatsEnabled", "/proc/sys/kernel/bpf_stats_enabled"),
    ("bpfJitEnable", "/proc/sys/net/core/bpf_jit_enable"),
    ("loadAverage", "/proc/loadavg"),
];
/// Lines of `/proc/self/status` and `/proc/meminfo`.
const PROCESS: [&str; 9] =
    ["VmRSS", "VmHWM", "Threads", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid", "Cpus_allowed_list"];
const MEMORY: [&str; 3] = ["MemTotal", "MemAvailable", "SwapTotal"];

/// Now.
pub(super) fn time() -> String {
    Timestamp::try_from(SystemTime::now()).map(|time| format!("{time:.0}")).unwrap_or_default()
}

pub(super) fn versions() -> Value {
    json!({
        "apiVersion": crate::ops::view::API_VERSION,
        "kind": "Version",
        "version": env!("CARGO_PKG_VERSION"),
        "layout": LAYOUT,
        "architecture": std::env::consts::ARCH,
        "kernel": first_line("/proc/sys/kernel/osrelease"),
    })
}

/// Kernel, eBPF, memory and rights.
pub(super) fn facts(settings: &Settings) -> Value {
    let kernel: Map<String, Value> =
        KERNEL.iter().map(|(name, file)| ((*name).to_owned(), json!(first_line(file)))).collect();
    let pins = Path::new(&settings.datapath.bpffs);
    json!({
        "kernel": kernel,
        "cpus": std::thread::available_parallelism().map_or(0, usize::from),
        "btf": Path::new("/sys/kernel/btf/vmlinux").exists(),
        "bpffs": {"path": settings.datapath.bpffs, "isBpffs": mounts::is_on_bpffs(pins).unwrap_or(false)},
        "process": lines("/proc/self/status", &PROCESS),
        "memory": lines("/proc/meminfo", &MEMORY),
    })
}

fn first_line(file: &str) -> Option<String> {
    std::fs::read_to_string(file).ok()?.lines().next().map(|line| line.chars().take(256).collect())
}

fn lines(file: &str, names: &[&str]) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| names.contains(name));
    pairs.map(|(name, value)| (name.to_owned(), json!(value.trim()))).collect::<Map<_, _>>().into()
}

/// The configuration: each of these is a choice, a place or a size.
pub(super) fn config(settings: &Settings) -> Value {
    let (datapath, delegation) = (&settings.datapath, &settings.delegation);
    let addresses = [settings.metrics_address, settings.page_address].map(|address| address.map(|a| a.to_string()));
    json!({
        "objects": settings.objects,
        "kubeconfig": settings.kubeconfig.as_ref().map(|_| "a file, which is not shown"),
        "nodeName": settings.node_name,
        "metricsAddress": addresses[0],
        "pageAddress": addresses[1],
        "requestTimeoutSeconds": settings.request_timeout.as_secs(),
        "socketDir": settings.socket_dir,
        "kubeletDir": settings.kubelet_dir,
        "deviceInfoDir": settings.device_info_dir,
        "chrootDir": settings.chroot_dir,
        "hostExec": format!("{:?}", settings.host_exec),
        "connectionLimit": settings.connection_limit,
        "readinessindicatorfile": settings.readiness_file,
        "log": {
            "file": settings.log.file,
            "level": settings.log.level.map(|level| format!("{level:?}")),
            "toStderr": settings.log.to_stderr,
            "maxSize": settings.log.max_size,
            "maxBackups": settings.log.max_backups,
        },
        "generator": {
            "on": settings.generator.on,
            "cniVersion": settings.generator.cni_version.to_string(),
            "cniConfigDir": settings.generator.cni_config_dir,
            "multusAutoconfigDir": settings.generator.autoconfig_dir,
            "multusMasterCNI": settings.generator.master_cni,
        },
        "cniDir": delegation.cni_dir,
        "binDir": delegation.bin_dir,
        "datapath": {
            "mode": format!("{:?}", datapath.mode),
            "bpffs": datapath.bpffs,
            "attach": format!("{:?}", datapath.attach),
            "slots": datapath.slots,
            "log": datapath.log,
            "mark": format!("{:#x}/{:#x}", datapath.mark.value, datapath.mark.mask),
            "protocols": datapath.relay.protocols,
            "allowed": datapath.relay.allowed,
            "hostAccess": datapath.relay.host_access,
            "custom": datapath.custom.iter().map(|custom| custom.name.clone()).collect::<Vec<_>>(),
            "reflectUplinks": datapath.reflect.uplinks.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "guard": format!("{:?}", datapath.guard),
        },
    })
}

/// The interfaces of pods and parents.
pub(super) async fn links(context: &Context) -> Value {
    let mut wanted: Vec<(String, Option<PathBuf>, String)> = Vec::new();
    for record in context.ledger.all() {
        let pod = record.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default();
        // One that is gone says so; into another one in its place nobody looks.
        let gone = || record.netns.clone().filter(|netns| !netns.as_path().exists());
        let netns = record.namespace().or_else(gone).map(|netns| netns.as_path().to_owned());
        for attachment in &record.attachments {
            if let Some(parent) = attachment.link.as_ref().and_then(|link| link.parent.as_ref()) {
                let node = ("node".to_owned(), None, parent.name.clone());
                if !wanted.contains(&node) {
                    wanted.push(node);
                }
            }
            if netns.is_some() {
                wanted.push((pod.clone(), netns.clone(), attachment.ifname.to_string()));
            }
        }
    }
    let until = Instant::now() + PATIENCE;
    let (all, mut items) = (wanted.len(), Vec::new());
    for (whose, netns, interface) in wanted.into_iter().take(MOST_LINKS) {
        let look = timeout_at(until, link_details::details(netns.as_deref(), &interface)).await;
        let (details, problem) = match look {
            Ok(Ok(Some(details))) => (Some(details), None),
            Ok(Ok(None)) => (None, Some("there is no such interface".to_owned())),
            Ok(Err(error)) => (None, Some(error.to_string())),
            Err(_) => break,
        };
        items.push(json!({"of": whose, "interface": interface, "link": details, "problem": problem}));
    }
    let left_out = all - items.len();
    json!({"apiVersion": crate::ops::view::API_VERSION, "kind": "LinkList", "items": items, "leftOut": left_out})
}
