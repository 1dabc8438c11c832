//! A container of the manifest in the words of the OCI runtime specification 1.0, as containerd's CRI plugin says it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{Wanted, seccomp};
use crate::manifest::Manifest;
use crate::{Lab, agent, netns};

/// What nobody may look into, and what nobody may write to: a runtime's defaults.
const MASKED: [&str; 9] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// `config.json` of the bundle whose root file system is `root`.
pub(super) fn of(lab: &Lab, id: &str, wanted: &Wanted<'_>, root: &Path, config: &Path) -> Value {
    let manifest = Manifest::rendered();
    let (pod, container) = (manifest.pod(), manifest.container(wanted.name));
    let context = &container["securityContext"];
    let capabilities = capabilities(context, wanted.without);
    let (user, group) = (&context["runAsUser"], &context["runAsGroup"]);
    let mut mounts = usual_mounts();
    mounts.extend(library_mounts());
    mounts.extend(volume_mounts(lab, wanted, pod, container, config));
    mounts.push(account_mount(lab));
    let is = |key: &str| context[key].as_bool();
    assert_eq!(is("privileged"), Some(false), "the lab makes no privileged container");
    let network = pod["hostNetwork"].as_bool().unwrap_or(false).then(|| lab.node.path().to_owned());
    json!({
        "ociVersion": "1.0.2",
        "hostname": "lab-node",
        "root": {"path": root, "readonly": is("readOnlyRootFilesystem").unwrap_or(false)},
        "process": {
            "user": {"uid": user, "gid": group}, "cwd": "/", "terminal": false,
            "args": words(wanted, container), "env": environment(container),
            "noNewPrivileges": !is("allowPrivilegeEscalation").unwrap_or(true),
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                "inheritable": [], "ambient": []
            },
        },
        "mounts": mounts,
        "linux": {
            // Mounts that are to be seen later need a root that follows the host's.
            "rootfsPropagation": "rslave",
            "namespaces": namespaces(pod, network),
            "maskedPaths": MASKED, "readonlyPaths": READ_ONLY,
            "cgroupsPath": format!("/{id}"),
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}],
                "memory": super::limits_memory().then(|| json!({"limit": bytes(&container["resources"]["limits"]["memory"])})),
            },
            "seccomp": filter(pod, &capabilities),
        },
    })
}

/// Those that the manifest adds, after it has dropped all.
fn capabilities(context: &Value, without: Option<&str>) -> Vec<String> {
    let capabilities = &context["capabilities"];
    assert_eq!(Manifest::words(&capabilities["drop"]), ["ALL"], "the lab begins with none");
    let added = Manifest::words(&capabilities["add"]).into_iter();
    added.filter(|name| without != Some(name)).map(|name| format!("CAP_{name}")).collect()
}

fn words(wanted: &Wanted<'_>, container: &Value) -> Vec<String> {
    let listed = |key: &str| Manifest::words(&container[key]);
    match wanted.words {
        Some(others) => others.iter().map(|&word| word.to_owned()).collect(),
        None => listed("command").into_iter().chain(listed("args")).collect(),
    }
}

