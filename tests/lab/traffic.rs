//! How steady traffic is made: so many packets a second for so long, each one tagged or numbered.
//!
//! It counts what it sent; whoever listens counts what arrived.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::udp::Protocol;
use crate::udp::{Family, Voice, new_tag};
use crate::{Netns, sys, wait_until};

/// Sends `per_second` tagged datagrams a second for `long`; returns how many.
///
/// A sender that the scheduler held back catches up, so the number is exact and the rate holds on average.
pub fn blast(voice: &Voice, protocol: Protocol, family: Family, per_second: u32, long: Duration) -> u64 {
    let total = (f64::from(per_second) * long.as_secs_f64()) as u64;
    let began = Instant::now();
    for number in 0..total {
        let due = began + Duration::from_secs_f64(number as f64 / f64::from(per_second));
        let now = Instant::now();
        if due > now + Duration::from_micros(500) {
            std::thread::sleep(due - now);
        }
        voice.send(family, &protocol.payload(&new_tag()));
    }
    total
}

/// From one datagram of a [`Flow`] to the next.
const PACE: Duration = Duration::from_millis(4);

#[derive(Debug, Default)]
struct Passed {
    is_over: AtomicBool,
    is_heard_out: AtomicBool,
    sent: AtomicU64,
    /// Number of a datagram to how often it came.
    heard: Mutex<BTreeMap<u64, u64>>,
}

/// Numbered datagrams from one namespace to an address of another, one every few milliseconds until it is ended.
#[derive(Debug)]
pub struct Flow {
    passed: Arc<Passed>,
    threads: Vec<JoinHandle<()>>,
}

impl Flow {
    /// Begins, and waits until the first datagram has arrived.
    pub fn start(from: &Netns, to: &Netns, address: IpAddr) -> Self {
        let heard_by =
            to.enter(|| UdpSocket::bind((address, 0))).unwrap_or_else(|e| panic!("listen on {address}: {e}"));
        let descriptor: OwnedFd = heard_by.try_clone().expect("a second handle").into();
        sys::sockets::set_option(&descriptor, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 16_i32 << 20)
            .expect("a long queue");
        heard_by.set_read_timeout(Some(Duration::from_millis(50))).expect("set a deadline");
        let said_by = from.enter(|| UdpSocket::bind(("0.0.0.0", 0))).expect("bind a socket to send from");
        let target = heard_by.local_addr().expect("its port");
        let passed = Arc::new(Passed::default());
        let (talker, listener) = (Arc::clone(&passed), Arc::clone(&passed));
        let threads = vec![
            std::thread::spawn(move || talk(&said_by, target, &talker)),
            std::thread::spawn(move || listen(&heard_by, &listener)),
        ];
        let flow = Self { passed, threads };
        assert!(wait_until(Duration::from_secs(10), || flow.heard().0 > 0), "nothing came to {target}");
        flow
    }

    /// How many different ones arrived, and how many more than once.
    fn heard(&self) -> (u64, u64) {
        let heard = self.passed.heard.lock().unwrap_or_else(PoisonError::into_inner);
        (heard.len() as u64, heard.values().filter(|times| **times > 1).count() as u64)
    }

    /// Ends. Says how many were sent, how many of them arrived, and how many more than once.
    pub fn end(mut self) -> (u64, u64, u64) {
        self.passed.is_over.store(true, Ordering::Relaxed);
        self.threads.remove(0).join().expect("a talker");
        let sent = self.passed.sent.load(Ordering::Relaxed);
        wait_until(Duration::from_secs(3), || self.heard().0 == sent);
        let (arrived, twice) = self.heard();
        (sent, arrived, twice)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.passed.is_over.store(true, Ordering::Relaxed);
        self.passed.is_heard_out.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn talk(socket: &UdpSocket, to: SocketAddr, passed: &Passed) {
    while !passed.is_over.load(Ordering::Relaxed) {
        let number = passed.sent.load(Ordering::Relaxed);
        socket.send_to(&number.to_be_bytes(), to).unwrap_or_else(|e| panic!("send to {to}: {e}"));
        passed.sent.store(number + 1, Ordering::Relaxed);
        std::thread::sleep(PACE);
    }
}

fn listen(socket: &UdpSocket, passed: &Passed) {
    let mut number = [0; 8];
    while !passed.is_heard_out.load(Ordering::Relaxed) {
        if let Ok(8) = socket.recv(&mut number) {
            let mut heard = passed.heard.lock().unwrap_or_else(PoisonError::into_inner);
            *heard.entry(u64::from_be_bytes(number)).or_default() += 1;
        }
    }
}
