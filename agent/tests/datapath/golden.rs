//! The golden tables: who hears a discovery frame, how often, and what the wire carries of it.
//!
//! The tables are data; the matrix of modes, protocols, families, sizes and numbers of pods is made from them. What a run
//! finds amiss is sorted by the invariant that it breaks, and each invariant has a test of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;

use multus_agent::datapath::{Attached, Datapath, Mac, Settings};
use multus_ebpf_common::protocols::{PROTOCOLS, Protocol};

use crate::bench::{Bench, Pod, frames, link};
use crate::listeners::{Crowd, Seen};

/// Copies that the host, each other pod and the LAN hear.
type Copies = [usize; 3];

/// Who hears whom in one macvlan mode.
pub(crate) struct Table {
    mode: &'static str,
    /// Who speaks; the copies when the kernel is alone, and those with the relay.
    rows: [(Speaker, Copies, Copies); 3],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Host,
    Lan,
    Pod,
}

use Speaker::{Host, Lan};

/// A vepa pod hears its siblings through a switch that reflects frames; the LAN here does not.
#[rustfmt::skip]
pub(crate) const TABLES: [Table; 3] = [
    Table { mode: "bridge", rows: [
        //              the kernel  with the relay
        (Host,          [0, 0, 1],  [0, 1, 1]),
        (Lan,           [1, 1, 0],  [1, 1, 0]),
        (Speaker::Pod,  [0, 1, 1],  [1, 1, 1]),
    ] },
    Table { mode: "private", rows: [
        (Host,          [0, 0, 1],  [0, 1, 1]),
        (Lan,           [1, 1, 0],  [1, 1, 0]),
        (Speaker::Pod,  [0, 0, 1],  [1, 0, 1]),
    ] },
    Table { mode: "vepa", rows: [
        (Host,          [0, 0, 1],  [0, 1, 1]),
        (Lan,           [1, 1, 0],  [1, 1, 0]),
        (Speaker::Pod,  [0, 0, 1],  [1, 0, 1]),
    ] },
];

/// How messages to a group and port are relayed. Later fragments have no port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relayed {
    /// The group is one protocol's: fragments too.
    Whole,
    /// The group is several protocols': no fragment but the first.
    ByPort,
    /// The group is one protocol's and this is not its port: later fragments alone, of which nobody makes anything.
    Stray,
    Not,
}

use Relayed::{ByPort, Not, Stray, Whole};

/// What becomes of a message: how many of its frames are relayed, and whether the last and all of them are.
struct Fate {
    frames: u64,
    last: bool,
    all: bool,
}

impl Relayed {
    /// Of a message that fits one frame, or of a long one, which takes two.
    fn fate(self, is_long: bool) -> Fate {
        let (frames, last, all) = match (self, is_long) {
            (Whole, true) => (2, true, true),
            (Whole | ByPort, false) => (1, true, true),
            (ByPort, true) => (1, false, false),
            (Stray, true) => (1, true, false),
            (Stray, false) | (Not, _) => (0, false, false),
        };
        Fate { frames, last, all }
    }
}

/// Where messages go. Every protocol that is on by default is here, and what lies closest to them.
#[rustfmt::skip]
pub(crate) const GROUPS: &[(&str, &str, u16, Relayed)] = &[
    ("mdns",             "224.0.0.251",     5353, Whole),
    ("mdns",             "ff02::fb",        5353, Whole),
    ("mdns, other port", "224.0.0.251",     1900, Whole),
    ("ssdp",             "239.255.255.250", 1900, ByPort),
    ("ssdp",             "ff02::c",         1900, ByPort),
    ("ssdp",             "ff05::c",         1900, Whole),
    ("ssdp",             "255.255.255.255", 1900, Whole),
    ("wsd",              "239.255.255.250", 3702, ByPort),
    ("wsd",              "ff02::c",         3702, ByPort),
    ("coap",             "224.0.1.187",     5683, Whole),
    ("coap",             "ff02::fd",        5683, Whole),
    ("coap",             "ff05::fd",        5683, Whole),
    ("llmnr, off",       "224.0.0.252",     5353, Not),
    ("llmnr, off",       "ff02::1:3",       5353, Not),
    ("upnp, other port", "239.255.255.250", 5353, Not),
    ("wsd, other scope", "ff05::c",         3702, Stray),
    ("nobody's group",   "239.1.2.3",       1900, Not),
    ("broadcast",        "255.255.255.255", 5353, Stray),
];

