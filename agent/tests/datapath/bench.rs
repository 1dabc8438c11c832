//! The bench: a host, its LAN and pods as network namespaces, with sockets that count what they hear.

mod links;
mod peer;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, id};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use multus_agent::datapath::{
    AttachMode, Attached, Attachment, Datapath, Guard, Mark, Method, Mode, Parent, ProtocolSet, RelayCount, Settings,
};
use multus_agent::objects::HostAccess;
use multus_ebpf_common::LAYOUT;

pub(crate) use links::{address, ip, ip_batch, link, make_netns, netns_path, output, within};
pub(crate) use peer::{Family, MDNS_V4, Peer, bind, broadcast, mdns};

pub(crate) const MARK: Mark = Mark { value: 0x4d55_0000, mask: 0xffff_0000 };

const PREFIX: &str = "mxdp";
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// One host with a LAN on `eth0`; pods are added.
pub(crate) struct Bench {
    name: String,
    pub(crate) bpffs: PathBuf,
    /// The host's link that pods sit on; `eth0` unless a test makes another.
    pub(crate) uplink: String,
    /// The LAN's end of it.
    pub(crate) wire: String,
    pods: u8,
}

/// The ways to attach to a parent that this kernel has, found by trying (TCX came with Linux 6.6).
pub(crate) fn ways() -> Vec<AttachMode> {
    static TCX: OnceLock<bool> = OnceLock::new();
    let has_tcx = *TCX.get_or_init(|| {
        let mut bench = Bench::new();
        let pod = bench.pod("bridge");
        let datapath = bench.open();
        let attached = bench.attach(&datapath, &pod);
        let method = datapath.facts().parents[0].method;
        bench.on_host(|| datapath.detach(&attached)).unwrap();
        method == Some(Method::Tcx)
    });
    if has_tcx {
        return vec![AttachMode::Tcx, AttachMode::Clsact];
    }
    eprintln!("skipped: this kernel has no TCX");
    vec![AttachMode::Clsact]
}

/// A pod's namespace with a macvlan `net1`.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) netns: String,
    pub(crate) number: u8,
}

impl Bench {
    pub(crate) fn new() -> Self {
        sweep();
        let name = format!("{PREFIX}{}x{}", id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let bpffs = PathBuf::from(format!("/sys/fs/bpf/{name}"));
        let bench = Self { bpffs, name, uplink: "eth0".to_owned(), wire: "wire".to_owned(), pods: 0 };
        for netns in [bench.host(), bench.lan()] {
            make_netns(&netns);
        }
        ip(&[
            "link",
            "add",
            "eth0",
            "netns",
            &bench.host(),
            "type",
            "veth",
            "peer",
            "name",
            "wire",
            "netns",
            &bench.lan(),
        ]);
        address(&bench.host(), "eth0", "10.77.0.1/24");
        address(&bench.lan(), "wire", "10.77.0.2/24");
        bench
    }

    pub(crate) fn host(&self) -> String {
        format!("{}-h", self.name)
    }

    pub(crate) fn lan(&self) -> String {
        format!("{}-l", self.name)
    }

    pub(crate) fn pod(&mut self, mode: &str) -> Pod {
        self.pod_of(&["type", "macvlan", "mode", mode])
    }

    /// A pod with a `net1` of any kind on the uplink.
    pub(crate) fn pod_of(&mut self, kind: &[&str]) -> Pod {
        let uplink = self.uplink.clone();
        self.pod_at(&uplink, kind)
    }

    fn pod_at(&mut self, parent: &str, kind: &[&str]) -> Pod {
        self.pods += 1;
        let (host, netns) = (self.host(), format!("{}-p{}", self.name, self.pods));
        make_netns(&netns);
        ip(&[&["-n", &host, "link", "add", "net1", "link", parent, "netns", &netns][..], kind].concat());
        address(&netns, "net1", &format!("10.77.0.{}/24", 10 + self.pods));
        Pod { netns, number: self.pods }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            mode: Mode::Full,
            bpffs: self.bpffs.clone(),
            attach: AttachMode::Auto,
            slots: 8,
            log: false,
            mark: MARK,
            protocols: ProtocolSet::standard(),
            custom: Vec::new(),
            guard: Guard::Off,
        }
    }

    pub(crate) fn open(&self) -> Datapath {
        self.on_host(|| Datapath::open(&self.settings())).unwrap()
    }

    /// Where a map of ours is pinned.
    pub(crate) fn pin(&self, map: &str) -> String {
        self.bpffs.join(format!("v{LAYOUT}/maps")).join(map).to_string_lossy().into_owned()
    }

