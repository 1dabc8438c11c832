//! How do frames get from the links to the reflector and back? Sockets, and one task for each.
//!
//! Decides nothing. No lock is held while anything waits; the sockets' buffers are the only queues.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use crate::relay::dns;
use crate::relay::reflect::{ALL, Action, Channel, Count, Heard, Link, LinkId, Policy, Protocol, Reflector, Role};
use crate::sys::asking::{self, Speaker};
use crate::sys::packet::{Cast, Checksum, Hears, LONGEST_FRAME, PacketSocket, PacketType};

/// Length of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes that may wait at one link.
const WAITING: u32 = 256 << 10;
/// Frames that are taken in one go before others have a turn.
const AT_ONCE: usize = 64;

/// The sockets, and the reflector between them.
#[derive(Debug)]
pub(super) struct Traffic {
    began: Instant,
    reflector: Mutex<Reflector>,
    sockets: Mutex<BTreeMap<LinkId, Arc<Ends>>>,
    channels: Mutex<HashMap<Channel, Arc<AsyncFd<UdpSocket>>>>,
}

/// What a link is heard and spoken to with.
#[derive(Debug)]
struct Ends {
    frames: AsyncFd<PacketSocket>,
    /// Uplinks alone: what goes to a pod is for that pod.
    speaker: Option<Speaker>,
}

