//! Frames of one interface: a packet socket there, and who each frame is from by its MAC.
//!
//! A pod's interface is listened to on a socket that was opened inside its namespace by a thread that has ended. The socket
//! would keep the namespace, so it is closed as soon as the pod is gone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{interval, sleep_until};

use super::pcapng::{Frame, Way};
use super::{CaptureError, Film, Of, Over, nanos, now};
use crate::names::mac_text;
use crate::ops::context::Context;
use crate::records::{Record, State};
use crate::relay::discovery::Mac;
use crate::sys::netns;
use crate::sys::packet::{Hears, Inbox, Kind, LONGEST_FRAME, PacketSocket, PacketType, Received};

/// Bytes of frames that may wait; the kernel drops and counts what comes beyond.
const WAITING: u32 = 2 << 20;
/// How often it is looked whether the pod is still there.
const LOOK: Duration = Duration::from_millis(250);

/// Where frames come from.
pub(super) struct Source {
    /// As the file names it.
    name: String,
    inbox: Inbox,
    place: Place,
    whose: BTreeMap<Mac, String>,
    parent: Mac,
}

/// An interface.
struct Place {
    name: String,
    ifindex: u32,
    /// The pod's namespace, and which one that was.
    netns: Option<(PathBuf, Option<(u64, u64)>)>,
    pod: String,
    /// The link below, or the interface itself.
    below: u32,
    parent: Mac,
}

impl Source {
    /// Opens it.
    ///
    /// # Errors
    /// There is no such interface of ours, or the kernel refuses.
    pub(super) async fn open(context: &Context, of: &Of, snap: usize) -> Result<Self, CaptureError> {
        let records = context.ledger.all();
        let place = find(&records, of)?;
        let refused = |error| CaptureError::Refused(place.name.clone(), error);
        let (ifindex, netns) = (place.ifindex, place.netns.as_ref().map(|(path, _)| path.clone()));
        let cut = u32::try_from(snap).unwrap_or(u32::MAX);
        let hears = Hears { kind: Kind::Everything(cut), outgoing: true, waiting: WAITING, ..Hears::default() };
        let open = move || match netns {
            Some(path) => {
                netns::inside(&path, || PacketSocket::open(ifindex, &hears)).map_err(std::io::Error::other)?
            }
            None => PacketSocket::open(ifindex, &hears),
        };
        let opened = tokio::task::spawn_blocking(open).await.map_err(std::io::Error::other).and_then(|opened| opened);
        let inbox = opened.and_then(Inbox::new).map_err(refused)?;
        let whose = whose(&records, place.below);
        Ok(Self { name: place.name.clone(), inbox, parent: place.parent, place, whose })
    }

    /// Writes what passes until it is over.
    pub(super) async fn shoot(mut self, context: Arc<Context>, mut film: Film) {
        let mut buffer = vec![0; LONGEST_FRAME];
        let mut look = interval(LOOK);
        let (end, to) = (film.end, film.to.clone());
        let mut lost = 0;
        let over = loop {
            tokio::select! {
                biased;
                () = to.closed() => break Over::NoReader,
                () = sleep_until(end) => break Over::Time,
                _ = look.tick() => {
                    lost += self.lost();
                    let records = context.ledger.all();
                    self.whose = whose(&records, self.place.below);
                    if self.is_gone() {
                        break Over::Gone;
                    }
                    if !film.give().await {
                        break Over::NoReader;
                    }
                }
                received = self.inbox.receive(&mut buffer) => match received {
                    Ok(received) => {
                        let frame = self.frame(&buffer, received);
                        if let Some(over) = film.take(&frame).await {
                            break over;
                        }
                    }
                    Err(_) => break Over::Gone,
                },
            }
        };
        lost += self.lost();
        let had = film.seen + lost;
        let name = self.name.clone();
        // The namespace is not to wait for whoever reads.
        drop(self);
        film.close(&name, (had, lost), over).await;
    }

    fn lost(&self) -> u64 {
        self.inbox.statistics().map_or(0, |statistics| u64::from(statistics.dropped))
    }

