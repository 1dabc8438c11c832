//! Everybody on a link at once: the host, the LAN and each pod, with sockets on every port of the golden tables.
//!
//! Messages carry a number, so that all can be sent first and each be counted where it came to. Judges nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use crate::bench::{Bench, Peer, Pod, mdns, silence};
use crate::frames::Wire;

const TAG: &str = "golden";
/// More than a frame holds, less than two.
const LONG: usize = 2000;

/// What came of one message.
#[derive(Clone, Default)]
pub(crate) struct Seen {
    /// How often each of the crowd heard it.
    pub(crate) heard: Vec<usize>,
    /// Its last frame at the host's link, on the LAN and at the first pod, and whether it was on its way out.
    pub(crate) host: Vec<(Vec<u8>, bool)>,
    pub(crate) lan: Vec<(Vec<u8>, bool)>,
    pub(crate) pod: Vec<(Vec<u8>, bool)>,
}

/// Everybody on a link: the host, the LAN, then the pods.
pub(crate) struct Crowd {
    peers: Vec<Vec<(u16, Peer)>>,
    /// At the host's link, on the LAN, at the first pod.
    wires: [Wire; 3],
    /// The messages since the last time, and the number of the first of them.
    seen: Vec<Seen>,
    first: usize,
    /// Whether somebody waited in vain already.
    is_deaf: bool,
}

impl Crowd {
    pub(crate) fn new(bench: &Bench, pods: &[Pod], groups: &[(IpAddr, u16)]) -> Self {
        let inside = pods.iter().map(|pod| (pod.netns.clone(), "net1".to_owned(), pod.address()));
        let ends = [(bench.host(), bench.uplink.clone(), 1), (bench.lan(), bench.wire.clone(), 2)];
        let ends = ends.map(|(netns, ifname, last)| (netns, ifname, Ipv4Addr::new(10, 77, 0, last)));
        let places: Vec<_> = ends.into_iter().chain(inside).collect();
        let wires = [0, 1, 2].map(|at: usize| Wire::open(&places[at].0, &places[at].1));
        let mut ports: Vec<u16> = groups.iter().map(|(_, port)| *port).collect();
        ports.sort_unstable();
        ports.dedup();
        let joined = |port: u16| {
            let of_port = groups.iter().filter(move |group| group.1 == port).map(|group| group.0);
            of_port.filter(IpAddr::is_multicast).collect::<Vec<_>>()
        };
        let peers = places.iter().map(|(netns, ifname, address)| {
            let peer = |port: &u16| (*port, Peer::on_port(netns, ifname, *address, *port, &joined(*port)));
            ports.iter().map(peer).collect()
        });
        Self { peers: peers.collect(), wires, seen: Vec::new(), first: 0, is_deaf: false }
    }

    /// Has one of the crowd say the next message.
    pub(crate) fn say(&mut self, from: usize, to: (IpAddr, u16), is_long: bool) {
        let filling = if is_long { ".".repeat(LONG) } else { String::new() };
        let message = mdns(0, &format!("{filling}{TAG}{:06}", self.first + self.seen.len()));
        let (_, peer) = self.peers[from].iter().find(|(port, _)| *port == to.1).unwrap();
        peer.send(to.0, to.1, &message);
        self.seen.push(Seen { heard: vec![0; self.peers.len()], ..Seen::default() });
    }

    /// Listens until as much was heard altogether, but not for ever.
    pub(crate) fn listen(&mut self, expected: usize) {
        let end = Instant::now() + silence() * 30;
        while self.take() < expected && !self.is_deaf {
            self.is_deaf = Instant::now() > end;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Listens until nothing more comes, and tells what became of each message since the last time.
    pub(crate) fn finish(&mut self) -> Vec<Seen> {
        std::thread::sleep(silence());
        self.take();
        self.is_deaf = false;
        self.first += self.seen.len();
        std::mem::take(&mut self.seen)
    }

    /// Takes what has come, and says how much was heard altogether.
    fn take(&mut self) -> usize {
        for (at, peer) in self.peers.iter().enumerate().flat_map(|(at, peers)| peers.iter().map(move |p| (at, &p.1))) {
            for number in peer.waiting().iter().filter_map(|message| number(message)) {
                // A message of an earlier round that comes late was missed there.
                if let Some(seen) = number.checked_sub(self.first).and_then(|at| self.seen.get_mut(at)) {
                    seen.heard[at] += 1;
                }
            }
        }
        for (at, wire) in self.wires.iter().enumerate() {
            for (frame, is_sent) in wire.passed() {
                let place = number(&frame).and_then(|number| number.checked_sub(self.first));
                let Some(seen) = place.and_then(|at| self.seen.get_mut(at)) else { continue };
                [&mut seen.host, &mut seen.lan, &mut seen.pod][at].push((frame, is_sent));
            }
        }
        self.seen.iter().flat_map(|seen| &seen.heard).sum()
    }
}

/// The number at the end of a message or frame.
fn number(bytes: &[u8]) -> Option<usize> {
    let tail = bytes.get(bytes.len().checked_sub(TAG.len() + 6)?..)?;
    std::str::from_utf8(tail).ok()?.strip_prefix(TAG)?.parse().ok()
}
