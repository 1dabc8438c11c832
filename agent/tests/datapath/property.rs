//! Do the loaded programs do with any frame what the model of the rules says? Random frames through the kernel's test run:
//! verdict, bytes, mark, copies and counters.
//!
//! `MULTUS_SEED` repeats a run, `MULTUS_FRAMES` makes it shorter or longer.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aya::maps::{Array, Map, MapData};
use multus_agent::datapath::{
    Attached, Attachment, Custom, Datapath, Guard, Parent, ProtocolSet, RelayCount, Settings,
};
use multus_agent::objects::HostAccess;

use crate::bench::{Bench, MARK, ip, link, netns_path, output};
use crate::frames::Wire;
use crate::model::random::{Dice, is_runnable, received, transmitted};
use crate::model::{Counter, GuardModel, Input, Model, Outcome, Pod};
use crate::trial::Trial;

const PORTS: [u16; 3] = [80, 5000, 5353];
/// How many frames go between two looks at the counters.
const BATCH: usize = 1000;
/// A machine of software is done after this long, however many frames that was.
const LONG: Duration = Duration::from_mins(1);
/// But for these.
const FEWEST: usize = 5000;

fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = env::var("MULTUS_SEED").map_or(u64::from(now.subsec_nanos()), |text| text.parse().unwrap());
    println!("MULTUS_SEED={seed}");
    seed
}

fn frames_to_try(default: usize) -> usize {
    env::var("MULTUS_FRAMES").map_or(default, |text| text.parse().unwrap())
}

/// A parent where nobody speaks of their own accord, and pods of every kind behind it.
struct Stage {
    bench: Bench,
    datapath: Datapath,
    model: Model,
    parent: Parent,
    _attached: Vec<Attached>,
}

