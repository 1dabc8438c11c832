//! Who is there? Asks everybody on a parent one harmless question, from the node or from inside a pod, and listens who answers.
//!
//! Asks on parents of our own attachments alone, one question at a time. Nothing that is heard is kept.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::ops::context::Context;
use crate::records::{Link, Parent, Record, State};
use crate::relay::discovery::Mac;
use crate::relay::probe::{Answer, Answers, Heard, Question, Seats};
use crate::relay::reflect::datagram;
use crate::sys::asking::{self, Speaker};
use crate::sys::links;
use crate::sys::netns;
use crate::sys::packet::{Cast, Hears, Inbox, Kind, LONGEST_FRAME, PacketSocket, PacketType};

/// How long types of services are waited for, before it is asked who has them: answers come within 120 ms (RFC 6762
/// section 6).
const SECOND: Duration = Duration::from_millis(400);
/// The shortest and the longest time that answers are waited for.
pub const TIMES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How long opening sockets and finding addresses may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of answers that may wait.
const WAITING: u32 = 1 << 20;
/// The port of mDNS.
const MDNS: u16 = 5353;

/// One question at a time.
#[derive(Debug)]
pub struct Probes(Semaphore);

impl Default for Probes {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

/// What is asked, from where.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What.
    pub question: Question,
    /// From inside this pod: namespace and name; else from the node.
    pub pod: Option<(String, String)>,
    /// On this parent; needed where there are several.
    pub parent: Option<String>,
    /// How long answers are waited for; within [`TIMES`].
    pub long: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Told {
    /// The parent.
    pub parent: String,
    /// `node`, or `NAMESPACE/POD`.
    pub from: String,
    /// The addresses it was asked from.
    pub sources: Vec<IpAddr>,
    /// Who answered, the quickest first.
    pub answers: Vec<Answer>,
    /// Answers of whom there was no room for.
    pub left_out: u64,
}

/// Why nothing was asked.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Another question is under way.
    #[error("another probe is under way; ask again in some seconds")]
    Busy,
    /// There is no such place to ask from.
    #[error("{0}")]
    NoPlace(String),
    /// There are several: these.
    #[error("there are several parents: name one of {0}")]
    Several(String),
    /// The kernel refused.
    #[error("{0} on {1}: {2}")]
    Refused(&'static str, String, #[source] io::Error),
}

/// Where it is asked.
struct Place {
    from: String,
    parent: Parent,
    /// The interface that asks: its name and index, and its namespace if that is a pod's.
    interface: String,
    ifindex: u32,
    netns: Option<PathBuf>,
    mac: Mac,
}

/// Asks, and waits for answers.
///
/// # Errors
/// Nothing was asked: why.
pub async fn probe(context: &Arc<Context>, wanted: &Wanted) -> Result<Told, ProbeError> {
    let _only_one = context.probes.0.try_acquire().map_err(|_taken| ProbeError::Busy)?;
    let records = context.ledger.all();
    let place = find(&records, wanted)?;
    let until = Instant::now() + PATIENCE;
    let refused = |what: &'static str, error: io::Error| ProbeError::Refused(what, place.interface.clone(), error);
    let sources = timeout_at(until, addresses(&place))
        .await
        .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|error| refused("find addresses", error))?;
    if sources.is_empty() {
        return Err(ProbeError::NoPlace(format!(
            "{} has no address to ask from; ask from a pod: --pod NAMESPACE/NAME",
            place.interface
        )));
    }
    let asker = Asker::open(&place, wanted.question).await.map_err(|error| refused("open sockets", error))?;
    let mut answers = Answers::to(wanted.question, seats(&records, &place));
    let began = std::time::Instant::now();
    let end = Instant::now() + wanted.long;
    let known = known_types(context, wanted.question, place.parent.ifindex);
    asker.ask(&sources, place.ifindex, &known).map_err(|error| refused("send a question", error))?;
    if wanted.question == Question::Mdns {
        asker.listen(&mut answers, began, end.min(Instant::now() + SECOND.min(wanted.long / 2))).await;
        let news: Vec<String> = answers.types().filter(|kind| !known.contains(kind)).cloned().collect();
        if !news.is_empty() {
            asker.ask(&sources, place.ifindex, &news).map_err(|error| refused("send a question", error))?;
        }
    }
    asker.listen(&mut answers, began, end).await;
    let left_out = answers.left_out;
    Ok(Told { parent: place.parent.name, from: place.from, sources, answers: answers.told(), left_out })
}