    fn is_gone(&self) -> bool {
        self.place.netns.as_ref().is_some_and(|(path, identity)| netns::identity(path) != *identity)
    }

    fn frame(&self, buffer: &[u8], received: Received) -> Frame {
        let mut head = buffer.get(..received.length).unwrap_or_default().to_vec();
        let mut length = received.full_length;
        if let (Some((kind, tag)), Some(_)) = (received.tag, head.get(12..)) {
            head.splice(12..12, [kind.to_be_bytes(), tag.to_be_bytes()].concat());
            length += 4;
        }
        let is_out = received.packet_type == PacketType::Outgoing;
        let mac: Option<Mac> = head.get(6..12).and_then(|mac| mac.try_into().ok());
        Frame {
            interface: self.name.clone(),
            nanos: received.time.map_or_else(now, nanos),
            length: u32::try_from(length).unwrap_or(u32::MAX),
            way: Some(if is_out { Way::Out } else { Way::In }),
            comment: format!("{} {}", if is_out { "out" } else { "in" }, self.from(mac.unwrap_or_default(), is_out)),
            head,
        }
    }

    /// Whose frame it is, in the view of the interface.
    fn from(&self, mac: Mac, is_out: bool) -> String {
        match self.whose.get(&mac) {
            _ if mac == self.parent => "from the node".to_owned(),
            Some(pod) => format!("from {pod}"),
            None if is_out && !self.place.pod.is_empty() => format!("from {}, with another MAC", self.place.pod),
            None => format!("from {}", mac_text(mac)),
        }
    }
}

fn pod_text(record: &Record) -> String {
    record.pod.as_ref().map(|pod| format!("{}/{}", pod.namespace, pod.name)).unwrap_or_default()
}

fn whose(records: &[Arc<Record>], below: u32) -> BTreeMap<Mac, String> {
    let mut whose = BTreeMap::new();
    for record in records {
        for link in record.attachments.iter().filter_map(|attachment| attachment.link.as_ref()) {
            if link.parent.as_ref().is_some_and(|parent| parent.ifindex == below) {
                whose.insert(link.mac, pod_text(record));
            }
        }
    }
    whose
}

fn find(records: &[Arc<Record>], of: &Of) -> Result<Place, CaptureError> {
    for record in records.iter().filter(|record| record.state == State::Added) {
        for attachment in &record.attachments {
            let Some(link) = &attachment.link else { continue };
            let parent = link.parent.as_ref();
            match (of, parent) {
                (Of::Parent(asked), Some(parent)) if *asked == parent.name => {
                    return Ok(Place {
                        name: parent.name.clone(),
                        ifindex: parent.ifindex,
                        netns: None,
                        pod: String::new(),
                        below: parent.ifindex,
                        parent: parent.mac,
                    });
                }
                (Of::Attachment(namespace, name, interface), parent)
                    if pod_text(record) == format!("{namespace}/{name}") && attachment.ifname.as_str() == interface =>
                {
                    let Some(path) = record.namespace().map(|netns| netns.as_path().to_owned()) else { continue };
                    let identity = netns::identity(&path);
                    return Ok(Place {
                        name: format!("{namespace}/{name}/{interface}"),
                        ifindex: link.ifindex,
                        netns: Some((path, identity)),
                        pod: pod_text(record),
                        below: parent.map_or(0, |parent| parent.ifindex),
                        parent: parent.map_or([0; 6], |parent| parent.mac),
                    });
                }
                _ => {}
            }
        }
    }
    let what = match of {
        Of::Parent(parent) => format!("{} is the parent of no attachment", crate::fault::quote(parent)),
        Of::Attachment(namespace, name, interface) => format!(
            "{} is no attachment that the agent follows",
            crate::fault::quote(&format!("{namespace}/{name}/{interface}"))
        ),
        Of::Relay(_) => "the relay has no interface".to_owned(),
    };
    Err(CaptureError::Unknown(format!("{what}; see multus-agent get attachments")))
}