/// The image's, then the manifest's: its only variables are of the pod.
fn environment(container: &Value) -> Vec<String> {
    let given = container["env"].as_array().into_iter().flatten().map(|variable| {
        assert_eq!(variable["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName", "{variable}");
        format!("{}=lab-node", variable["name"].as_str().expect("a name"))
    });
    std::iter::once("PATH=/usr/bin".to_owned()).chain(given).collect()
}

fn namespaces(pod: &Value, network: Option<PathBuf>) -> Vec<Value> {
    let mut all = vec![json!({"type": "mount"})];
    let own = |key: &str| !pod[key].as_bool().unwrap_or(false);
    all.extend(own("hostPID").then(|| json!({"type": "pid"})));
    all.extend(own("hostIPC").then(|| json!({"type": "ipc"})));
    all.push(json!({"type": "uts"}));
    // Where there is one hierarchy, runtimes hide where in it the container is.
    all.extend(Path::new("/sys/fs/cgroup/cgroup.controllers").exists().then(|| json!({"type": "cgroup"})));
    all.push(network.map_or_else(|| json!({"type": "network"}), |path| json!({"type": "network", "path": path})));
    all
}

fn filter(pod: &Value, capabilities: &[String]) -> Value {
    let profile = &pod["securityContext"]["seccompProfile"]["type"];
    assert_eq!(*profile, "RuntimeDefault", "the lab knows no other profile");
    seccomp::filter(capabilities)
}

/// What every container gets.
fn usual_mounts() -> Vec<Value> {
    let of = |at: &str, kind: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": kind, "options": options});
    vec![
        of("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        of("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        of("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        of("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        of("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        of("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        of("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ]
}

/// Where the programs under test are not static, as those of an image are, they need the loader and the libraries here.
fn library_mounts() -> Vec<Value> {
    if !agent::is_dynamic(&agent::program("multus-agent")) {
        return Vec::new();
    }
    let folders = ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|folder| Path::new(folder).exists());
    folders.map(|folder| bind(Path::new(folder), folder, &["rbind", "rprivate", "ro"])).collect()
}

fn bind(outside: &Path, inside: &str, options: &[&str]) -> Value {
    json!({"destination": inside, "type": "bind", "source": outside, "options": options})
}

/// Exactly the manifest's, each where the configuration looks for it.
fn volume_mounts(lab: &Lab, wanted: &Wanted<'_>, pod: &Value, container: &Value, config: &Path) -> Vec<Value> {
    let volumes: Map<String, Value> = pod["volumes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|volume| (volume["name"].as_str().expect("a name").to_owned(), volume.clone()))
        .collect();
    let mut mounts: Vec<Value> = container["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|mount| {
            let volume = &volumes[mount["name"].as_str().expect("a name")];
            let (outside, inside) = match volume["hostPath"]["path"].as_str() {
                Some(path) => {
                    assert_eq!(mount["mountPath"], path, "a folder of the host has its own name inside");
                    folder(lab, wanted.config, path)
                }
                None => (config.to_owned(), mount["mountPath"].as_str().expect("a path").to_owned()),
            };
            let propagation = match mount["mountPropagation"].as_str() {
                Some("HostToContainer") => "rslave",
                None | Some("None") => "rprivate",
                Some(other) => panic!("the lab does not know the propagation {other}"),
            };
            let writing = if mount["readOnly"] == true { "ro" } else { "rw" };
            bind(&outside, &inside, &["rbind", propagation, writing])
        })
        .collect();
    // What stands in for the API server, and files that a lab's own configuration names.
    for key in ["objects", "confDir"] {
        if let Some(path) = wanted.config[key].as_str() {
            mounts.push(bind(Path::new(path), path, &["rbind", "rprivate", "ro"]));
        }
    }
    mounts
}

/// The kubelet mounts the service account's token into every container.
fn account_mount(lab: &Lab) -> Value {
    let folder = lab.dir.join("account");
    fs::create_dir_all(&folder).expect("make the account's folder");
    bind(&folder, super::ACCOUNT, &["rbind", "rprivate", "ro"])
}

/// What stands for a folder of the host: where it is in the lab, and where the configuration expects it.
fn folder(lab: &Lab, config: &Value, path: &str) -> (PathBuf, String) {
    let named = |key: &str| config[key].as_str().map_or_else(|| path.to_owned(), str::to_owned);
    let below =
        |key: &str, part: &str| config[key].as_str().map_or_else(|| path.to_owned(), |at| format!("{at}{part}"));
    let (outside, inside) = match path {
        "/etc/cni/net.d" => (lab.cni_conf_dir.clone(), named("cniConfigDir")),
        "/opt/cni/bin" => (lab.bin_dir.clone(), named("binDir")),
        "/var/lib/cni/multus" => (lab.cni_dir.clone(), named("cniDir")),
        "/run/multus" => (lab.socket_dir.clone(), named("socketDir")),
        // The pods of this lab are where all of this machine's are.
        "/run/netns" | "/var/run/netns" => (netns::FOLDER.into(), path.to_owned()),
        // A configuration of the lab's own names its folder on the machine's.
        "/sys/fs/bpf" if config["datapath"]["bpffs"].is_string() => (path.into(), path.to_owned()),
        "/sys/fs/bpf" => (lab.bpffs.clone(), path.to_owned()),
        "/var/lib/kubelet/pod-resources" => {
            (lab.dir.join("kubelet/pod-resources"), below("kubeletDir", "/pod-resources"))
        }
        "/var/run/k8s.cni.cncf.io" => (lab.dir.join("devinfo"), named("deviceInfoDir")),
        // Where host-local is told to keep its own in a lab: it is no key of ours.
        "/var/lib/cni/networks" => (lab.ipam_dir.clone(), lab.ipam_dir.display().to_string()),
        other => panic!("the lab has no folder for {other} of the host"),
    };
    fs::create_dir_all(&outside).unwrap_or_else(|error| panic!("make {}: {error}", outside.display()));
    (outside, inside)
}

/// A quantity of Kubernetes, as far as manifests of ours use it.
fn bytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().expect("a memory limit");
    let number = text.strip_suffix("Mi").and_then(|number| number.parse::<u64>().ok());
    number.unwrap_or_else(|| panic!("{text} is no number of Mi")) << 20
}
