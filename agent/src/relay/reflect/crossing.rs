//! One frame, from the link that it came from to those that it goes to; one answer, to whoever asked. Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::counts::{Path, Reason};
use super::datagram::{self, Datagram, group_mac, is_link_local};
use super::protocol::Purpose;
use super::{Action, Asker, Channel, Heard, Link, LinkId, Protocol, Reflector, Role, message};

/// The hop limit of mDNS (RFC 6762 section 11).
const HOPS: u8 = 255;

/// What a frame is to other links.
struct Crossing<'a> {
    protocol: Protocol,
    from: Link,
    datagram: Datagram<'a>,
    /// As it reads there.
    payload: Vec<u8>,
    kind: Kind,
    /// This machine sent it.
    outgoing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everybody hears everything: questions and answers in the group.
    Question,
    Announcement,
    Goodbye,
    /// Answered by unicast, with this identifier.
    OneShot(u16),
    /// Answered by unicast, within this time.
    Search(Duration),
}

impl Kind {
    fn asks(self) -> bool {
        matches!(self, Self::Question | Self::OneShot(_) | Self::Search(_))
    }
}

impl Reflector {
    /// What follows from a frame that was heard on a link.
    pub fn frame(&mut self, now: Duration, at: LinkId, frame: &[u8], heard: Heard) -> Vec<Action> {
        let Some(from) = self.links.get(&at).cloned() else { return Vec::new() };
        let datagram = match datagram::read(frame, heard.unchecked) {
            Ok(datagram) => datagram,
            Err(reason) => {
                self.skipped(&from, "other", reason);
                return Vec::new();
            }
        };
        let Some(protocol) = Protocol::at(datagram.destination).filter(|protocol| from.protocols.contains(protocol))
        else {
            return Vec::new();
        };
        match self.judge(now, from.clone(), protocol, datagram, heard) {
            Ok(crossing) if matches!(crossing.kind, Kind::OneShot(_) | Kind::Search(_)) => self.ask(now, &crossing),
            Ok(crossing) => self.say(now, &crossing),
            Err(reason) => {
                self.skipped(&from, protocol.name(), reason);
                Vec::new()
            }
        }
    }

    /// What follows from an answer that came by unicast.
    pub fn answer(&mut self, now: Duration, channel: Channel, from: SocketAddr, payload: &[u8]) -> Vec<Action> {
        let Some(uplink) = self.links.get(&channel.link()).cloned() else { return Vec::new() };
        let (protocol, waiting) = match channel {
            Channel::Legacy(..) => {
                let ours = message::answer_id(payload);
                let waiting = ours.and_then(|ours| self.sessions.asked_as(now, ours));
                (Protocol::Mdns, waiting)
            }
            Channel::Search(_, id) => match self.sessions.searched(now, id) {
                Some((asker, protocol, _)) => (protocol, Some((asker, 0))),
                None => return Vec::new(),
            },
        };
        let to = waiting.and_then(|(asker, id)| Some((self.links.get(&asker.link)?.clone(), asker, id)));
        let path = match &to {
            Some((link, ..)) if link.is_uplink() => Path::LinkToLink,
            _ => Path::LanToPod,
        };
        let done = match to {
            None => Err(Reason::Late),
            Some(_) if !self.allowances.take(now, uplink.id, from.ip(), protocol) => Err(Reason::Rate),
            Some((link, asker, id)) => delivered(protocol, &link, asker, id, from, payload),
        };
        match done {
            Ok(action) => {
                self.counts.crossed(&uplink.name, protocol.name(), path);
                vec![action]
            }
            Err(reason) => {
                self.counts.skipped(&uplink.name, protocol.name(), path, reason);
                Vec::new()
            }
        }
    }