/// What must hold of every relayed frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invariant {
    WireUnchanged,
    NoneReturns,
    OneCopyEach,
    NothingElseOnTheWire,
    OnlyAddressesDiffer,
    CountsAreFrames,
    LeavesNoTrace,
}

/// What was found that breaks an invariant.
#[derive(Default)]
pub(crate) struct Amiss(BTreeMap<Invariant, Vec<String>>);

impl Amiss {
    fn expect(&mut self, invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.entry(invariant).or_default().push(what());
        }
    }

    fn assert(&self, invariant: Invariant) {
        assert!(!self.0.contains_key(&invariant), "{:#?}", self.0);
    }

    pub(crate) fn assert_nothing(&self) {
        assert!(self.0.is_empty(), "{:#?}", self.0);
    }
}

/// A link with pods, everybody listening.
pub(crate) struct Lab {
    bench: Bench,
    pods: Vec<Pod>,
    crowd: Crowd,
    datapath: Datapath,
    attached: Vec<Attached>,
    /// The parent's and the first pod's.
    macs: (Mac, Mac),
}

/// One message and what it must do.
struct Message {
    what: String,
    speaker: Speaker,
    /// Its place in the crowd.
    from: usize,
    /// Copies for each of the crowd.
    copies: Vec<usize>,
    /// What the relay makes of it.
    fate: Fate,
}

impl Lab {
    /// `count` pods on the bench's uplink, with programs.
    pub(crate) fn new(mut bench: Bench, count: usize) -> Self {
        let pods: Vec<_> = (0..count).map(|_| bench.pod("bridge")).collect();
        let settings = Settings { slots: 80, ..bench.settings() };
        let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
        assert!(attached.iter().all(|one| one.relayed));
        let groups = GROUPS.iter().map(|(_, address, port, _)| (address.parse().unwrap(), *port));
        let crowd = Crowd::new(&bench, &pods, &groups.collect::<Vec<_>>());
        let macs = (bench.parent().mac, link(&pods[0].netns, "net1").1);
        Self { bench, pods, crowd, datapath, attached, macs }
    }

    /// Everybody's messages in one mode.
    pub(crate) fn examine(&mut self, table: &Table, amiss: &mut Amiss) {
        for pod in &self.pods {
            pod.set_mode(table.mode);
        }
        let before = self.counts();
        let (mut messages, mut counted) = (Vec::new(), [0; 3]);
        for (name, address, port, relayed) in GROUPS {
            let address: IpAddr = address.parse().unwrap();
            for is_long in [false, true] {
                for from in self.speakers() {
                    let fate = if self.attached.is_empty() { Not } else { *relayed }.fate(is_long);
                    let message = self.message(table, from, address, fate);
                    count(&mut counted, &message, self.pods.len());
                    let what = format!("{} {name} {address} port {port} long {is_long}", table.mode);
                    self.crowd.say(from, (address, *port), is_long);
                    messages.push(Message { what, ..message });
                }
                self.crowd.listen(messages.iter().flat_map(|message| &message.copies).sum());
            }
        }
        let seen = self.crowd.finish();
        for (message, seen) in messages.iter().zip(&seen) {
            self.judge(message, seen, amiss);
        }
        assert_eq!(seen.len(), messages.len());
        let now = self.counts();
        let counts: [u64; 3] = std::array::from_fn(|at| now[at] - before[at]);
        amiss.expect(Invariant::CountsAreFrames, counts == counted && now[3] == 0, || {
            format!("{}: from the host, from pods, copies: {counts:?}, expected {counted:?}", table.mode)
        });
    }