    pub(crate) fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.host(), work)
    }

    pub(crate) fn parent(&self) -> Parent {
        let (ifindex, mac) = link(&self.host(), &self.uplink);
        Parent { ifindex, name: self.uplink.clone(), mac }
    }

    pub(crate) fn attachment(&self, pod: &Pod) -> Attachment {
        Attachment {
            netns: netns_path(&pod.netns),
            netns_id: None,
            ifname: "net1".to_owned(),
            mac: link(&pod.netns, "net1").1,
            parent: Some(self.parent()),
            protocols: ProtocolSet::standard(),
            host_access: None,
            plain_copy: false,
        }
    }

    pub(crate) fn attach(&self, datapath: &Datapath, pod: &Pod) -> Attached {
        let attachment = self.attachment(pod);
        self.on_host(|| datapath.attach(&attachment)).unwrap()
    }

    /// Attached with host access.
    pub(crate) fn attach_open(&self, datapath: &Datapath, pod: &Pod, access: HostAccess) -> Attached {
        let attachment = Attachment { host_access: Some(access), ..self.attachment(pod) };
        self.on_host(|| datapath.attach(&attachment)).unwrap()
    }

    pub(crate) fn host_peer(&self) -> Peer {
        Peer::new(&self.host(), &self.uplink, Ipv4Addr::new(10, 77, 0, 1))
    }

    pub(crate) fn lan_peer(&self) -> Peer {
        Peer::new(&self.lan(), &self.wire, Ipv4Addr::new(10, 77, 0, 2))
    }

    /// The filters, links, pins and map entries of ours that exist.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut found = Vec::new();
        for direction in ["ingress", "egress"] {
            found.extend(lines("tc", &["-n", &self.host(), "filter", "show", "dev", &self.uplink, direction]));
        }
        let net = format!("--net={}", netns_path(&self.host()).display());
        let shown = lines("nsenter", &[&net, "bpftool", "net", "show", "dev", &self.uplink]);
        found.extend(shown.into_iter().filter(|line| line.contains(&self.uplink)));
        found.extend(entries(&self.bpffs.join("v2/links")));
        for map in ["relay_fanout", "local_macs", "relay_counters", "guard_counters"] {
            let path = self.bpffs.join("v2/maps").join(map);
            let dump = output("bpftool", &["-j", "map", "dump", "pinned", &path.to_string_lossy()]);
            let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
            let count = dump.as_array().map_or(1, Vec::len);
            if count > 0 {
                found.push(format!("{map}: {count} entries"));
            }
        }
        found
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

impl Pod {
    /// Changes the macvlan mode.
    pub(crate) fn set_mode(&self, mode: &str) {
        ip(&["-n", &self.netns, "link", "set", "net1", "type", "macvlan", "mode", mode]);
    }

    pub(crate) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 10 + self.number)
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::new(&self.netns, "net1", Ipv4Addr::new(10, 77, 0, 10 + self.number))
    }
}

/// The frames of one relay counter, summed over protocols.
pub(crate) fn frames(counts: &[RelayCount], path: &str, outcome: &str) -> u64 {
    let is = |count: &&RelayCount| {
        count.path == path && (count.reason == outcome || (count.reason.is_empty() && count.verdict == outcome))
    };
    counts.iter().filter(is).map(|count| count.frames).sum()
}

fn lines(program: &str, arguments: &[&str]) -> Vec<String> {
    let done = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8_lossy(&done.stdout).lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}

fn entries(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// How long nothing must come for nothing more to be expected. An emulated machine takes longer over everything.
pub(crate) fn silence() -> Duration {
    Duration::from_millis(if std::env::var_os("MULTUS_EMULATED").is_some() { 1000 } else { 150 })
}

/// Looks until it is so, and gives up after longer than any machine takes.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Removes what benches of processes that are gone have left.
fn sweep() {
    for folder in ["/run/netns", "/sys/fs/bpf"] {
        for name in entries(Path::new(folder)) {
            let Some(owner) = name.strip_prefix(PREFIX).and_then(|rest| rest.split('x').next()) else { continue };
            let bench = name.split('-').next().unwrap_or(&name).to_owned();
            if !Path::new("/proc").join(owner).exists() {
                remove(&bench);
            }
        }
    }
}

fn remove(bench: &str) {
    for netns in entries(Path::new("/run/netns")) {
        if netns.split('-').next() == Some(bench) {
            let _gone = Command::new("ip").args(["netns", "del", &netns]).output();
        }
    }
    let _gone = fs::remove_dir_all(Path::new("/sys/fs/bpf").join(bench));
}