    fn judge<'a>(
        &mut self,
        now: Duration,
        from: Link,
        protocol: Protocol,
        datagram: Datagram<'a>,
        heard: Heard,
    ) -> Result<Crossing<'a>, Reason> {
        self.refuse_own(&from, &datagram, heard)?;
        let source = datagram.source;
        if source.port() == 0 || source.ip().is_unspecified() || source.ip().is_multicast() {
            return Err(Reason::Malformed);
        }
        let (payload, kind) = read(protocol, &datagram)?;
        if !from.is_uplink() && !kind.asks() && !self.policy.both_ways {
            return Err(Reason::Direction);
        }
        // A pod is one source, whatever addresses it claims: with many it would take the places of all others.
        let speaker = if from.is_uplink() { source.ip() } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        // Whoever says goodbye says so once: it must not be lost.
        if kind != Kind::Goodbye && !self.allowances.take(now, from.id, speaker, protocol) {
            return Err(Reason::Rate);
        }
        Ok(Crossing { protocol, from, datagram, payload, kind, outgoing: heard.outgoing })
    }

    /// What we sent ourselves comes back when two uplinks are one link, or from our own ports.
    fn refuse_own(&self, from: &Link, datagram: &Datagram<'_>, heard: Heard) -> Result<(), Reason> {
        let source = datagram.source;
        match from.role {
            Role::Pod(mac) if mac != datagram.from_mac => Err(Reason::Spoof),
            Role::Pod(_) => Ok(()),
            Role::Uplink if heard.outgoing => {
                let is_ours = from.addresses.contains(&source.ip()) && self.ports.values().any(|p| *p == source.port());
                if is_ours { Err(Reason::Own) } else { Ok(()) }
            }
            Role::Uplink => {
                let is_ours = |link: &Link| {
                    link.is_uplink() && (link.mac == datagram.from_mac || link.addresses.contains(&source.ip()))
                };
                if self.links.values().any(is_ours) { Err(Reason::Own) } else { Ok(()) }
            }
        }
    }

    /// Where it goes: from a pod to uplinks, from an uplink to pods and, where configured, to other uplinks.
    fn targets(&self, crossing: &Crossing<'_>) -> Vec<Link> {
        let from = &crossing.from;
        let goes = |link: &&Link| {
            let is_wanted = link.id != from.id && link.protocols.contains(&crossing.protocol);
            is_wanted
                && match (from.is_uplink(), link.is_uplink()) {
                    (false, true) => true,
                    (true, false) => !crossing.kind.asks() || self.carries_question_to_pods(crossing.kind),
                    (true, true) => self.leads && self.policy.between.contains(&crossing.protocol),
                    (false, false) => false,
                }
        };
        self.links.values().filter(goes).cloned().collect()
    }

    /// Only what everybody hears the answer to: pods have no port of ours to answer to.
    fn carries_question_to_pods(&self, kind: Kind) -> bool {
        self.policy.both_ways && kind == Kind::Question
    }

    /// Says it on every other link.
    fn say(&mut self, now: Duration, crossing: &Crossing<'_>) -> Vec<Action> {
        let is_v6 = crossing.datagram.destination.is_ipv6();
        let fingerprint = self.seen.fingerprint((crossing.protocol, is_v6, &crossing.payload));
        // What goes out of an uplink is what we said there just now, or what the host says by itself.
        if crossing.outgoing && self.seen.was_said(now, crossing.from.id, fingerprint) {
            return Vec::new();
        }
        self.seen.heard(now, crossing.from.id, fingerprint);
        let mut actions = Vec::new();
        let mut fates: Vec<(String, Path, Result<(), Reason>)> = Vec::new();
        for to in self.targets(crossing) {
            let fate = if self.seen.may_say(now, to.id, fingerprint, crossing.kind == Kind::Goodbye) {
                written(crossing, &to).map(|frame| actions.push(Action::Send(to.id, crossing.protocol, frame)))
            } else {
                Err(Reason::Duplicate)
            };
            fates.push(fate_of(crossing, &to, fate));
        }
        self.note(crossing.protocol, fates);
        actions
    }

    /// Asks on every other link, from a port of ours.
    fn ask(&mut self, now: Duration, crossing: &Crossing<'_>) -> Vec<Action> {
        let Datagram { source, destination, hops, from_mac, .. } = crossing.datagram;
        let targets: Vec<Link> = self.targets(crossing).into_iter().filter(Link::is_uplink).collect();
        if targets.is_empty() {
            return Vec::new();
        }
        let asker = Asker { link: crossing.from.id, address: source, mac: from_mac };
        let channel = match crossing.kind {
            Kind::OneShot(id) => self.sessions.legacy(now, asker, id).map(Err),
            Kind::Search(wait) => self.sessions.search(now, asker, crossing.protocol, now + wait).map(Ok),
            _ => None,
        };
        let fingerprint = self.seen.fingerprint((crossing.protocol, source, &crossing.payload));
        let (mut actions, mut fates) = (Vec::new(), Vec::new());
        for to in targets {
            let fate = match channel {
                None => Err(Reason::Sessions),
                Some(_) if to.own(source.ip()).is_none() => Err(Reason::Address),
                Some(_) if !self.seen.may_say(now, to.id, fingerprint, false) => Err(Reason::Duplicate),
                Some(Ok(search)) => Ok((Channel::Search(to.id, search), hops, crossing.payload.clone())),
                Some(Err(ours)) => {
                    let payload = message::under(crossing.payload.clone(), ours);
                    Ok((Channel::Legacy(to.id, source.is_ipv6()), HOPS, payload))
                }
            };
            let protocol = crossing.protocol;
            let fate = fate.map(|(channel, hops, payload)| {
                actions.push(Action::Ask { channel, protocol, to: destination, hops, payload });
            });
            fates.push(fate_of(crossing, &to, fate));
        }
        self.note(crossing.protocol, fates);
        actions
    }

    /// Counts a frame once for each uplink and way, however many pods it goes to: crossed, if it did anywhere.
    fn note(&mut self, protocol: Protocol, mut fates: Vec<(String, Path, Result<(), Reason>)>) {
        fates.sort_by(|a, b| (&a.0, a.1, a.2.is_err()).cmp(&(&b.0, b.1, b.2.is_err())));
        fates.dedup_by(|later, earlier| (&later.0, later.1) == (&earlier.0, earlier.1) && !path_is_single(later.1));
        for (parent, path, fate) in fates {
            match fate {
                Ok(()) => self.counts.crossed(&parent, protocol.name(), path),
                Err(reason) => self.counts.skipped(&parent, protocol.name(), path, reason),
            }
        }
    }

    /// Counts a frame that goes nowhere.
    fn skipped(&mut self, from: &Link, protocol: &'static str, reason: Reason) {
        let has_pods = self.links.values().any(|link| !link.is_uplink());
        if from.is_uplink() {
            let path = if has_pods { Path::LanToPod } else { Path::LinkToLink };
            return self.counts.skipped(&from.name, protocol, path, reason);
        }
        for parent in self.uplink_names() {
            self.counts.skipped(&parent, protocol, Path::PodToLan, reason);
        }
    }
}