    /// Takes every program off again.
    pub(crate) fn detach(&mut self) {
        for attached in self.attached.drain(..) {
            self.bench.on_host(|| self.datapath.detach(&attached)).unwrap();
        }
    }

    /// The host, the LAN, and of the pods the first, the last, and those where a part of the fan-out ends.
    fn speakers(&self) -> Vec<usize> {
        let last = self.pods.len() - 1;
        let mut pods = vec![0, 63.min(last), 64.min(last), last];
        pods.dedup();
        [0, 1].into_iter().chain(pods.into_iter().map(|pod| pod + 2)).collect()
    }

    fn message(&self, table: &Table, from: usize, group: IpAddr, fate: Fate) -> Message {
        let speaker = [Host, Lan].get(from).copied().unwrap_or(Speaker::Pod);
        let (_, alone, relayed) = table.rows.iter().find(|(row, ..)| *row == speaker).unwrap();
        let [host, pod, lan] = if fate.all { relayed } else { alone };
        let mut copies = [vec![*host, *lan], vec![*pod; self.pods.len()]].concat();
        // The kernel hands a broadcast back to its own sender.
        copies[from] = usize::from(!group.is_multicast());
        Message { what: String::new(), speaker, from, copies, fate }
    }

    fn judge(&self, message: &Message, seen: &Seen, amiss: &mut Amiss) {
        let Message { what, speaker, from, copies, fate } = message;
        let what = |more: &str| format!("{what} from {from}: {more}");
        for (at, (heard, expected)) in seen.heard.iter().zip(copies).enumerate() {
            let invariant = if at == *from { Invariant::NoneReturns } else { Invariant::OneCopyEach };
            amiss.expect(invariant, heard == expected, || what(&format!("{at} heard {heard}, expected {expected}")));
        }
        let on_wire = incoming(&seen.lan, |_| true);
        amiss.expect(Invariant::NothingElseOnTheWire, on_wire.len() == usize::from(*speaker != Lan), || {
            what(&format!("{} frames", on_wire.len()))
        });
        let (parent, first) = self.macs;
        // Copies for pods pass the host's link on their way.
        let of_host = incoming(&seen.host, |frame| frame[0] & 1 == 1 || frame[..6] == parent.0);
        let of_pod = incoming(&seen.pod, |_| true);
        let [frame] = &on_wire[..] else { return };
        let receiver = match from {
            0 => Some((&of_host, &of_pod, first)),
            2 => Some((&of_pod, &of_host, parent)),
            _ => None,
        };
        let Some((own, copies, mac)) = receiver else { return };
        let sent: Vec<_> = seen.pod.iter().filter(|(_, is_sent)| *is_sent).map(|(frame, _)| frame.clone()).collect();
        amiss.expect(Invariant::WireUnchanged, frame[0] & 1 == 1 && (*from == 0 || sent == on_wire), || {
            what(&format!("sent {}, on the wire {}", hex(&sent), hex(&on_wire)))
        });
        amiss.expect(Invariant::NoneReturns, own.is_empty(), || what(&format!("came back: {}", hex(own))));
        let expected = fate.last.then(|| [&mac.0[..], &frame[6..]].concat());
        amiss.expect(Invariant::OnlyAddressesDiffer, copies.iter().eq(&expected), || {
            what(&format!("copies {} of {} for {mac}", hex(copies), hex(&on_wire)))
        });
    }

    /// Frames of the host and of pods that were relayed, copies, and frames that should have been.
    fn counts(&self) -> [u64; 4] {
        let counts = self.datapath.relay_counters().unwrap();
        let relayed = |path| frames(&counts, path, "relayed");
        let lost = ["failed", "fanout_full"].map(|why| ["host_to_pod", "pod_to_host"].map(|p| frames(&counts, p, why)));
        let copies = counts.iter().map(|count| count.copies).sum();
        [relayed("host_to_pod"), relayed("pod_to_host"), copies, lost.as_flattened().iter().sum()]
    }
}

