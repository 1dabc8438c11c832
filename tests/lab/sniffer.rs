//! What really passes a link: every frame an AF_PACKET socket sees there, and a way to put any frame on it.
//!
//! On the LAN's end of the wire it sees exactly what left the node.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::Netns;
use crate::sys::{readable, sockets};
use crate::udp::tag_in;

/// The kernel's packet type of a frame this machine sent (`PACKET_OUTGOING`).
const OUTGOING: u8 = 4;
const LOOPBACK: u8 = 5;

/// A frame that was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its bytes from the destination MAC on.
    pub bytes: Vec<u8>,
    /// True when it was being sent out of the link, false when it came in.
    pub outgoing: bool,
}

#[derive(Debug, Default)]
struct Record {
    frames: Mutex<Vec<Seen>>,
    stop: AtomicBool,
}

/// Records every frame on one link.
#[derive(Debug)]
pub struct Sniffer {
    record: Arc<Record>,
    thread: Option<JoinHandle<()>>,
}

impl Sniffer {
    /// Starts recording.
    pub fn new(netns: &Netns, ifname: &str) -> Self {
        let ifindex = netns.ifindex(ifname);
        let socket = netns.enter(|| {
            let socket = sockets::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
            sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64i32 << 20)?;
            sockets::bind_packet(&socket, ifindex)?;
            Ok::<_, std::io::Error>(socket)
        });
        let socket = socket.unwrap_or_else(|e| panic!("sniff {ifname} of {}: {e}", netns.name()));
        let record = Arc::new(Record::default());
        let shared = Arc::clone(&record);
        Self { record, thread: Some(std::thread::spawn(move || watch(&socket, &shared))) }
    }

    /// All frames so far that satisfy `wanted`.
    pub fn frames(&self, wanted: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let frames = self.record.frames.lock().unwrap_or_else(PoisonError::into_inner);
        frames.iter().filter(|frame| wanted(frame)).cloned().collect()
    }

    /// Frames that carry `tag` and came in.
    pub fn incoming(&self, tag: &str) -> Vec<Seen> {
        self.frames(|frame| !frame.outgoing && tag_in(&frame.bytes).as_deref() == Some(tag))
    }

    /// Frames that carry `tag` and were sent.
    pub fn outgoing(&self, tag: &str) -> Vec<Seen> {
        self.frames(|frame| frame.outgoing && tag_in(&frame.bytes).as_deref() == Some(tag))
    }
}

impl Drop for Sniffer {
    fn drop(&mut self) {
        self.record.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(socket: &OwnedFd, record: &Record) {
    let mut buffer = vec![0; 65536];
    while !record.stop.load(Ordering::Relaxed) {
        readable(&[socket.as_raw_fd()], Duration::from_millis(50));
        while let Some((length, kind)) = sockets::receive_frame(socket, &mut buffer) {
            if kind != LOOPBACK {
                let seen = Seen { bytes: buffer[..length].to_vec(), outgoing: kind == OUTGOING };
                record.frames.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            }
        }
    }
}

/// Puts `frame` on a link past its qdisc and TC egress (`PACKET_QDISC_BYPASS`), as a pod with CAP_NET_RAW can.
pub fn inject_past_egress(netns: &Netns, ifname: &str, frame: &[u8]) {
    let ifindex = netns.ifindex(ifname);
    netns
        .enter(|| {
            let socket = sockets::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
            sockets::set_option(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1i32)?;
            sockets::send_frame(&socket, ifindex, frame)
        })
        .unwrap_or_else(|e: std::io::Error| panic!("inject on {ifname} of {}: {e}", netns.name()));
}

/// Puts `frame` on a link `count` times, as fast as it takes them.
pub fn flood(netns: &Netns, ifname: &str, frame: &[u8], count: usize) {
    let ifindex = netns.ifindex(ifname);
    netns
        .enter(|| {
            let socket = sockets::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
            (0..count).try_for_each(|_| sockets::send_frame(&socket, ifindex, frame))
        })
        .unwrap_or_else(|e: std::io::Error| panic!("flood {ifname} of {}: {e}", netns.name()));
}

/// Puts `frame` on a link as it is, with `mark` as its SO_MARK.
pub fn inject(netns: &Netns, ifname: &str, frame: &[u8], mark: u32) {
    let ifindex = netns.ifindex(ifname);
    netns
        .enter(|| {
            let socket = sockets::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
            if mark != 0 {
                sockets::set_option(&socket, libc::SOL_SOCKET, libc::SO_MARK, mark)?;
            }
            sockets::send_frame(&socket, ifindex, frame)
        })
        .unwrap_or_else(|e: std::io::Error| panic!("inject on {ifname} of {}: {e}", netns.name()));
}
