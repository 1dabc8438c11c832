//! A link with pods under examination: everybody speaks, and what came of it is held against the golden tables.
//!
//! What a run finds amiss is sorted by the invariant that it breaks.

use std::collections::BTreeMap;
use std::net::IpAddr;

use multus_agent::datapath::{Attached, Datapath, Mac, Settings};

use crate::bench::{Bench, Pod, frames, link};
use crate::golden::{Fate, GROUPS, Relayed, Speaker, Table};
use crate::listeners::{Crowd, Seen};

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
#[derive(Debug, Default)]
pub(crate) struct Amiss(BTreeMap<Invariant, Vec<String>>);

impl Amiss {
    pub(crate) fn expect(&mut self, invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.0.entry(invariant).or_default().push(what());
        }
    }

    pub(crate) fn assert(&self, invariant: Invariant) {
        assert!(!self.0.contains_key(&invariant), "{:#?}", self.0);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn assert_nothing(&self) {
        assert!(self.is_empty(), "{:#?}", self.0);
    }
}

/// A link with pods, everybody listening.
pub(crate) struct Lab {
    pub(crate) bench: Bench,
    pods: Vec<Pod>,
    crowd: Crowd,
    datapath: Datapath,
    /// By pod; `None`: it has no programs any more.
    attached: Vec<Option<Attached>>,
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
        let attached = attached.into_iter().map(Some).collect();
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
                    let message = self.message(table, from, address, (*relayed, is_long));
                    count(&mut counted, &message, self.joined());
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

    /// Takes a pod's programs off again.
    pub(crate) fn leave(&mut self, pod: usize) {
        if let Some(attached) = self.attached[pod].take() {
            self.bench.on_host(|| self.datapath.detach(&attached)).unwrap();
        }
    }

    /// How many pods have programs.
    fn joined(&self) -> usize {
        self.attached.iter().flatten().count()
    }

    /// The host, the LAN, and of the pods the first, the last, and those where a part of the fan-out ends.
    fn speakers(&self) -> Vec<usize> {
        let last = self.pods.len() - 1;
        let mut pods = vec![0, 63.min(last), 64.min(last), last];
        pods.dedup();
        [0, 1].into_iter().chain(pods.into_iter().map(|pod| pod + 2)).collect()
    }

    fn message(&self, table: &Table, from: usize, group: IpAddr, (relayed, is_long): (Relayed, bool)) -> Message {
        let speaker = [Speaker::Host, Speaker::Lan].get(from).copied().unwrap_or(Speaker::Pod);
        let has_left = from.checked_sub(2).is_some_and(|pod| self.attached[pod].is_none());
        let fate = if self.joined() == 0 || has_left || speaker == Speaker::Lan { Relayed::Not } else { relayed }
            .fate(is_long);
        let (_, alone, joined) = table.rows.iter().find(|(row, ..)| *row == speaker).unwrap();
        let [host, pod, lan] = if fate.all { joined } else { alone };
        let pods = self.attached.iter().map(|attached| if attached.is_some() { *pod } else { alone[1] });
        let mut copies: Vec<_> = [*host, *lan].into_iter().chain(pods).collect();
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
        amiss.expect(Invariant::NothingElseOnTheWire, on_wire.len() == usize::from(*speaker != Speaker::Lan), || {
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
    frames.iter().map(|frame| format!("{frame:02x?}").replace(", ", "")).collect::<Vec<_>>().join(" ")
}

/// Adds what the relay must count for a message.
fn count(counted: &mut [u64; 3], message: &Message, pods: usize) {
    let frames = message.fate.frames;
    match message.speaker {
        Speaker::Host => {
            counted[0] += frames;
            counted[2] += frames * u64::try_from(pods).unwrap();
        }
        Speaker::Pod => {
            counted[1] += frames;
            counted[2] += frames;
        }
        Speaker::Lan => {}
    }
}
