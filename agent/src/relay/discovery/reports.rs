//! Who has just joined a group? Reads IGMP and MLD reports (RFC 3376, RFC 3810 and their elders), and tells a first report
//! from one that is repeated or that answers a router's question.
//!
//! A forged report makes somebody hear again what it may hear anyway, at a bounded pace.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{Family, Mac};

const ETHERNET: usize = 14;
/// The most group records of one report that are looked at.
const MOST_GROUPS: u16 = 64;
/// Reports of older versions come as answers, too, each quarter of an hour at the rarest that is usual.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(15);
/// A join is reported more than once, a second apart (RFC 3376 section 8.11); later it is another one, whose leave the
/// kernel has made one with it.
const REPEATED: Duration = Duration::from_secs(3);
/// How many joins are answered at once.
const MOST_JOINS: u8 = 3;
/// How long one of them takes to come back.
const JOIN_AGAIN: Duration = Duration::from_secs(5);
/// The most members that are remembered.
const MOST_MEMBERS: usize = 4096;

/// What a report says about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was joined just now.
    Joined,
    /// It was joined just now or long ago: older versions do not say.
    Reported,
    /// It was joined before.
    Present,
    /// It was left.
    Left,
}

/// A report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Whose.
    pub from: Mac,
    /// What it says.
    pub changes: Vec<(IpAddr, Change)>,
}

/// Reads the report in a frame; `None`: it is none, or it ends before what it announces.
pub fn read(frame: &[u8]) -> Option<Report> {
    let from = frame.get(6..12)?.try_into().ok()?;
    let packet = frame.get(ETHERNET..)?;
    let changes = match frame.get(12..ETHERNET)? {
        [0x08, 0x00] => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let is_igmp = *packet.get(9)? == 2 && header >= 20;
            igmp(packet.get(header..).filter(|_| is_igmp)?)?
        }
        // One hop-by-hop header of eight bytes, with the router alert in it (RFC 3810 section 5).
        [0x86, 0xdd] if packet.get(6) == Some(&0) && packet.get(40..42) == Some(&[58, 0]) => mld(packet.get(48..)?)?,
        _ => return None,
    };
    Some(Report { from, changes })
}

fn igmp(message: &[u8]) -> Option<Vec<(IpAddr, Change)>> {
    let group = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(message.get(at..at + 4)?).ok()?).into());
    match message.first()? {
        0x12 | 0x16 => Some(vec![(group(4)?, Change::Reported)]),
        0x17 => Some(vec![(group(4)?, Change::Left)]),
        0x22 => records(message, 4, group),
        _ => None,
    }
}

fn mld(message: &[u8]) -> Option<Vec<(IpAddr, Change)>> {
    let group = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(message.get(at..at + 16)?).ok()?).into());
    match message.first()? {
        131 => Some(vec![(group(8)?, Change::Reported)]),
        132 => Some(vec![(group(8)?, Change::Left)]),
        143 => records(message, 16, group),
        _ => None,
    }
}

/// The group records of IGMPv3 (RFC 3376 section 4.2) and MLDv2 (RFC 3810 section 5.2), which differ in their addresses'
/// length alone.
fn records(message: &[u8], length: usize, group: impl Fn(usize) -> Option<IpAddr>) -> Option<Vec<(IpAddr, Change)>> {
    let word = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
    let (mut at, mut changes) = (8, Vec::new());
    for _ in 0..word(6)?.min(MOST_GROUPS) {
        let (kind, auxiliary, sources) = (*message.get(at)?, *message.get(at + 1)?, word(at + 2)?);
        let change = match (kind, sources) {
            (1, 1..) | (2, _) => Some(Change::Present),
            (3, 0) => Some(Change::Left),
            (3..=5, _) => Some(Change::Joined),
            _ => None,
        };
        changes.extend(Some(group(at + 4)?).zip(change));
        at += 4 + length + usize::from(sources) * length + usize::from(auxiliary) * 4;
    }
    Some(changes)
}

/// Who is in a group, as far as reports say.
#[derive(Debug, Default)]
pub struct Joins {
    members: HashMap<(u32, Mac, Family), Member>,
}

#[derive(Debug)]
struct Member {
    is_in: bool,
    since: Duration,
    heard: Duration,
    left: u8,
    filled: Duration,
}

impl Joins {
    /// Takes what a report on the link with index `link` says of the group of `family`. True: it has joined just now, and
    /// nothing was said again to it too often lately.
    pub fn hear(&mut self, link: u32, from: Mac, family: Family, change: Change, now: Duration) -> bool {
        if self.members.len() >= MOST_MEMBERS {
            self.members.retain(|_, member| now < member.heard + JOIN_AGAIN * 2);
        }
        if self.members.len() >= MOST_MEMBERS {
            return false;
        }
        let fresh = Member { is_in: false, since: now, heard: now, left: MOST_JOINS, filled: now };
        let member = self.members.entry((link, from, family)).or_insert(fresh);
        let was_in = member.is_in && now < member.heard + FORGOTTEN_AFTER;
        (member.is_in, member.heard) = (change != Change::Left, now);
        let is_new = match change {
            Change::Joined => !was_in || now >= member.since + REPEATED,
            Change::Reported => !was_in,
            Change::Present | Change::Left => false,
        };
        if !is_new {
            return false;
        }
        member.since = now;
        while member.left < MOST_JOINS && now >= member.filled + JOIN_AGAIN {
            member.left += 1;
            member.filled += JOIN_AGAIN;
        }
        if member.left == MOST_JOINS {
            member.filled = now;
        }
        let may = member.left > 0;
        member.left = member.left.saturating_sub(1);
        may
    }

