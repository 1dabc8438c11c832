//! The golden tables: who hears a discovery frame, how often, and what the wire carries of it.
//!
//! The tables are data; the matrix of modes, protocols, families, sizes and numbers of pods is made from them. Each
//! invariant of the relay has a test of its own.

use std::net::IpAddr;
use std::sync::OnceLock;

use multus_ebpf_common::protocols::{PROTOCOLS, Protocol};

use crate::bench::Bench;
use crate::lab::{Amiss, Invariant, Lab};

/// Copies that the host, each other pod and the LAN hear.
pub(crate) type Copies = [usize; 3];

/// Who hears whom in one macvlan mode.
pub(crate) struct Table {
    pub(crate) mode: &'static str,
    /// Who speaks; the copies when the kernel is alone, and those with the relay.
    pub(crate) rows: [(Speaker, Copies, Copies); 3],
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
pub(crate) struct Fate {
    pub(crate) frames: u64,
    pub(crate) last: bool,
    pub(crate) all: bool,
}

impl Relayed {
    /// Of a message that fits one frame, or of a long one, which takes two.
    pub(crate) fn fate(self, is_long: bool) -> Fate {
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

/// All modes with programs, then when some have left, then without them.
fn run(count: usize) -> Amiss {
    let mut lab = Lab::new(Bench::new(), count);
    let mut amiss = Amiss::default();
    for table in &TABLES {
        lab.examine(table, &mut amiss);
    }
    if count > 1 {
        for pod in [count / 2, count - 1] {
            lab.leave(pod);
        }
        lab.examine(&TABLES[0], &mut amiss);
    }
    (0..count).for_each(|pod| lab.leave(pod));
    let left = lab.bench.leftovers();
    amiss.expect(Invariant::LeavesNoTrace, left.is_empty(), || format!("{left:?}"));
    let mut after = Amiss::default();
    for table in &TABLES {
        lab.examine(table, &mut after);
    }
    amiss.expect(Invariant::LeavesNoTrace, after.is_empty(), || format!("{after:#?}"));
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
