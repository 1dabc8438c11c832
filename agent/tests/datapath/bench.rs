//! The bench: a host, its LAN and pods as network namespaces, with sockets that count what they hear.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, id};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use multus_agent::datapath::{
    AttachMode, Attached, Attachment, Datapath, Guard, Mac, Mark, Method, Mode, Parent, ProtocolSet, RelayCount,
    Settings,
};
use multus_agent::objects::HostAccess;
use multus_agent::sys::netns;
use multus_ebpf_common::LAYOUT;

pub(crate) const MDNS_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
pub(crate) const MDNS_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
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

/// Someone with mDNS sockets of both families on one interface.
pub(crate) struct Peer {
    v4: UdpSocket,
    v6: UdpSocket,
    ifindex: u32,
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Peer {
    pub(crate) fn new(netns: &str, ifname: &str, address: Ipv4Addr) -> Self {
        Self::on_port(netns, ifname, address, 5353, &[MDNS_V4.into(), MDNS_V6.into()])
    }

    pub(crate) fn on_port(netns: &str, ifname: &str, address: Ipv4Addr, port: u16, groups: &[IpAddr]) -> Self {
        within(netns, || {
            let ifindex = netns::interface_index(ifname).unwrap();
            wait_for_link_local(ifname);
            let v4 = bind((Ipv4Addr::UNSPECIFIED, port).into());
            v4.set_multicast_loop_v4(false).unwrap();
            v4.set_multicast_ttl_v4(255).unwrap();
            v4.set_broadcast(true).unwrap();
            // A second wildcard socket beside the IPv4 one must be IPv6 only, which std does not set; the sysctl does.
            let v6 = bind((Ipv6Addr::UNSPECIFIED, port).into());
            v6.set_multicast_loop_v6(false).unwrap();
            for group in groups {
                match group {
                    IpAddr::V4(group) => v4.join_multicast_v4(group, &address).unwrap(),
                    IpAddr::V6(group) => v6.join_multicast_v6(group, ifindex).unwrap(),
                }
            }
            Self { v4, v6, ifindex }
        })
    }

    /// Sends an mDNS query that carries `tag`.
    pub(crate) fn query(&self, family: Family, tag: &str) {
        match family {
            Family::V4 => self.send(IpAddr::V4(MDNS_V4), 5353, &mdns(0, tag)),
            Family::V6 => self.send(IpAddr::V6(MDNS_V6), 5353, &mdns(0, tag)),
        }
    }

    pub(crate) fn send(&self, group: IpAddr, port: u16, payload: &[u8]) {
        match group {
            IpAddr::V4(group) => self.v4.send_to(payload, (group, port)).unwrap(),
            IpAddr::V6(group) => {
                self.v6.send_to(payload, SocketAddr::V6(SocketAddrV6::new(group, port, 0, self.ifindex))).unwrap()
            }
        };
    }

    /// The datagrams that have come; waits for none.
    pub(crate) fn waiting(&self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 4096];
        let mut all = Vec::new();
        for socket in [&self.v4, &self.v6] {
            socket.set_nonblocking(true).unwrap();
            while let Ok(length) = socket.recv(&mut buffer) {
                all.push(buffer[..length].to_vec());
            }
            socket.set_nonblocking(false).unwrap();
        }
        all
    }

    /// The datagrams that come until none has come for a while.
    pub(crate) fn tally(&self, family: Family) -> Vec<Vec<u8>> {
        let socket = if family == Family::V4 { &self.v4 } else { &self.v6 };
        socket.set_read_timeout(Some(silence())).unwrap();
        let (mut buffer, mut all) = ([0; 2048], Vec::new());
        loop {
            match socket.recv_from(&mut buffer) {
                Ok((length, _)) => all.push(buffer[..length].to_vec()),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return all,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("receive: {error}"),
            }
        }
    }

    /// How many datagrams that end with `tag` have come; waits until none has come for a while.
    pub(crate) fn heard(&self, family: Family, tag: &str) -> usize {
        self.tally(family).iter().filter(|message| message.ends_with(tag.as_bytes())).count()
    }
}