    /// Forgets everyone on a link but these.
    pub fn keep(&mut self, link: u32, members: &[Mac]) {
        self.members.retain(|(each, mac, _), _| *each != link || members.contains(mac));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Changes = Vec<(IpAddr, Change)>;

    const FROM: Mac = [2, 0, 0, 0, 0, 1];

    fn frame(kind: [u8; 2], packet: &[u8]) -> Vec<u8> {
        [&[1, 0, 0x5e, 0, 0, 22], FROM.as_slice(), &kind, packet].concat()
    }

    fn four(message: &[u8]) -> Vec<u8> {
        // The router alert makes the header 24 bytes (RFC 2113).
        let mut header = vec![0x46, 0xc0, 0, 0, 0, 0, 0x40, 0, 1, 2, 0, 0];
        header.extend([0; 8]);
        header.extend([0x94, 4, 0, 0]);
        frame([8, 0], &[header.as_slice(), message].concat())
    }

    fn six(message: &[u8]) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, 0, 1];
        header.extend([0; 32]);
        header.extend([58, 0, 5, 2, 0, 0, 1, 0]);
        frame([0x86, 0xdd], &[header.as_slice(), message].concat())
    }

    fn record(kind: u8, auxiliary: u8, sources: u16, group: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, auxiliary];
        record.extend(sources.to_be_bytes());
        record.extend(group);
        record.extend(vec![0; usize::from(sources) * group.len() + usize::from(auxiliary) * 4]);
        record
    }

    #[test]
    fn reports_of_all_versions_are_read() {
        let (mdns, other): (IpAddr, IpAddr) = ([224, 0, 0, 251].into(), [239, 1, 2, 3].into());
        let fb: IpAddr = "ff02::fb".parse().unwrap();
        let v3 = |count: u8, records: &[Vec<u8>]| {
            four(&[&[0x22, 0, 0, 0, 0, 0, 0, count], records.concat().as_slice()].concat())
        };
        let fb_bytes = "ff02::fb".parse::<Ipv6Addr>().unwrap().octets();
        let mld1 = |kind| six(&[&[kind, 0, 0, 0, 0, 0, 0, 0], fb_bytes.as_slice()].concat());
        let (at, els) = ([224, 0, 0, 251], [239, 1, 2, 3]);
        let rows: Vec<(&str, Vec<u8>, Option<Changes>)> = vec![
            ("v1", four(&[0x12, 0, 0, 0, 224, 0, 0, 251]), Some(vec![(mdns, Change::Reported)])),
            ("v2", four(&[0x16, 0, 0, 0, 224, 0, 0, 251]), Some(vec![(mdns, Change::Reported)])),
            ("v2 leave", four(&[0x17, 0, 0, 0, 224, 0, 0, 251]), Some(vec![(mdns, Change::Left)])),
            (
                "v3",
                v3(3, &[record(2, 0, 0, &els), record(4, 0, 0, &at), record(6, 0, 2, &els)]),
                Some(vec![(other, Change::Present), (mdns, Change::Joined)]),
            ),
            (
                "v3 with sources",
                v3(2, &[record(5, 1, 3, &els), record(3, 0, 0, &at)]),
                Some(vec![(other, Change::Joined), (mdns, Change::Left)]),
            ),
            ("v3 that lies", v3(2, &[record(4, 0, 0, &at)]), None),
            ("v3 cut off", v3(1, &[vec![4, 0, 0]]), None),
            ("a query", four(&[0x11, 0, 0, 0, 0, 0, 0, 0]), None),
            ("MLD 1", mld1(131), Some(vec![(fb, Change::Reported)])),
            ("MLD 1 done", mld1(132), Some(vec![(fb, Change::Left)])),
            (
                "MLD 2",
                six(&[&[143, 0, 0, 0, 0, 0, 0, 1], record(4, 0, 0, &fb_bytes).as_slice()].concat()),
                Some(vec![(fb, Change::Joined)]),
            ),
            ("MLD 2 that lies", six(&[143, 0, 0, 0, 0, 0, 0xff, 0xff]), None),
            ("nothing", vec![], None),
            ("ARP", frame([8, 6], &[0; 40]), None),
        ];
        for (what, frame, changes) in rows {
            let read = read(&frame);
            assert_eq!(read, changes.map(|changes| Report { from: FROM, changes }), "{what}");
            for length in 0..frame.len() {
                let _never_a_panic = super::read(&frame[..length]);
            }
        }
    }

    #[test]
    fn a_join_counts_once_until_it_is_left() {
        let mut joins = Joins::default();
        let mut hear =
            |change, seconds: u64| joins.hear(1, FROM, Family::V4, change, Duration::from_secs(100 + seconds));
        assert!(hear(Change::Joined, 0));
        assert!(!hear(Change::Joined, 1), "sent twice");
        assert!(!hear(Change::Present, 60) && !hear(Change::Reported, 120), "answers to a router");
        assert!(hear(Change::Joined, 150), "it has left and joined within one report");
        assert!(!hear(Change::Left, 200));
        assert!(hear(Change::Joined, 201), "again");
        assert!(!hear(Change::Left, 202));
        assert!(!hear(Change::Present, 203) && !hear(Change::Reported, 204), "it was in before we looked");
        assert!(hear(Change::Reported, 2000), "nobody is in for so long without a word");
    }

    #[test]
    fn who_joins_all_the_time_is_told_now_and_then() {
        let mut joins = Joins::default();
        let mut told = 0;
        for tenth in 0..1000 {
            let now = Duration::from_millis(tenth * 100);
            joins.hear(1, FROM, Family::V6, Change::Left, now);
            told += u32::from(joins.hear(1, FROM, Family::V6, Change::Joined, now));
        }
        assert!((20..=23).contains(&told), "{told} in 100 s");
        joins.keep(1, &[]);
        assert!(joins.members.is_empty());
    }
}