fn stage(guard: Guard) -> Stage {
    let mut bench = Bench::new();
    let host = bench.host();
    ip(&[
        "-n",
        &host,
        "link",
        "add",
        "eth1",
        "mtu",
        "9000",
        "type",
        "veth",
        "peer",
        "name",
        "wire1",
        "netns",
        &bench.lan(),
    ]);
    let silent = |netns: &str| {
        let net = format!("--net={}", netns_path(netns).display());
        output(
            "nsenter",
            &[&net, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv4.conf.all.arp_ignore=8"],
        );
    };
    "eth1".clone_into(&mut bench.uplink);
    silent(&host);
    silent(&bench.lan());
    ip(&["-n", &bench.lan(), "link", "set", "wire1", "mtu", "9000", "up"]);
    ip(&["-n", &host, "link", "set", "eth1", "up"]);
    let all = ProtocolSet::all();
    let some = ProtocolSet::of(&["mdns", "ssdp", "knx"]).unwrap();
    let group =
        Custom { name: "beacons".to_owned(), v4: "239.9.9.9".parse().ok(), v6: "ff05::1234".parse().ok(), port: 5000 };
    let settings = Settings { protocols: all, custom: vec![group], guard, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let (ifindex, mac) = link(&host, "eth1");
    let parent = Parent { ifindex, name: "eth1".to_owned(), mac };
    let ports = PORTS.iter().map(|port| multus_agent::objects::PortRange::new(*port, *port).unwrap()).collect();
    let beacons = datapath.protocols(&["beacons"]).unwrap();
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let every = multus_agent::config::PROTOCOLS;
    let most: Vec<&str> = every.into_iter().filter(|name| *name != "llmnr" && *name != "miio").collect();
    let kinds = [
        (some, names(&["mdns", "ssdp", "knx"]), Some(HostAccess { ports: Some(ports) })),
        (some.union(beacons), names(&["mdns", "ssdp", "knx", "beacons"]), Some(HostAccess { ports: None })),
        (ProtocolSet::NONE, names(&[]), None),
        (ProtocolSet::of(&most).unwrap(), names(&most), None),
    ];
    let (mut pods, mut attached) = (Vec::new(), Vec::new());
    for (protocols, named, host_access) in kinds {
        let pod = bench.pod("private");
        silent(&pod.netns);
        let has_access = host_access.is_some();
        let ports = host_access.as_ref().and_then(|access| access.ports.as_ref()).map(|_| PORTS.to_vec());
        let attachment = Attachment { parent: Some(parent.clone()), protocols, host_access, ..bench.attachment(&pod) };
        let one = bench.on_host(|| datapath.attach(&attachment)).unwrap();
        pods.push(Pod { mac: attachment.mac, instance: one.instance, protocols: named, has_access, ports });
        attached.push(one);
    }
    let model = Model { parent: parent.mac, pods, marks: (MARK.value, MARK.mask), talks: BTreeSet::new() };
    Stage { bench, datapath, model, parent, _attached: attached }
}

fn id_of(datapath: &Datapath, name: &str) -> u32 {
    datapath.facts().programs.iter().find(|fact| fact.name == name).unwrap().id
}

type Counts = BTreeMap<Counter, (u64, u64)>;

fn counts(relay: Vec<RelayCount>) -> Counts {
    let counts = relay.into_iter().map(|c| ((c.protocol, c.path, c.reason), (c.frames, c.copies)));
    counts.filter(|(_, count)| *count != (0, 0)).collect()
}

fn expect(counts: &mut Counts, outcome: &Outcome) {
    let Some((counter, copies)) = &outcome.count else { return };
    let count = counts.entry(counter.clone()).or_default();
    count.0 += 1;
    count.1 += copies;
}

const NEXT: i32 = -1;
const REDIRECT: i32 = 7;

/// Runs one frame and compares everything but the counters.
fn compare(egress: &Trial, tap: &Wire, parent: u32, input: &Input, outcome: &Outcome) -> Result<(), String> {
    let ran = egress.packet(parent, input);
    let mut faults = String::new();
    let answer = if outcome.redirected { REDIRECT } else { NEXT };
    if ran.answer != answer {
        let _ = write!(faults, "answer {} and not {answer}; ", ran.answer);
    }
    if ran.frame != input.frame {
        let _ = write!(faults, "the frame is another one afterwards: {:02x?}; ", ran.frame);
    }
    if ran.mark != outcome.mark {
        let _ = write!(faults, "mark {:#x} and not {:#x}; ", ran.mark, outcome.mark);
    }
    let mut copies = tap.take(outcome.copies.len());
    for (at, mac) in outcome.copies.iter().enumerate() {
        let mut copy = input.frame.clone();
        copy[..6].copy_from_slice(&mac.0);
        if copies.get(at) != Some(&copy) {
            let _ = write!(faults, "copy {at} is {:02x?}; ", copies.get(at));
        }
    }
    for copy in copies.split_off(outcome.copies.len().min(copies.len())) {
        let _ = write!(faults, "a copy too many: {copy:02x?}; ");
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// The frame of a batch after which the counters were not what they should be.
fn culprit(stage: &Stage, egress: &Trial, tap: &Wire, batch: &[(Input, Outcome)]) -> String {
    for (input, outcome) in batch {
        let mut expected = counts(stage.datapath.relay_counters().unwrap());
        expect(&mut expected, outcome);
        let _compared_before = compare(egress, tap, stage.parent.ifindex, input, outcome);
        let found = counts(stage.datapath.relay_counters().unwrap());
        if found != expected {
            return format!("{input:02x?}\nshould be {outcome:?}\nbut {}", difference(&expected, &found));
        }
    }
    "no single frame does it again".to_owned()
}

fn difference(expected: &Counts, found: &Counts) -> String {
    let keys: BTreeSet<&Counter> = expected.keys().chain(found.keys()).collect();
    let differing = keys.into_iter().filter(|key| expected.get(*key) != found.get(*key));
    let lines = differing.map(|key| format!("{key:?}: {:?} and not {:?}", found.get(key), expected.get(key)));
    lines.collect::<Vec<_>>().join("; ")
}

#[test]
fn every_frame_that_leaves_gets_what_the_rules_say() {
    let (seed, frames) = (seed(), frames_to_try(100_000));
    let mut stage = stage(Guard::Off);
    let egress = Trial::of(id_of(&stage.datapath, "parent_egress"));
    let tap = Wire::open(&stage.bench.host(), "eth1");
    let host = stage.bench.host();
    crate::bench::within(&host, || {
        let mut dice = Dice::new(seed);
        let mut tally: BTreeMap<Counter, u64> = BTreeMap::new();
        let started = Instant::now();
        let mut tried = 0;
        for number in 0..frames.div_ceil(BATCH) {
            if started.elapsed() > LONG && tried >= FEWEST {
                break;
            }
            tried += BATCH;
            let before = counts(stage.datapath.relay_counters().unwrap());
            let (mut expected, mut batch) = (before, Vec::new());
            for at in 0..BATCH {
                let input = transmitted(&mut dice, &stage.model);
                let outcome = stage.model.transmit(&input);
                let compared = compare(&egress, &tap, stage.parent.ifindex, &input, &outcome);
                if let Err(faults) = compared {
                    panic!("seed {seed}, frame {}: {faults}\n{input:02x?}\nshould be {outcome:?}", number * BATCH + at);
                }
                expect(&mut expected, &outcome);
                if let Some((counter, _)) = &outcome.count {
                    *tally.entry(counter.clone()).or_default() += 1;
                }
                batch.push((input, outcome));
            }
            let found = counts(stage.datapath.relay_counters().unwrap());
            if found != expected {
                let culprit = culprit(&stage, &egress, &tap, &batch);
                panic!("seed {seed}, batch {number}: {}\n{culprit}", difference(&expected, &found));
            }
        }
        // A model that never says "relayed" would agree with a program that does nothing.
        let reasons: BTreeSet<_> = tally.keys().map(|(_, path, reason)| (*path, *reason)).collect();
        println!("{tried} frames: {reasons:?}");
        if tried >= 20_000 {
            assert!(reasons.len() >= 21, "{reasons:?}");
        }
    });
}

/// Whether a program drops a frame that comes in on a parent.
type Drops = fn(&Trial, u32, &[u8]) -> bool;

fn guarded(guard: Guard, name: &str, drops: Drops) {
    // Buckets that are never filled again make the outcome a matter of counting.
    const BURST: u32 = 20;
    const INTERVAL: u64 = 1 << 55;
    let (seed, frames) = (seed(), frames_to_try(30_000));
    let stage = stage(guard);
    let mut limits = open_array(&stage.bench.bpffs.join("v2/maps/guard_limits"));
    for protocol in 0..31 {
        limits.set(protocol, [INTERVAL, INTERVAL * u64::from(BURST - 1)], 0).unwrap();
    }
    let relayed = stage.model.pods.iter().flat_map(|pod| pod.protocols.clone()).collect();
    let mut model = GuardModel { relayed, burst: BURST, sent: BTreeMap::new() };
    let trial = Trial::of(id_of(&stage.datapath, name));
    crate::bench::within(&stage.bench.host(), || {
        let mut dice = Dice::new(seed);
        let mut expected: BTreeMap<(String, &str), u64> = BTreeMap::new();
        let started = Instant::now();
        let mut tried = 0;
        for number in 0..frames {
            if started.elapsed() > LONG && tried >= FEWEST {
                break;
            }
            tried += 1;
            let frame = received(&mut dice, &stage.model);
            if !is_runnable(&frame) {
                continue;
            }
            let outcome = model.receive(&frame);
            let is_dropped = outcome.as_ref().is_some_and(|(_, reason)| *reason == "rate");
            let drops = drops(&trial, stage.parent.ifindex, &frame);
            assert_eq!(drops, is_dropped, "seed {seed}, frame {number}: {outcome:?} {frame:02x?}");
            if let Some(counter) = outcome {
                *expected.entry(counter).or_default() += 1;
            }
        }
        let counts = stage.datapath.guard_counters().unwrap().into_iter();
        let found: BTreeMap<_, _> =
            counts.filter(|c| c.frames > 0).map(|c| ((c.protocol, c.reason), c.frames)).collect();
        assert_eq!(found, expected, "seed {seed}");
        println!("{tried} frames: {found:?}");
        let reasons: BTreeSet<&str> = found.keys().map(|(_, reason)| *reason).collect();
        assert!(tried < 20_000 || reasons == BTreeSet::from(["", "rate", "probe", "goodbye"]), "{reasons:?}");
    });
}

fn open_array(path: &Path) -> Array<MapData, [u64; 2]> {
    Array::try_from(Map::Array(MapData::from_pin(path).unwrap())).unwrap()
}

#[test]
fn every_frame_that_comes_in_is_guarded_as_the_rules_say_in_tc() {
    guarded(Guard::Tc, "parent_ingress", |trial, parent, frame| {
        let ran = trial.packet(parent, &Input { frame: frame.to_vec(), mark: 0, segments: 0, forwarded: false });
        assert_eq!(ran.frame, frame);
        assert!([-1, 2].contains(&ran.answer), "{}", ran.answer);
        ran.answer == 2
    });
}

#[test]
fn every_frame_that_comes_in_is_guarded_as_the_rules_say_in_xdp() {
    guarded(Guard::Xdp, "parent_guard", |trial, _parent, frame| {
        let ran = trial.buffer(frame);
        assert_eq!(ran.frame, frame);
        assert!([1, 2].contains(&ran.answer), "{}", ran.answer);
        ran.answer == 1
    });
}