fn incoming(frames: &[(Vec<u8>, bool)], is_for: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    frames.iter().filter(|(frame, is_sent)| !is_sent && is_for(frame)).map(|(frame, _)| frame.clone()).collect()
}

fn hex(frames: &[Vec<u8>]) -> String {
    let frame = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    frames.iter().map(frame).collect::<Vec<_>>().join(" ")
}

/// Adds what the relay must count for a message.
fn count(counted: &mut [u64; 3], message: &Message, pods: usize) {
    let frames = message.fate.frames;
    match message.speaker {
        Host => {
            counted[0] += frames;
            counted[2] += frames * u64::try_from(pods).unwrap();
        }
        Speaker::Pod => {
            counted[1] += frames;
            counted[2] += frames;
        }
        Lan => {}
    }
}

/// All modes with programs, then without them.
fn run(count: usize) -> Amiss {
    let mut lab = Lab::new(Bench::new(), count);
    let mut amiss = Amiss::default();
    for table in &TABLES {
        lab.examine(table, &mut amiss);
    }
    lab.detach();
    let left = lab.bench.leftovers();
    amiss.expect(Invariant::LeavesNoTrace, left.is_empty(), || format!("{left:?}"));
    let mut after = Amiss::default();
    for table in &TABLES {
        lab.examine(table, &mut after);
    }
    amiss.expect(Invariant::LeavesNoTrace, after.0.is_empty(), || format!("{:#?}", after.0));
    amiss
}

fn two_pods() -> &'static Amiss {
    static AMISS: OnceLock<Amiss> = OnceLock::new();
    AMISS.get_or_init(|| run(2))
}

#[test]
fn the_frame_on_the_wire_is_the_one_that_was_sent() {
    two_pods().assert(Invariant::WireUnchanged);
}

#[test]
fn no_copy_returns_to_its_sender() {
    two_pods().assert(Invariant::NoneReturns);
}

#[test]
fn each_receiver_hears_exactly_one_copy() {
    two_pods().assert(Invariant::OneCopyEach);
}

#[test]
fn nothing_relayed_is_on_the_wire() {
    two_pods().assert(Invariant::NothingElseOnTheWire);
}

#[test]
fn a_copy_differs_in_its_destination_alone() {
    two_pods().assert(Invariant::OnlyAddressesDiffer);
}

#[test]
fn counts_are_frames() {
    two_pods().assert(Invariant::CountsAreFrames);
}

#[test]
fn without_the_programs_all_is_as_before() {
    two_pods().assert(Invariant::LeavesNoTrace);
}

#[test]
fn the_tables_hold_for_one_pod() {
    run(1).assert_nothing();
}

#[test]
fn the_tables_hold_for_seventy_pods() {
    run(70).assert_nothing();
}

#[test]
fn every_protocol_that_is_on_is_in_the_tables() {
    let on = || PROTOCOLS.iter().filter(|protocol| protocol.on);
    for protocol in on() {
        for group in protocol.groups {
            let address = IpAddr::V6(group.addr.into()).to_canonical().to_string();
            let has_group = |other: &&Protocol| other.groups.iter().any(|of_other| of_other.addr == group.addr);
            let is_its_own = on().filter(has_group).count() == 1;
            let relayed = if is_its_own { Whole } else { ByPort };
            let mut rows = GROUPS.iter().filter(|(name, ..)| *name == protocol.name);
            let is_listed = |row: &(_, &str, u16, _)| {
                row.1 == address && row.3 == relayed && (group.port == 0 || row.2 == group.port)
            };
            assert!(rows.any(is_listed), "{} to {address}", protocol.name);
        }
    }
}