/// The types of services that are announced on a parent already.
fn known_types(context: &Context, question: Question, parent: u32) -> Vec<String> {
    let all = context.discovery.announced(parent).into_iter().filter(|_| question == Question::Mdns);
    let mut types: Vec<String> = all.filter_map(|announced| announced.kind).collect();
    types.sort();
    types.dedup();
    types
}

/// Attachments on parents, of pods that are attached.
fn on_parents(records: &[Arc<Record>]) -> impl Iterator<Item = (&Record, &str, &Link, &Parent)> {
    records.iter().filter(|record| record.state == State::Added).flat_map(|record| {
        record.attachments.iter().filter_map(|attachment| {
            let link = attachment.link.as_ref()?;
            Some((&**record, attachment.ifname.as_str(), link, link.parent.as_ref()?))
        })
    })
}

fn pod_text(record: &Record) -> String {
    record.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default()
}

fn find(records: &[Arc<Record>], wanted: &Wanted) -> Result<Place, ProbeError> {
    let asked_pod = wanted.pod.as_ref().map(|(namespace, name)| format!("{namespace}/{name}"));
    let mut places: Vec<Place> = Vec::new();
    for (record, interface, link, parent) in on_parents(records) {
        if wanted.parent.as_ref().is_some_and(|asked| *asked != parent.name) {
            continue;
        }
        let place = match &asked_pod {
            None => Place {
                from: "node".to_owned(),
                parent: parent.clone(),
                interface: parent.name.clone(),
                ifindex: parent.ifindex,
                netns: None,
                mac: parent.mac,
            },
            Some(asked) if *asked == pod_text(record) => {
                let Some(netns) = record.namespace() else { continue };
                Place {
                    from: asked.clone(),
                    parent: parent.clone(),
                    interface: interface.to_owned(),
                    ifindex: link.ifindex,
                    netns: Some(netns.as_path().to_owned()),
                    mac: link.mac,
                }
            }
            Some(_) => continue,
        };
        let is_known = |other: &Place| (other.parent.ifindex, &other.interface) == (parent.ifindex, &place.interface);
        if !places.iter().any(is_known) {
            places.push(place);
        }
    }
    let names = || places.iter().map(|place| place.parent.name.as_str()).collect::<Vec<_>>().join(", ");
    match (places.len(), &asked_pod, &wanted.parent) {
        (0, Some(pod), _) => Err(ProbeError::NoPlace(format!(
            "{pod} has no interface on a parent that was asked for; see multus-agent get attachments"
        ))),
        (0, None, Some(parent)) => Err(ProbeError::NoPlace(format!(
            "{} is the parent of no attachment; see multus-agent get relay",
            crate::fault::quote(parent)
        ))),
        (0, None, None) => Err(ProbeError::NoPlace("no attachment has a parent on this node".to_owned())),
        (2.., _, None) => Err(ProbeError::Several(names())),
        // Two interfaces of one pod on one parent hear the same.
        _ => Ok(places.swap_remove(0)),
    }
}

fn seats(records: &[Arc<Record>], place: &Place) -> Seats {
    let on_it = on_parents(records).filter(|(.., parent)| parent.ifindex == place.parent.ifindex);
    Seats {
        own: place.mac,
        parent: place.parent.mac,
        pods: on_it.map(|(record, _, link, _)| (link.mac, pod_text(record))).collect(),
    }
}

/// The addresses to ask from: the first of IPv4, and the link's own of IPv6.
async fn addresses(place: &Place) -> io::Result<Vec<IpAddr>> {
    let all = match &place.netns {
        Some(netns) => links::addresses(netns, place.ifindex).await,
        None => links::addresses_here(place.ifindex).await,
    };
    let all: Vec<IpAddr> = all.map_err(io::Error::other)?.into_iter().map(|(address, _)| address).collect();
    let four = all.iter().find(|address| address.is_ipv4());
    let six = all.iter().find(|address| address.is_ipv6() && datagram::is_link_local(**address));
    Ok(four.into_iter().chain(six).copied().collect())
}

