//! What a lab is made of on disk and in the kernel: folders, a bpffs folder, a node, its LAN; all removed on drop.
//!
//! Names carry the process id, so that whatever a killed run left behind is swept by the next one.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Once, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde_json::{Value, json};

use crate::netns::{FOLDER, Netns};
use crate::{bundle, plugins, pod, sys};

/// File in a lab's folder that holds its agent's process id.
pub const AGENT_PID: &str = "agent.pid";
const KEPT: &str = "kept";
const PREFIX: &str = "mlab-";
const BPFFS: &str = "/sys/fs/bpf";
const BPFFS_PREFIX: &str = "multus-lab-";

static TURN: RwLock<()> = RwLock::new(());
static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A wire: a namespace of its own at the far end of a veth whose near end is the node's uplink.
#[derive(Debug)]
pub struct Lan {
    /// The namespace at the far end.
    pub netns: Netns,
    /// The link in it.
    pub ifname: String,
    /// The node's end of the wire: the macvlan parent.
    pub uplink: String,
}

/// Whether other labs of this process may be at work at the same time.
#[derive(Debug)]
enum Turn {
    Shared {
        _turn: RwLockReadGuard<'static, ()>,
    },
    Alone {
        _turn: RwLockWriteGuard<'static, ()>,
    },
    /// That of another lab of the same test.
    Beside,
}

/// One node with its folders and its LAN.
#[derive(Debug)]
pub struct Lab {
    /// Everything of this lab starts with this.
    pub prefix: String,
    /// Folder of all folders below.
    pub dir: PathBuf,
    /// The agent's socket folder.
    pub socket_dir: PathBuf,
    /// Records, spool, result cache.
    pub cni_dir: PathBuf,
    /// Delegate plugins.
    pub bin_dir: PathBuf,
    /// Files that NADs with an empty spec and the cluster network refer to.
    pub conf_dir: PathBuf,
    /// Where the agent writes the runtime's conf.
    pub cni_conf_dir: PathBuf,
    /// Manifests standing in for the API server.
    pub objects_dir: PathBuf,
    /// host-local's data.
    pub ipam_dir: PathBuf,
    /// The agent's part of bpffs.
    pub bpffs: PathBuf,
    /// The host.
    pub node: Netns,
    /// The wires, the first one on the node's `eth0`.
    pub lans: Vec<Lan>,
    keep: bool,
    _turn: Turn,
}

impl Lab {
    /// A node with one LAN on its `eth0`: 192.168.50.1/24 and fd00:50::1/64 on the node, .254 and ::fe on the LAN.
    pub fn new(name: &str) -> Self {
        Self::build(name, Turn::Shared { _turn: TURN.read().unwrap_or_else(PoisonError::into_inner) })
    }

    /// The same, with no other lab of this process beside it: for tests that need the whole machine.
    pub fn alone(name: &str) -> Self {
        Self::build(name, Turn::Alone { _turn: TURN.write().unwrap_or_else(PoisonError::into_inner) })
    }

