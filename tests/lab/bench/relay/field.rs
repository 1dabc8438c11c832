//! What each contender looks like: the node, the receivers behind it, and who carries frames between them.
//!
//! It builds; it measures nothing.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::clones::Clones;
use super::load::{self, Outcome};
use crate::udp::{Family, Protocol, Voice, listening_socket};
use crate::world::Builder;
use crate::{Lab, Netns, Pod, World, process, sys, wait_until};

/// Who carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody: what sending alone costs.
    Silent,
    /// Our relay, from the host to its macvlan pods.
    Ours,
    /// The shortest program that copies on the same road as ours, to the same macvlan pods.
    Clones,
    /// The kernel's own copying: one u32 filter with one mirred action per receiver, from the host to its veth pods.
    Mirred,
    /// avahi-daemon as reflector, from the LAN to veth pods.
    Avahi,
}

impl Kind {
    /// In turn; the silent one first.
    pub(super) const ALL: [Self; 5] = [Self::Silent, Self::Ours, Self::Clones, Self::Mirred, Self::Avahi];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Silent => "nobody",
            Self::Ours => "ours",
            Self::Clones => "bare clones",
            Self::Mirred => "tc-mirred",
            Self::Avahi => "avahi-daemon",
        }
    }
}

/// A contender, set up and warm.
pub(super) struct Field {
    pub(super) kind: Kind,
    voice: Voice,
    ears: Vec<UdpSocket>,
    // What carries ends before the namespaces it lives in.
    _avahi: Option<Reflector>,
    _node: Node,
}

/// What a field stands on; kept for what its end takes away.
enum Node {
    Plain { _receivers: Vec<Netns>, _lab: Box<Lab> },
    Ours { _pods: Vec<Pod>, _world: Box<World> },
    Clones { _clones: Clones, _pods: Vec<Netns>, _lab: Box<Lab> },
}

impl Field {
    pub(super) fn new(kind: Kind, receivers: usize) -> Self {
        let field = match kind {
            Kind::Ours => Self::ours(receivers),
            Kind::Clones => Self::clones(receivers),
            Kind::Silent | Kind::Mirred | Kind::Avahi => Self::plain(kind, receivers),
        };
        field.warm_up();
        field
    }

    /// Sends `packets` datagrams at `rate` a second and says how they arrived.
    pub(super) fn carry(&self, rate: u32, packets: u32) -> Outcome {
        load::run(&self.voice, &self.ears, rate, packets)
    }

    fn ours(receivers: usize) -> Self {
        let builder = Builder::new("relay-ours");
        let conf = json!({
            "cniVersion": "1.0.0", "type": "macvlan", "master": "eth0", "mode": "bridge",
            "ipam": {"type": "host-local", "dataDir": builder.lab.ipam_dir, "ranges": [[{"subnet": "10.61.0.0/24"}]]}
        });
        let world = builder.network("lan", &conf).configure(|config, _| config["logLevel"] = "error".into()).start();
        let pods: Vec<_> = (0..receivers).map(|n| world.attached(&format!("pod{n}"), "lan")).collect();
        let ears = pods.iter().map(|pod| ear(&pod.netns, "net1")).collect();
        let voice = Voice::new(&world.lab.node, "eth0", Protocol::Mdns);
        Self { kind: Kind::Ours, voice, ears, _avahi: None, _node: Node::Ours { _pods: pods, _world: Box::new(world) } }
    }

    fn clones(receivers: usize) -> Self {
        let lab = Lab::new("relay-clones");
        let pods: Vec<_> = (0..receivers).map(|n| macvlan_pod(&lab, n)).collect();
        let macs: Vec<_> = pods.iter().map(|pod| pod.mac("net1")).collect();
        let group = Ipv4Addr::new(224, 0, 0, 251);
        let clones = Clones::start(&lab.node, "eth0", group, &macs);
        let ears = pods.iter().map(|pod| ear(pod, "net1")).collect();
        let voice = Voice::new(&lab.node, "eth0", Protocol::Mdns);
        let node = Node::Clones { _clones: clones, _pods: pods, _lab: Box::new(lab) };
        Self { kind: Kind::Clones, voice, ears, _avahi: None, _node: node }
    }