/// From uplink to uplink each one counts.
fn path_is_single(path: Path) -> bool {
    path == Path::LinkToLink
}

fn fate_of(crossing: &Crossing<'_>, to: &Link, fate: Result<(), Reason>) -> (String, Path, Result<(), Reason>) {
    match (crossing.from.is_uplink(), to.is_uplink()) {
        (false, _) => (to.name.clone(), Path::PodToLan, fate),
        (true, false) => (crossing.from.name.clone(), Path::LanToPod, fate),
        (true, true) => (crossing.from.name.clone(), Path::LinkToLink, fate),
    }
}

/// What a datagram wants, and what of it crosses.
fn read(protocol: Protocol, datagram: &Datagram<'_>) -> Result<(Vec<u8>, Kind), Reason> {
    if protocol != Protocol::Mdns {
        let kind = match protocol.purpose(datagram.payload).ok_or(Reason::Malformed)? {
            Purpose::Search(wait) => Kind::Search(wait),
            Purpose::Announcement => Kind::Announcement,
        };
        return Ok((datagram.payload.to_vec(), kind));
    }
    let port = datagram.source.port();
    let crossing = message::cross(datagram.payload, port)?;
    let kind = match (crossing.is_response, crossing.is_goodbye) {
        (true, true) => Kind::Goodbye,
        (true, false) => Kind::Announcement,
        (false, _) if port == protocol.port() => Kind::Question,
        (false, _) => Kind::OneShot(crossing.id),
    };
    Ok((crossing.bytes, kind))
}

/// The frame as `to` is to hear it. mDNS comes from us there (RFC 6762 section 11). Of other protocols the sender's
/// address is part of what is said, and stays where it means something.
fn written(crossing: &Crossing<'_>, to: &Link) -> Result<Vec<u8>, Reason> {
    let Datagram { source, destination, hops, .. } = crossing.datagram;
    let is_mdns = crossing.protocol == Protocol::Mdns;
    let stays = !is_mdns && !to.is_uplink() && !is_link_local(source.ip());
    let from = if stays { source.ip() } else { to.own(source.ip()).ok_or(Reason::Address)? };
    let hops = if is_mdns { HOPS } else { hops };
    let macs = (to.mac, group_mac(destination.ip()));
    let from = SocketAddr::new(from, source.port());
    datagram::write(macs, from, destination, hops, &crossing.payload).ok_or(Reason::Send)
}

/// The answer as whoever asked is to get it.
fn delivered(
    protocol: Protocol,
    link: &Link,
    asker: Asker,
    id: u16,
    from: SocketAddr,
    payload: &[u8],
) -> Result<Action, Reason> {
    let own = |port| -> Result<SocketAddr, Reason> {
        Ok(SocketAddr::new(link.own(asker.address.ip()).ok_or(Reason::Address)?, port))
    };
    let (source, hops, payload) = if protocol == Protocol::Mdns {
        if from.port() != protocol.port() {
            return Err(Reason::Malformed);
        }
        (own(protocol.port())?, HOPS, message::legacy_answer(payload, id)?)
    } else {
        if !protocol.is_answer(payload) {
            return Err(Reason::Malformed);
        }
        let source = if is_foreign_there(from.ip()) { own(from.port())? } else { from };
        (source, 64, payload.to_vec())
    };
    let frame = datagram::write((link.mac, asker.mac), source, asker.address, hops, &payload).ok_or(Reason::Send)?;
    Ok(Action::Send(link.id, protocol, frame))
}

/// An address that means nothing on another link.
fn is_foreign_there(address: IpAddr) -> bool {
    is_link_local(address) || address.is_loopback()
}