impl Peer {
    /// The tags of all datagrams of both families that have come and carry one, sorted; waits until none comes for a while.
    pub(crate) fn tags(&self, prefix: &str) -> Vec<String> {
        let mut tags = Vec::new();
        for socket in [&self.v4, &self.v6] {
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut buffer = [0; 2048];
            loop {
                match socket.recv_from(&mut buffer) {
                    Ok((length, _)) => {
                        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                        tags.extend(text.find(prefix).map(|at| text[at..].to_owned()));
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => panic!("receive: {error}"),
                }
            }
        }
        tags.sort();
        tags
    }
}

/// Sends a datagram to a broadcast address from an address of the namespace.
pub(crate) fn broadcast(netns: &str, from: Ipv4Addr, to: (Ipv4Addr, u16), payload: &[u8]) {
    within(netns, || {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.send_to(payload, to).unwrap();
    });
}

/// An mDNS message with these flags, no records, and a tag behind the header.
pub(crate) fn mdns(flags: u16, tag: &str) -> Vec<u8> {
    let [high, low] = flags.to_be_bytes();
    let mut message = vec![0, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(tag.as_bytes());
    message
}

/// The frames of one relay counter, summed over protocols.
pub(crate) fn frames(counts: &[RelayCount], path: &str, outcome: &str) -> u64 {
    let is = |count: &&RelayCount| {
        count.path == path && (count.reason == outcome || (count.reason.is_empty() && count.verdict == outcome))
    };
    counts.iter().filter(is).map(|count| count.frames).sum()
}

pub(crate) fn within<T: Send>(netns: &str, work: impl FnOnce() -> T + Send) -> T {
    netns::inside(&netns_path(netns), work).unwrap()
}

pub(crate) fn netns_path(netns: &str) -> PathBuf {
    Path::new("/run/netns").join(netns)
}

/// Index and MAC of an interface.
pub(crate) fn link(netns: &str, ifname: &str) -> (u32, Mac) {
    let shown: serde_json::Value =
        serde_json::from_str(&output("ip", &["-n", netns, "-j", "link", "show", ifname])).unwrap();
    let index = u32::try_from(shown[0]["ifindex"].as_u64().unwrap()).unwrap();
    (index, shown[0]["address"].as_str().unwrap().parse().unwrap())
}

pub(crate) fn ip(arguments: &[&str]) {
    output("ip", arguments);
}

/// Standard output of a command that must succeed.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{program} {}: {words}", arguments.join(" "));
    String::from_utf8(done.stdout).unwrap()
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

/// A socket on a port that a socket just closed may still have: a program that another test starts at that moment holds
/// a copy of each descriptor until it runs.
pub(crate) fn bind(address: SocketAddr) -> UdpSocket {
    let mut bound = None;
    wait_until(&format!("{address} is free"), || match UdpSocket::bind(address) {
        Ok(socket) => bound.replace(socket).is_none(),
        Err(error) if error.kind() == ErrorKind::AddrInUse => false,
        Err(error) => panic!("bind to {address}: {error}"),
    });
    bound.unwrap()
}

/// The kernel gives it once the link has a carrier and can send.
fn wait_for_link_local(ifname: &str) {
    const TENTATIVE: u32 = 0x40;
    wait_until(&format!("{ifname} has its link-local address"), || {
        // "fe80…80 index prefix scope flags name", hexadecimal (Documentation/filesystems/proc.rst).
        let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let mut rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.any(|row| {
            let flags = u32::from_str_radix(row[4], 16).unwrap();
            row[0].starts_with("fe80") && row[5] == ifname && flags & TENTATIVE == 0
        })
    });
}

fn make_netns(netns: &str) {
    ip(&["netns", "add", netns]);
    within(netns, || {
        for name in ["conf/all/accept_dad", "conf/default/accept_dad"] {
            fs::write(format!("/proc/sys/net/ipv6/{name}"), "0").unwrap();
        }
        fs::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
    });
    ip(&["-n", netns, "link", "set", "lo", "up"]);
}

/// Gives an interface an address, and the groups to send to.
pub(crate) fn address(netns: &str, ifname: &str, address: &str) {
    let steps = [
        format!("link set {ifname} up"),
        format!("addr add {address} dev {ifname}"),
        format!("route replace 224.0.0.0/4 dev {ifname}"),
        format!("route replace 255.255.255.255 dev {ifname}"),
    ];
    ip_batch(netns, &steps);
}

/// Several commands of `ip` in one namespace, by one program.
pub(crate) fn ip_batch(netns: &str, steps: &[String]) {
    let mut program = Command::new("ip");
    program.args(["-n", netns, "-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = program.spawn().unwrap();
    running.stdin.take().unwrap().write_all(steps.join("\n").as_bytes()).unwrap();
    let done = running.wait_with_output().unwrap();
    assert!(done.status.success(), "ip {steps:?}: {}", String::from_utf8_lossy(&done.stderr));
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
