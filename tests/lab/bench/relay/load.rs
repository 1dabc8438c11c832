//! How one load went: numbered datagrams at a steady rate, and when each copy of them was read.
//!
//! It knows nothing of who carries them.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sys;
use crate::udp::{Family, Protocol, Voice};

/// The figures of one load.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    /// What the sender reached.
    pub(super) sent_per_second: f64,
    /// Of all copies that should have come.
    pub(super) lost_percent: f64,
    /// From before the send call to after the read.
    pub(super) p50_us: f64,
    /// The same.
    pub(super) p99_us: f64,
    /// Busy time of the whole machine by datagram sent, interrupts included.
    pub(super) cpu_us: f64,
}

impl Outcome {
    /// The median of each figure by itself.
    pub(super) fn median(outcomes: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<_> = outcomes.iter().map(figure).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(figures.len() / 2).copied().unwrap_or(0.0)
        };
        Self {
            sent_per_second: of(|outcome| outcome.sent_per_second),
            lost_percent: of(|outcome| outcome.lost_percent),
            p50_us: of(|outcome| outcome.p50_us),
            p99_us: of(|outcome| outcome.p99_us),
            cpu_us: of(|outcome| outcome.cpu_us),
        }
    }
}

/// When each datagram was handed to the kernel, in nanoseconds since the load began; 0 before.
struct Load {
    run: u32,
    began: Instant,
    sent: Vec<AtomicU64>,
    over: AtomicBool,
}

/// A carrier that has said nothing for so long will say nothing any more.
const SILENCE: Duration = Duration::from_millis(400);

/// Sends and listens.
pub(super) fn run(voice: &Voice, ears: &[UdpSocket], rate: u32, packets: u32) -> Outcome {
    static RUN: AtomicU32 = AtomicU32::new(1);
    let load = Load {
        run: RUN.fetch_add(1, Ordering::Relaxed),
        began: Instant::now(),
        sent: (0..packets).map(|_| AtomicU64::new(0)).collect(),
        over: AtomicBool::new(false),
    };
    let busy_before = busy();
    let (took, mut latencies) = std::thread::scope(|scope| {
        let listener = scope.spawn(|| listen(&load, ears));
        let took = speak(&load, voice, rate);
        load.over.store(true, Ordering::Release);
        (took, listener.join().expect("the listener ends"))
    });
    let busy = busy().saturating_sub(busy_before);
    latencies.sort_unstable();
    let percentile = |percent: usize| {
        let rank = (latencies.len() * percent).div_ceil(100).max(1);
        latencies.get(rank - 1).map_or(f64::NAN, |nanos| *nanos as f64 / 1000.0)
    };
    let expected = packets as usize * ears.len();
    Outcome {
        sent_per_second: f64::from(packets) / took.as_secs_f64(),
        lost_percent: expected.saturating_sub(latencies.len()) as f64 * 100.0 / expected as f64,
        p50_us: percentile(50),
        p99_us: percentile(99),
        cpu_us: busy.as_secs_f64() * 1e6 / f64::from(packets),
    }
}

fn speak(load: &Load, voice: &Voice, rate: u32) -> Duration {
    let started = Instant::now();
    for (number, sent) in load.sent.iter().enumerate() {
        let due = started + Duration::from_secs_f64(number as f64 / f64::from(rate));
        let early = due.saturating_duration_since(Instant::now());
        // A shorter sleep than this is longer than it says.
        if early > Duration::from_micros(100) {
            std::thread::sleep(early);
        }
        let payload = Protocol::Mdns.payload(&format!("tag-{:08x}{number:08x}", load.run));
        sent.store(load.now(), Ordering::Release);
        voice.send(Family::V4, &payload);
    }
    started.elapsed()
}

/// The latency of every copy, in the order they were read.
fn listen(load: &Load, ears: &[UdpSocket]) -> Vec<u64> {
    let fds: Vec<_> = ears.iter().map(AsRawFd::as_raw_fd).collect();
    let mut latencies = Vec::with_capacity(load.sent.len() * ears.len());
    let mut buffer = [0; 9216];
    let mut last_heard = Instant::now();
    loop {
        let ready = sys::readable(&fds, Duration::from_millis(20));
        for (ear, _) in ears.iter().zip(ready).filter(|(_, ready)| *ready) {
            while let Ok(length) = ear.recv(&mut buffer) {
                let now = load.now();
                last_heard = Instant::now();
                latencies.extend(load.numbers(&buffer[..length]).map(|sent| now.saturating_sub(sent)));
            }
        }
        let complete = latencies.len() >= load.sent.len() * ears.len();
        if load.over.load(Ordering::Acquire) && (complete || last_heard.elapsed() > SILENCE) {
            return latencies;
        }
    }
}

impl Load {
    fn now(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// When the datagrams of this load that are named in a packet were sent: a reflector puts several into one.
    fn numbers<'a>(&'a self, packet: &'a [u8]) -> impl Iterator<Item = u64> + 'a {
        let own = format!("tag-{:08x}", self.run).into_bytes();
        packet.windows(20).filter(move |window| window.starts_with(&own)).filter_map(|window| {
            let number = usize::from_str_radix(std::str::from_utf8(&window[12..]).ok()?, 16).ok()?;
            Some(self.sent.get(number)?.load(Ordering::Acquire))
        })
    }
}

/// How long all processors together have worked since boot (proc(5): all of the first line but idle, iowait and steal).
fn busy() -> Duration {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> =
        text.lines().next().unwrap_or("").split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    let ticks: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&field| fields.get(field)).sum();
    Duration::from_millis(ticks * 10)
}
