//! The agent itself as metrics: records, places, the cluster, the datapath's room, the process.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::DescriptorEncoder;

use super::samples::{counters, counts, gauge, gauges};
use crate::metrics::catalogue as all;
use crate::ops::view::{DatapathFacts, Figures, Fill};

const NONE: [(&str, &str); 0] = [];

#[expect(clippy::cast_precision_loss, reason = "numbers of the format are floats; 2^53 of anything is enough")]
pub(super) fn encode(figures: &Figures, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let state = |(state, count): &(&'static str, usize)| ([("state", *state)], *count as f64);
    gauges(encoder, all::RECORDS, figures.records.iter().map(state))?;
    gauge(encoder, all::SPOOL_NOTES, figures.spool_notes as f64)?;
    let rooms = figures.rooms;
    gauges(encoder, all::ADMISSION_LIMIT, rooms.map(|room| ([("pool", room.pool)], room.limit as f64)))?;
    gauges(encoder, all::ADMISSION_IN_FLIGHT, rooms.map(|room| ([("pool", room.pool)], room.in_flight as f64)))?;
    let labels = |fill: &'_ Fill| [("network", fill.network.clone()), ("range", fill.range.clone())];
    gauges(encoder, all::POOL_SIZE, figures.ranges.iter().map(|fill| (labels(fill), fill.size)))?;
    gauges(encoder, all::POOL_USED, figures.ranges.iter().map(|fill| (labels(fill), fill.used)))?;
    gauge(encoder, all::CONF_READY, number(figures.conf_ready))?;
    gauge(encoder, all::CONF_BYPASSED, number(figures.conf_bypassed))?;
    cluster(figures, encoder)?;
    datapath(figures, encoder)?;
    process(figures, encoder)
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
fn cluster(figures: &Figures, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let cluster = &figures.cluster;
    gauge(encoder, all::API_CONNECTED, number(cluster.connected))?;
    let age = |(resource, age): &(&'static str, Duration)| ([("resource", *resource)], age.as_secs_f64());
    gauges(encoder, all::WATCH_AGE, cluster.watches.iter().map(age))?;
    let (valid, invalid) = figures.networks;
    let networks = [("valid", valid), ("invalid", invalid)];
    gauges(encoder, all::NETWORKS, networks.map(|(state, count)| ([("state", state)], count as f64)))?;
    let writes = [
        ("written", cluster.reports_written),
        ("retried", cluster.reports_retried),
        ("dropped", cluster.reports_dropped),
    ];
    counts(encoder, all::STATUS_WRITES, writes.map(|(outcome, count)| ([("outcome", outcome)], count)))?;
    gauge(encoder, all::STATUS_OWED, cluster.reports_pending as f64)?;
    gauge(encoder, all::EVENTS_WAITING, cluster.events_waiting as f64)?;
    counts(encoder, all::EVENTS_DROPPED, [(NONE, cluster.events_dropped)])
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
fn datapath(figures: &Figures, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let facts = figures.datapath.as_ref();
    if figures.datapath_wanted {
        gauge(encoder, all::DATAPATH_READY, number(facts.is_some()))?;
    }
    let of = |pick: fn(&DatapathFacts) -> u32| facts.map_or(0.0, |facts| f64::from(pick(facts)));
    gauge(encoder, all::SLOTS, of(|facts| facts.slots))?;
    gauge(encoder, all::SLOTS_USED, of(|facts| facts.slots_used))?;
    gauge(encoder, all::UNCOUNTED, of(|facts| facts.uncounted))?;
    let parents = || facts.into_iter().flat_map(|facts| &facts.parents);
    let members = parents().map(|parent| ([("parent", parent.name.as_str())], parent.members as f64));
    gauges(encoder, all::RELAY_MEMBERS, members)?;
    let beyond = parents().map(|parent| ([("parent", parent.name.as_str())], parent.overflow as f64));
    gauges(encoder, all::RELAY_BEYOND_FANOUT, beyond)?;
    gauge(encoder, all::BPF_STATS, number(figures.is_measured))?;
    let time = figures.costs.iter().map(|(program, cost)| ([("program", *program)], cost.time.as_secs_f64()));
    counters(encoder, all::PROGRAM_RUN_TIME, time)?;
    let runs = figures.costs.iter().map(|(program, cost)| ([("program", *program)], cost.runs));
    counts(encoder, all::PROGRAM_RUNS, runs)
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
fn process(figures: &Figures, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let layout = figures.datapath.as_ref().map(|facts| facts.layout.to_string()).unwrap_or_default();
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("layout", layout.as_str())];
    gauges(encoder, all::BUILD_INFO, [(labels, 1.0)])?;
    let process = &figures.process;
    counters(encoder, all::PROCESS_CPU, [(NONE, process.cpu.as_secs_f64())])?;
    gauge(encoder, all::PROCESS_MEMORY, process.resident as f64)?;
    gauge(encoder, all::PROCESS_VIRTUAL, process.virtual_memory as f64)?;
    gauge(encoder, all::MEMORY_LIMIT, figures.memory_limit.unwrap_or(0) as f64)?;
    gauge(encoder, all::PROCESS_FDS, process.descriptors as f64)?;
    gauge(encoder, all::PROCESS_MOST_FDS, process.most_descriptors as f64)?;
    gauge(encoder, all::PROCESS_THREADS, process.threads as f64)?;
    gauge(encoder, all::PROCESS_START, process.started.as_secs_f64())
}

fn number(is: bool) -> f64 {
    f64::from(u8::from(is))
}
