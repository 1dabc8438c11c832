//! A minimal mDNS responder and browser: enough of RFC 6762 and 6763 to find and be found on one link.
//!
//! It is a test peer, not a resolver: no cache, no probing, no known answers.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Netns;
use crate::udp::{Family, Protocol, Voice, listening_socket};

/// Answers PTR questions for one service type with one instance, by multicast, until dropped.
#[derive(Debug)]
pub struct Responder {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// `instance` of `service` (as `_http._tcp`) at `address`, spoken for on one link over `family`.
    pub fn new(netns: &Netns, ifname: &str, family: Family, service: &str, instance: &str, address: Ipv4Addr) -> Self {
        let socket = listening_socket(netns, ifname, Protocol::Mdns, family);
        let voice = Voice::new(netns, ifname, Protocol::Mdns);
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, question, answer) = (Arc::clone(&stop), name(service), answer(service, instance, address));
        let thread = std::thread::spawn(move || {
            let _ = socket.set_read_timeout(Some(Duration::from_millis(50)));
            let mut buffer = [0; 9000];
            while !ended.load(Ordering::Relaxed) {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
                if is_query_for(&buffer[..length], &question) {
                    voice.send(family, &answer);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Instance name.
    pub instance: String,
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// From the first question to the answer.
    pub took: Duration,
}

/// Asks for `service` on one link until an instance answers, at most `limit`; asks again every half second.
pub fn browse(netns: &Netns, ifname: &str, family: Family, service: &str, limit: Duration) -> Option<Found> {
    let socket = listening_socket(netns, ifname, Protocol::Mdns, family);
    let voice = Voice::new(netns, ifname, Protocol::Mdns);
    let _ = socket.set_read_timeout(Some(Duration::from_millis(20)));
    let (began, mut asked) = (Instant::now(), None::<Instant>);
    let mut buffer = [0; 9000];
    while began.elapsed() < limit {
        if asked.is_none_or(|at| at.elapsed() > Duration::from_millis(500)) {
            voice.send(family, &query(service));
            asked = Some(Instant::now());
        }
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        if let Some((instance, address)) = read_answer(&buffer[..length], service) {
            return Some(Found { instance, address, took: began.elapsed() });
        }
    }
    None
}

fn name(service: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in service.split('.').chain(["local"]) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn query(service: &str) -> Vec<u8> {
    let mut message = vec![0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(name(service));
    message.extend([0, 12, 0, 1]);
    message
}

fn is_query_for(message: &[u8], question: &[u8]) -> bool {
    message.len() > 12 && message[2] & 0x80 == 0 && message[12..].starts_with(question)
}

/// PTR and A in one response, names written out in full.
fn answer(service: &str, instance: &str, address: Ipv4Addr) -> Vec<u8> {
    let mut message = vec![0, 0, 0x84, 0, 0, 0, 0, 2, 0, 0, 0, 0];
    let full = [vec![instance.len() as u8], instance.as_bytes().to_vec(), name(service)].concat();
    record(&mut message, &name(service), 12, &full);
    record(&mut message, &full, 1, &address.octets());
    message
}

/// The announcement of `instance` of `service` (as `_http._tcp`) at `host`: PTR, SRV, TXT and A with this TTL. Names are
/// raw labels; 0 says goodbye.
pub fn announcement(service: &str, instance: &[u8], host: &str, address: Ipv4Addr, ttl: u8) -> Vec<u8> {
    let mut message = vec![0, 0, 0x84, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let full = [&[instance.len() as u8], instance, &name(service)].concat();
    let port_and_host = [&[0, 0, 0, 0, 0x1f, 0x90], name(host).as_slice()].concat();
    for (owner, kind, data) in [
        (name(service), 12, full.clone()),
        (full.clone(), 33, port_and_host),
        (full, 16, b"\x07path=/x".to_vec()),
        (name(host), 1, address.octets().to_vec()),
    ] {
        let at = message.len() + owner.len() + 7;
        record(&mut message, &owner, kind, &data);
        message[at] = ttl;
    }
    message
}

fn record(message: &mut Vec<u8>, owner: &[u8], kind: u8, data: &[u8]) {
    message.extend(owner);
    message.extend([0, kind, 0, 1, 0, 0, 0, 120]);
    message.extend((data.len() as u16).to_be_bytes());
    message.extend(data);
}

fn read_answer(message: &[u8], service: &str) -> Option<(String, Ipv4Addr)> {
    let owner = name(service);
    if message.get(2)? & 0x80 == 0 || !message.get(12..)?.starts_with(&owner) {
        return None;
    }
    let data = message.get(12 + owner.len() + 10..)?;
    let length = *data.first()? as usize;
    let instance = String::from_utf8_lossy(data.get(1..=length)?).into_owned();
    let octets: [u8; 4] = message.get(message.len() - 4..)?.try_into().ok()?;
    Some((instance, octets.into()))
}