/// The sockets of one question.
struct Asker {
    question: Question,
    inbox: Inbox,
    speaker: Option<Speaker>,
    /// For what is answered by unicast: a port of our own in each family, so that nobody is told that there is none.
    /// What this very machine, or pod, answers itself goes past the interface, and is not heard.
    ports: Vec<UdpSocket>,
}

impl Asker {
    async fn open(place: &Place, question: Question) -> io::Result<Self> {
        let (ifindex, netns) = (place.ifindex, place.netns.clone());
        let open = move || match netns {
            Some(netns) => netns::inside(&netns, || sockets(ifindex, question)).map_err(io::Error::other)?,
            None => sockets(ifindex, question),
        };
        let (socket, speaker, ports) = tokio::task::spawn_blocking(open).await.map_err(io::Error::other)??;
        Ok(Self { question, inbox: Inbox::new(socket)?, speaker, ports })
    }

    fn ask(&self, sources: &[IpAddr], ifindex: u32, types: &[String]) -> io::Result<()> {
        for source in sources {
            let is_v6 = source.is_ipv6();
            let (group, payload) = (self.question.group(is_v6), self.question.payload(is_v6, types));
            if let Some(speaker) = &self.speaker {
                let source = SocketAddr::new(*source, MDNS);
                let frame = datagram::write(([0; 6], [0; 6]), source, group, self.question.hops(), &payload);
                speaker.say(frame.as_deref().and_then(|frame| frame.get(14..)).unwrap_or_default())?;
            } else {
                let socket = self.ports.iter().find(|socket| is_of(socket, is_v6)).ok_or(io::ErrorKind::NotFound)?;
                socket.send_to(&payload, scoped(group, ifindex))?;
            }
        }
        Ok(())
    }

    /// Hears answers until the time is over, or the interface is gone.
    async fn listen(&self, answers: &mut Answers, began: std::time::Instant, until: Instant) {
        let mut buffer = vec![0; LONGEST_FRAME];
        while let Ok(Ok(received)) = timeout_at(until, self.inbox.receive(&mut buffer)).await {
            let frame = buffer.get(..received.length).filter(|_| received.whole).unwrap_or_default();
            let Ok(datagram) = datagram::read(frame, false) else { continue };
            answers.hear(&Heard {
                mac: datagram.from_mac,
                source: datagram.source.ip(),
                outgoing: received.packet_type == PacketType::Outgoing,
                after: began.elapsed(),
                payload: datagram.payload,
            });
        }
    }
}

fn is_of(socket: &UdpSocket, is_v6: bool) -> bool {
    socket.local_addr().is_ok_and(|address| address.is_ipv6() == is_v6)
}

fn scoped(group: SocketAddr, ifindex: u32) -> SocketAddr {
    match group {
        SocketAddr::V4(_) => group,
        SocketAddr::V6(group) => SocketAddrV6::new(*group.ip(), group.port(), 0, ifindex).into(),
    }
}

/// Opens what a question needs, in the calling thread's namespace.
fn sockets(ifindex: u32, question: Question) -> io::Result<(PacketSocket, Option<Speaker>, Vec<UdpSocket>)> {
    let hears = Hears { kind: Kind::Ports, cast: Cast::Any, outgoing: true, waiting: WAITING, ..Hears::default() };
    match question {
        Question::Mdns => {
            // A macvlan interface lets in only groups that somebody in the pod is in.
            let groups = [false, true].map(|is_v6| datagram::group_mac(question.group(is_v6).ip())).into();
            let hears = Hears { from: vec![MDNS], groups, ..hears };
            Ok((PacketSocket::open(ifindex, &hears)?, Some(Speaker::open(ifindex)?), Vec::new()))
        }
        Question::Ssdp => {
            let ports: Vec<UdpSocket> = [false, true]
                .into_iter()
                .filter_map(|is_v6| asking::open(ifindex, is_v6, question.hops()).ok())
                .collect();
            let to = ports.iter().filter_map(|socket| socket.local_addr().ok()).map(|address| address.port()).collect();
            Ok((PacketSocket::open(ifindex, &Hears { to, ..hears })?, None, ports))
        }
    }
}