    /// A second node for the test that has this lab already, which must outlive it.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        Self::build(name, Turn::Beside)
    }

    fn build(name: &str, turn: Turn) -> Self {
        SWEEP.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{PREFIX}{}-{number}-{name}", std::process::id());
        let dir = std::env::temp_dir().join(&prefix);
        let folder = |part: &str| {
            let path = dir.join(part);
            fs::create_dir_all(&path).unwrap_or_else(|e| panic!("make {}: {e}", path.display()));
            path
        };
        let bpffs = Path::new(BPFFS).join(format!("{BPFFS_PREFIX}{}-{number}", std::process::id()));
        ensure_bpffs();
        let node = Netns::create(&format!("{prefix}-node"));
        let mut lab = Self {
            socket_dir: folder("run"),
            cni_dir: folder("state"),
            bin_dir: folder("bin"),
            conf_dir: folder("conf"),
            cni_conf_dir: folder("net.d"),
            objects_dir: folder("objects"),
            ipam_dir: folder("ipam"),
            bpffs,
            node,
            lans: Vec::new(),
            keep: false,
            _turn: turn,
            dir,
            prefix,
        };
        plugins::install_real(&lab.bin_dir);
        lab.add_lan("eth0", 50);
        lab
    }

    /// Adds a wire on the node's link `uplink`, numbered `net` in its addresses (192.168.net.0/24, fd00:net::/64).
    pub fn add_lan(&mut self, uplink: &str, net: u8) -> usize {
        let lan = Netns::create(&format!("{}-lan{net}", self.prefix));
        let far = format!("lan{net}");
        self.node.ip(&format!("link add {uplink} type veth peer name {far} netns {}", lan.name()));
        self.node.ip(&format!("address add 192.168.{net}.1/24 dev {uplink}"));
        self.node.ip(&format!("address add fd00:{net}::1/64 dev {uplink} nodad"));
        self.node.ip(&format!("link set {uplink} up"));
        lan.ip(&format!("address add 192.168.{net}.254/24 dev {far}"));
        lan.ip(&format!("address add fd00:{net}::fe/64 dev {far} nodad"));
        lan.ip(&format!("link set {far} up"));
        self.node.wait_ipv6(uplink);
        lan.wait_ipv6(&far);
        self.lans.push(Lan { netns: lan, ifname: far, uplink: uplink.to_owned() });
        self.lans.len() - 1
    }

    /// The wire on `eth0`.
    pub fn lan(&self) -> &Lan {
        &self.lans[0]
    }

    /// The node's first address on wire `net`.
    pub fn node_v4(net: u8) -> Ipv4Addr {
        Ipv4Addr::new(192, 168, net, 1)
    }

    /// A new pod called `name` in namespace `default`.
    pub fn pod(&self, name: &str) -> pod::Pod {
        pod::Pod::new(&self.prefix, "default", name)
    }

    /// A macvlan configuration on `eth0` with a dual-stack host-local range, as a NAD's author writes it.
    ///
    /// Private networks have addresses of their own: two networks do not share host-local's state.
    pub fn macvlan(&self, mode: &str) -> Value {
        let hundred = if mode == "private" { "1" } else { "" };
        json!({
            "cniVersion": "1.0.0", "type": "macvlan", "master": "eth0", "mode": mode,
            "ipam": {
                "type": "host-local", "dataDir": self.ipam_dir,
                "ranges": [
                    [{"subnet": "192.168.50.0/24", "rangeStart": format!("192.168.50.{hundred}10"), "rangeEnd": format!("192.168.50.{hundred}99")}],
                    [{"subnet": "fd00:50::/64", "rangeStart": format!("fd00:50::{hundred}10"), "rangeEnd": format!("fd00:50::{hundred}99")}]
                ]
            }
        })
    }

    /// The default network of the node: bridge and host-local, as a conflist.
    pub fn bridge(&self) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "lab-default",
            "plugins": [{
                "type": "bridge", "bridge": "cbr0", "isDefaultGateway": true,
                "ipam": {"type": "host-local", "dataDir": self.ipam_dir, "ranges": [[{"subnet": "10.77.0.0/16"}]]}
            }]
        })
    }

    /// Writes the NetworkAttachmentDefinition `namespace/name` with this configuration and these annotations.
    pub fn network(&self, namespace: &str, name: &str, config: &Value, annotations: &Value) {
        let config = if config.is_string() { config.clone() } else { Value::String(config.to_string()) };
        self.object(
            &format!("nad-{namespace}-{name}"),
            &json!({
                "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
                "metadata": {"name": name, "namespace": namespace, "annotations": annotations},
                "spec": {"config": config}
            }),
        );
    }

    /// Writes the manifest of `pod`.
    pub fn pod_object(&self, pod: &pod::Pod) {
        self.object(&format!("pod-{}-{}", pod.namespace, pod.name), &pod.manifest());
    }

    /// Writes one manifest, in place at once (temporary file, rename).
    pub fn object(&self, file: &str, document: &Value) {
        let hidden = self.dir.join(format!("{file}.new"));
        fs::write(&hidden, format!("{document:#}")).expect("write a manifest");
        fs::rename(&hidden, self.objects_dir.join(format!("{file}.json"))).expect("place a manifest");
    }

    /// Leaves everything in place when dropped.
    pub fn keep(&mut self) {
        self.keep = true;
        fs::write(self.dir.join(KEPT), "").expect("mark the lab as kept");
        self.node.keep();
        self.lans.iter_mut().for_each(|lan| lan.netns.keep());
    }

    /// True after [`Self::keep`].
    pub fn is_kept(&self) -> bool {
        self.keep
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if std::thread::panicking() && std::env::var_os("MULTUS_LAB_KEEP").is_some() {
            eprintln!("lab: kept {}", self.dir.display());
        } else {
            let _ = fs::remove_dir_all(&self.dir);
        }
        let _ = fs::remove_dir_all(&self.bpffs);
    }
}

