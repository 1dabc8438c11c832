//! How the relay does beside its peers: latency, loss and the machine's time per packet, by rate and by receivers.
//!
//! Every contender carries the same datagrams to the same kind of receiver, in turn and in one run. It judges nothing.

mod clones;
mod field;
mod load;

use std::fmt::Write as _;
use std::time::Duration;

use field::{Field, Kind};
use load::Outcome;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long each load lasts.
    pub long: Duration,
    /// How often each is repeated; the median counts.
    pub rounds: usize,
    /// Datagrams a second.
    pub rates: Vec<u32>,
    /// Receivers.
    pub receivers: Vec<usize>,
    /// Names of contenders; all when empty.
    pub contenders: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            long: Duration::from_secs(1),
            rounds: 3,
            rates: vec![1_000, 5_000, 20_000, 50_000, 100_000],
            receivers: vec![1, 8, 32],
            contenders: Vec::new(),
        }
    }
}

impl Options {
    fn wants(&self, kind: Kind) -> bool {
        kind == Kind::Silent || self.contenders.is_empty() || self.contenders.iter().any(|name| name == kind.name())
    }
}

/// No more copies than this in one load: a receiver's queue must be able to hold what the listener is late for.
const COPIES: u32 = 1_600_000;

/// The report, as Markdown.
#[must_use]
pub fn report(options: &Options) -> String {
    let mut text = String::from("\n### The relay beside its peers\n\n");
    let _ = writeln!(
        text,
        "mDNS queries over IPv4; each load lasts {:.1} s, median of {} rounds, contenders in turn.\n",
        options.long.as_secs_f64(),
        options.rounds
    );
    text.push_str("| receivers | packets/s | contender | sent/s | lost | p50 µs | p99 µs | CPU µs a packet |\n");
    text.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for &receivers in &options.receivers {
        let fields: Vec<_> =
            Kind::ALL.into_iter().filter(|kind| options.wants(*kind)).map(|kind| Field::new(kind, receivers)).collect();
        for &rate in &options.rates {
            eprintln!("bench: {receivers} receivers, {rate} packets a second");
            for (kind, outcome) in measure(options, &fields, rate, receivers) {
                row(&mut text, receivers, rate, kind, &outcome);
            }
        }
    }
    text
}

/// The medians of every contender but the silent one, whose CPU time in the same round is taken off the others'.
fn measure(options: &Options, fields: &[Field], rate: u32, receivers: usize) -> Vec<(Kind, Outcome)> {
    let wanted = (f64::from(rate) * options.long.as_secs_f64()) as u32;
    let packets = wanted.min(COPIES / receivers as u32);
    let mut taken: Vec<Vec<Outcome>> = vec![Vec::new(); fields.len()];
    for _ in 0..options.rounds {
        let mut silent = 0.0;
        for (field, taken) in fields.iter().zip(&mut taken) {
            let outcome = field.carry(rate, packets);
            if field.kind == Kind::Silent {
                silent = outcome.cpu_us;
            }
            taken.push(Outcome { cpu_us: outcome.cpu_us - silent, ..outcome });
        }
    }
    let pairs = fields.iter().zip(&taken).filter(|(field, _)| field.kind != Kind::Silent);
    pairs.map(|(field, taken)| (field.kind, Outcome::median(taken))).collect()
}

fn row(text: &mut String, receivers: usize, rate: u32, kind: Kind, outcome: &Outcome) {
    let Outcome { sent_per_second, lost_percent, p50_us, p99_us, cpu_us } = outcome;
    let _ = writeln!(
        text,
        "| {receivers} | {rate} | {} | {sent_per_second:.0} | {lost_percent:.2} % | {p50_us:.0} | {p99_us:.0} | {cpu_us:.1} |",
        kind.name()
    );
}