impl Traffic {
    pub(super) fn new(policy: Policy) -> Self {
        // The one source of secret numbers that std has.
        let seed = RandomState::new().hash_one(0);
        Self {
            began: Instant::now(),
            reflector: Mutex::new(Reflector::new(policy, seed)),
            sockets: Mutex::default(),
            channels: Mutex::default(),
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn counts(&self) -> Vec<Count> {
        self.reflector().counts()
    }

    pub(super) fn lead(&self, leads: bool) {
        self.reflector().lead(leads);
    }

    pub(super) fn forget_old(&self) {
        self.reflector().forget_old(self.now());
    }

    /// Listens to a link; the task ends with the link.
    ///
    /// # Errors
    /// The kernel's.
    pub(super) fn open(self: &Arc<Self>, link: Link) -> io::Result<JoinHandle<()>> {
        let hears = Hears {
            to: ALL.map(Protocol::port).into(),
            from: Vec::new(),
            cast: Cast::Group,
            // The host's own services are of the LAN; what goes to a pod came from us, or from its siblings.
            outgoing: link.role == Role::Uplink,
            waiting: WAITING,
            ..Hears::default()
        };
        let id = link.id;
        let speaker = if hears.outgoing { Some(Speaker::open(id.0)?) } else { None };
        let ends = Arc::new(Ends { frames: PacketSocket::open(id.0, &hears)?.awaited()?, speaker });
        self.sockets().insert(id, Arc::clone(&ends));
        self.reflector().join(link);
        let traffic = Arc::clone(self);
        Ok(tokio::spawn(async move {
            let error = traffic.listen(id, &ends.frames).await;
            tracing::debug!(ifindex = id.0, "a link is gone: {error}");
        }))
    }

    /// Makes known what has changed about a link.
    pub(super) fn update(&self, link: Link) {
        self.reflector().join(link);
    }

    pub(super) fn close(&self, id: LinkId) {
        self.sockets().remove(&id);
        self.reflector().leave(id);
    }

    /// Takes frames until the link is gone.
    async fn listen(self: &Arc<Self>, id: LinkId, socket: &AsyncFd<PacketSocket>) -> io::Error {
        let mut buffer = vec![0; LONGEST_FRAME];
        loop {
            let mut ready = match socket.readable().await {
                Ok(ready) => ready,
                Err(error) => return error,
            };
            for _ in 0..AT_ONCE {
                match socket.get_ref().receive(&mut buffer) {
                    Ok(received) if received.whole => {
                        let heard = Heard {
                            outgoing: received.packet_type == PacketType::Outgoing,
                            unchecked: received.checksum == Checksum::Unknown,
                        };
                        let frame = buffer.get(..received.length).unwrap_or_default();
                        let actions = self.reflector().frame(self.now(), id, frame, heard);
                        self.perform(actions);
                    }
                    Ok(_too_long) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready.clear_ready();
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return error,
                }
            }
            tokio::task::yield_now().await;
        }
    }

    fn perform(self: &Arc<Self>, actions: Vec<Action>) {
        for action in actions {
            let (link, protocol, done) = match action {
                Action::Send(link, protocol, frame) => (link, protocol, self.send(link, &frame)),
                Action::Ask { channel, protocol, to, hops, payload } => {
                    (channel.link(), protocol, self.ask(channel, to, hops, &payload))
                }
            };
            if let Err(error) = done {
                tracing::debug!(ifindex = link.0, "send: {error}");
                self.reflector().not_sent(link, protocol);
            }
        }
    }

    fn send(&self, link: LinkId, frame: &[u8]) -> io::Result<()> {
        let ends = self.sockets().get(&link).cloned().ok_or(io::ErrorKind::NotConnected)?;
        let is_to_group = frame.first().is_some_and(|first| first & 1 == 1);
        match &ends.speaker {
            // Through the host's stack: the host and the macvlan pods of this node are on that LAN, too.
            Some(speaker) if is_to_group => speaker.say(frame.get(ETHERNET..).unwrap_or_default()),
            _ => ends.frames.get_ref().send(frame),
        }
    }

    /// Asks from the channel's port, which is opened if it is not yet.
    fn ask(self: &Arc<Self>, channel: Channel, to: SocketAddr, hops: u8, payload: &[u8]) -> io::Result<()> {
        let index = channel.link().0;
        let socket = {
            let mut channels = self.channels();
            if let Some(socket) = channels.get(&channel) {
                Arc::clone(socket)
            } else {
                let socket = Arc::new(asking::open_awaited(index, to.is_ipv6(), hops)?);
                let port = socket.get_ref().local_addr()?.port();
                channels.insert(channel, Arc::clone(&socket));
                self.reflector().listens(channel, Some(port));
                tokio::spawn(Arc::clone(self).wait_for_answers(channel, Arc::clone(&socket)));
                socket
            }
        };
        let to = match to {
            SocketAddr::V6(six) => SocketAddrV6::new(*six.ip(), six.port(), 0, index).into(),
            four @ SocketAddr::V4(_) => four,
        };
        socket.get_ref().send_to(payload, to).map(drop)
    }

    /// Takes answers while somebody waits for them.
    async fn wait_for_answers(self: Arc<Self>, channel: Channel, socket: Arc<AsyncFd<UdpSocket>>) {
        let mut buffer = vec![0; dns::MOST_BYTES];
        while let Some(wait) = self.waits_on(channel) {
            let mut ready = match tokio::time::timeout(wait, socket.readable()).await {
                Ok(Ok(ready)) => ready,
                Ok(Err(_no_reactor)) => break,
                Err(_elapsed) => continue,
            };
            match socket.get_ref().recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let payload = buffer.get(..length).unwrap_or_default();
                    let actions = self.reflector().answer(self.now(), channel, unscoped(from), payload);
                    self.perform(actions);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                // What the network says about earlier questions ends nothing.
                Err(_passing) => {}
            }
        }
    }

    /// How long answers are still waited for; the channel is closed when they are no longer.
    fn waits_on(&self, channel: Channel) -> Option<Duration> {
        let now = self.now();
        let mut channels = self.channels();
        let until = self.reflector().open_until(now, channel);
        if until.is_none() {
            channels.remove(&channel);
            self.reflector().listens(channel, None);
        }
        until.map(|until| until.saturating_sub(now))
    }

    fn reflector(&self) -> MutexGuard<'_, Reflector> {
        self.reflector.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sockets(&self) -> MutexGuard<'_, BTreeMap<LinkId, Arc<Ends>>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever has this may take the reflector too, never the other way round.
    fn channels(&self) -> MutexGuard<'_, HashMap<Channel, Arc<AsyncFd<UdpSocket>>>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The scope of an address is the interface that the socket is on.
fn unscoped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}