fn ensure_bpffs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        if !mounts.lines().any(|line| line.split(' ').nth(1) == Some(BPFFS)) {
            sys::bpf::mount(Path::new(BPFFS)).unwrap_or_else(|e| panic!("mount a BPF file system at {BPFFS}: {e}"));
        }
    });
}

/// Removes what labs of processes that are gone left behind, but not those that were kept on purpose.
pub fn sweep() {
    let of = |names: Vec<String>, prefix: &str| -> BTreeSet<(String, String)> {
        let number = |name: &String| number(name, prefix).map(|(pid, number)| (pid.to_owned(), number.to_owned()));
        names.iter().filter_map(number).collect()
    };
    let mut labs = of(orphans(&std::env::temp_dir(), PREFIX), PREFIX);
    labs.extend(of(orphans(Path::new(FOLDER), PREFIX), PREFIX));
    labs.extend(of(orphans(Path::new(BPFFS), BPFFS_PREFIX), BPFFS_PREFIX));
    for (pid, number) in labs.difference(&of(kept(), PREFIX)) {
        remove_all_of((pid, number));
    }
}

/// The labs that were kept on purpose and whose processes are gone, by name.
pub fn kept() -> Vec<String> {
    let temp = std::env::temp_dir();
    let mut names = orphans(&temp, PREFIX);
    names.retain(|name| temp.join(name).join(KEPT).exists());
    names.sort();
    names
}

/// Removes one lab whose process is gone: namespaces, folders, pins, and its agent.
pub fn remove(lab: &str) {
    if let Some(of) = number(lab, PREFIX) {
        remove_all_of(of);
    }
}

/// Everything whose name has this process and number in it.
fn remove_all_of(of: (&str, &str)) {
    for name in orphans(Path::new(FOLDER), PREFIX).iter().filter(|name| number(name, PREFIX) == Some(of)) {
        let _ = Command::new("ip").args(["netns", "del", name]).output();
    }
    let bpffs = Path::new(BPFFS);
    for name in orphans(bpffs, BPFFS_PREFIX).iter().filter(|name| number(name, BPFFS_PREFIX) == Some(of)) {
        let _ = fs::remove_dir_all(bpffs.join(name));
    }
    let temp = std::env::temp_dir();
    for name in orphans(&temp, PREFIX).iter().filter(|name| number(name, PREFIX) == Some(of)) {
        bundle::sweep(&temp.join(name));
        end_agent_of(&temp.join(name));
        let _ = fs::remove_dir_all(temp.join(name));
    }
}

/// `pid-number` of a name of ours.
fn number<'a>(name: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    let mut parts = name.strip_prefix(prefix)?.split('-');
    Some((parts.next()?, parts.next()?))
}

/// Ends the agent that a lab left running, if the process is still that agent.
fn end_agent_of(dir: &Path) {
    let pid = fs::read_to_string(dir.join(AGENT_PID)).ok().and_then(|text| text.parse::<u32>().ok());
    let Some(pid) = pid else { return };
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    if String::from_utf8_lossy(&line).contains(&*dir.to_string_lossy()) {
        sys::signal(pid, libc::SIGKILL);
    }
}

/// Names in `folder` that start with `prefix`, a process id, `-`, where the process is gone.
fn orphans(folder: &Path, prefix: &str) -> Vec<String> {
    let gone = |name: &String| {
        let pid = number(name, prefix).and_then(|(pid, _)| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(gone).collect()
}