    fn plain(kind: Kind, receivers: usize) -> Self {
        let lab = Lab::new("relay-peer");
        let receivers: Vec<_> = (0..receivers).map(|n| receiver(&lab, n)).collect();
        let avahi = match kind {
            Kind::Mirred => {
                mirror(&lab, receivers.len());
                None
            }
            Kind::Avahi => Some(Reflector::start(&lab, receivers.len())),
            Kind::Silent | Kind::Ours | Kind::Clones => None,
        };
        let voice = match kind {
            Kind::Avahi => Voice::new(&lab.lan().netns, &lab.lan().ifname, Protocol::Mdns),
            _ => Voice::new(&lab.node, "eth0", Protocol::Mdns),
        };
        let ears = receivers.iter().map(|netns| ear(netns, "eth0")).collect();
        Self { kind, voice, ears, _avahi: avahi, _node: Node::Plain { _receivers: receivers, _lab: Box::new(lab) } }
    }

    /// Until every receiver has heard something: memberships, neighbours and caches are there then.
    fn warm_up(&self) {
        if self.kind == Kind::Silent {
            return;
        }
        let heard = wait_until(Duration::from_secs(20), || {
            let outcome = load::run(&self.voice, &self.ears, 100, 10);
            outcome.lost_percent == 0.0
        });
        assert!(heard, "{} does not reach its {} receivers", self.kind.name(), self.ears.len());
    }
}

fn ear(netns: &Netns, ifname: &str) -> UdpSocket {
    let socket = listening_socket(netns, ifname, Protocol::Mdns, Family::V4);
    socket.set_nonblocking(true).expect("a socket that does not block");
    socket
}

/// A routed pod: a namespace at the far end of the node's veth `t<n>`.
fn receiver(lab: &Lab, n: usize) -> Netns {
    let netns = Netns::create(&format!("{}-r{n}", lab.prefix));
    lab.node.ip(&format!("link add t{n} type veth peer name eth0 netns {}", netns.name()));
    lab.node.ip(&format!("address add 10.62.{n}.1/24 dev t{n}"));
    lab.node.ip(&format!("link set t{n} up"));
    netns.ip(&format!("address add 10.62.{n}.2/24 dev eth0"));
    netns.ip("link set eth0 up");
    netns
}

/// A namespace with a macvlan `net1` on the node's `eth0`.
fn macvlan_pod(lab: &Lab, n: usize) -> Netns {
    let netns = Netns::create(&format!("{}-r{n}", lab.prefix));
    lab.node.ip(&format!("link add link eth0 name net1 netns {} type macvlan mode bridge", netns.name()));
    netns.ip(&format!("address add 10.61.0.{}/24 dev net1", n + 2));
    netns.ip("link set net1 up");
    netns
}

fn mirror(lab: &Lab, receivers: usize) {
    process::tool(lab.node.command("tc").args(["qdisc", "add", "dev", "eth0", "clsact"]));
    let mut filter = lab.node.command("tc");
    filter.args(["filter", "add", "dev", "eth0", "egress", "protocol", "ip", "prio", "1", "u32"]);
    filter.args(["match", "ip", "dst", "224.0.0.251/32"]);
    for n in 0..receivers {
        filter.args(["action", "mirred", "egress", "mirror", "dev", &format!("t{n}")]);
    }
    process::tool(&mut filter);
}

/// avahi-daemon between `eth0` and the receivers, with a folder of its own for its process file.
struct Reflector(Child);

impl Reflector {
    fn start(lab: &Lab, receivers: usize) -> Self {
        // One socket of it joins on every link, and the kernel's default is 20.
        lab.node.sysctl("net/ipv4/igmp_max_memberships", "100");
        let links: Vec<_> = (0..receivers).map(|n| format!("t{n}")).collect();
        let config = lab.dir.join("avahi.conf");
        let text = format!(
            "[server]\nallow-interfaces=eth0,{}\nuse-ipv6=no\nenable-dbus=no\n\
             [publish]\ndisable-publishing=yes\n[reflector]\nenable-reflector=yes\n",
            links.join(",")
        );
        fs::write(&config, text).expect("write avahi's configuration");
        let mut command: Command = lab.node.command("avahi-daemon");
        command.arg("--file").arg(&config).args(["--no-drop-root", "--no-chroot", "--no-rlimits"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::own_mounts(&mut command);
        sys::own_folder(&mut command, c"/run");
        Self(command.spawn().expect("start avahi-daemon"))
    }
}

impl Drop for Reflector {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
