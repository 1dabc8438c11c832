//! The text a scrape gets: the registered families, and what the kernel's maps say at this moment.

mod agent;
mod discovery;
mod samples;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use multus_ebpf_common::counters::{InterfaceCounters, PROTOCOLS, SIZE_BOUNDS};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::metrics::Described;
use crate::metrics::catalogue::{
    GUARD_FRAMES, NETWORK_NAME, PACKET_SIZE, PROTOCOL_PACKETS, RECEIVE_BYTES, RECEIVE_PACKETS, RELAY_FRAMES,
    TRANSMIT_BYTES, TRANSMIT_PACKETS,
};
use crate::ops::context::Context;
use crate::ops::view::{self, CountedView, Interface, Looks, RelayView};
use samples::begin;

/// The content type of [`Exposition::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that can be scraped.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
}

impl Exposition {
    /// The families of `context`.
    pub fn new(context: &Arc<Context>) -> Self {
        let mut registry = Registry::default();
        context.metrics.register(&mut registry);
        context.cluster.calls().register(&mut registry);
        registry.register_collector(Box::new(Kernel(Arc::clone(context))));
        registry.register_collector(Box::new(Agent { context: Arc::clone(context), looks: Mutex::default() }));
        Self { registry }
    }

    /// The text of one scrape.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// Interface and relay counters, read from the maps when asked.
#[derive(Debug)]
struct Kernel(Arc<Context>);

/// The agent itself, and what it keeps.
#[derive(Debug)]
struct Agent {
    context: Arc<Context>,
    looks: Mutex<Looks>,
}

impl Collector for Agent {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = view::figures(&self.context, &mut looks);
        drop(looks);
        agent::encode(&figures, &mut encoder)
    }
}

/// An attachment that is counted, and what it carried.
type Counted<'a> = (&'a CountedView, &'a Interface);

type Labels<'a> = [(&'static str, &'a str); 4];

impl Collector for Kernel {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = view::counted(&self.0);
        let counted: Vec<_> = all.iter().filter_map(|item| Some((item, item.counters.as_ref()?))).collect();
        casts(&mut encoder, RECEIVE_PACKETS, &counted, |c| packets(&c.receive))?;
        casts(&mut encoder, TRANSMIT_PACKETS, &counted, |c| packets(&c.transmit))?;
        casts(&mut encoder, RECEIVE_BYTES, &counted, |c| bytes(&c.receive))?;
        casts(&mut encoder, TRANSMIT_BYTES, &counted, |c| bytes(&c.transmit))?;
        protocols(&mut encoder, &counted)?;
        sizes(&mut encoder, &counted)?;
        names(&mut encoder, &all)?;
        let relays = view::relay(&self.0).items;
        relay(&mut encoder, &relays)?;
        guard(&mut encoder, &relays)?;
        discovery::encode(&self.0.discovery, &mut encoder)
    }
}

/// Unicast, multicast, broadcast.
type Casts = [u64; 3];

fn packets(d: &InterfaceCounters) -> Casts {
    [d.packets.saturating_sub(d.multicast_packets + d.broadcast_packets), d.multicast_packets, d.broadcast_packets]
}

fn bytes(d: &InterfaceCounters) -> Casts {
    [d.bytes.saturating_sub(d.multicast_bytes + d.broadcast_bytes), d.multicast_bytes, d.broadcast_bytes]
}

fn labels(item: &CountedView) -> Labels<'_> {
    [
        ("namespace", item.namespace.as_str()),
        ("pod", item.pod.as_str()),
        ("interface", item.interface.as_str()),
        ("network", item.network.as_str()),
    ]
}

fn casts(
    encoder: &mut DescriptorEncoder<'_>,
    family: Described,
    items: &[Counted<'_>],
    of: impl Fn(&Interface) -> Casts,
) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    let mut family = begin(encoder, family)?;
    for (item, counters) in items {
        let [namespace, pod, interface, network] = labels(item);
        for (cast, value) in ["unicast", "multicast", "broadcast"].into_iter().zip(of(counters)) {
            let labels = [namespace, pod, interface, network, ("cast", cast)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
    }
    Ok(())
}

fn halves(counters: &Interface) -> [(&'static str, &InterfaceCounters); 2] {
    [("receive", &counters.receive), ("transmit", &counters.transmit)]
}

fn protocols(encoder: &mut DescriptorEncoder<'_>, items: &[Counted<'_>]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    let mut family = begin(encoder, PROTOCOL_PACKETS)?;
    for (item, counters) in items {
        let [namespace, pod, interface, network] = labels(item);
        for (direction, half) in halves(counters) {
            for (protocol, value) in PROTOCOLS.iter().zip(half.protocols) {
                let direction = ("direction", direction);
                let labels = [namespace, pod, interface, network, direction, ("protocol", *protocol)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
            }
        }
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a histogram's sum is a float in the format; 2^53 bytes are enough")]
fn sizes(encoder: &mut DescriptorEncoder<'_>, items: &[Counted<'_>]) -> fmt::Result {
    if items.is_empty() {
        return Ok(());
    }
    let bounds = SIZE_BOUNDS.iter().map(|bound| f64::from(*bound)).chain([f64::INFINITY]);
    let bounds: Vec<f64> = bounds.collect();
    let mut family = begin(encoder, PACKET_SIZE)?;
    for (item, counters) in items {
        let [namespace, pod, interface, network] = labels(item);
        for (direction, half) in halves(counters) {
            let buckets: Vec<(f64, u64)> = bounds.iter().copied().zip(half.sizes).collect();
            let count = half.sizes.iter().sum();
            let labels = [namespace, pod, interface, network, ("direction", direction)];
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<NoLabelSet>(half.bytes as f64, count, &buckets, None)?;
        }
    }
    Ok(())
}

fn names(encoder: &mut DescriptorEncoder<'_>, items: &[CountedView]) -> fmt::Result {
    let secondary: Vec<_> = items.iter().filter(|item| !item.default && !item.pod.is_empty()).collect();
    if secondary.is_empty() {
        return Ok(());
    }
    let mut family = begin(encoder, NETWORK_NAME)?;
    for item in secondary {
        let labels = [
            ("pod", item.pod.as_str()),
            ("namespace", item.namespace.as_str()),
            ("interface", item.interface.as_str()),
            ("network_name", item.network.as_str()),
        ];
        ConstGauge::new(0_i64).encode(family.encode_family(&labels.as_slice())?)?;
    }
    Ok(())
}

fn relay(encoder: &mut DescriptorEncoder<'_>, relays: &[RelayView]) -> fmt::Result {
    if relays.iter().all(|relay| relay.frames.is_empty()) {
        return Ok(());
    }
    let mut family = begin(encoder, RELAY_FRAMES)?;
    for relay in relays {
        for count in &relay.frames {
            let labels = [
                ("parent", relay.parent.as_str()),
                ("protocol", count.protocol.as_str()),
                ("path", count.path),
                ("verdict", count.verdict),
                ("reason", count.reason),
            ];
            family.encode_family(&labels.as_slice())?.encode_counter::<NoLabelSet, _, u64>(&count.frames, None)?;
        }
    }
    Ok(())
}

fn guard(encoder: &mut DescriptorEncoder<'_>, relays: &[RelayView]) -> fmt::Result {
    if relays.iter().all(|relay| relay.guard_frames.is_empty()) {
        return Ok(());
    }
    let mut family = begin(encoder, GUARD_FRAMES)?;
    for relay in relays {
        for count in &relay.guard_frames {
            let labels = [
                ("parent", relay.parent.as_str()),
                ("protocol", count.protocol.as_str()),
                ("verdict", count.verdict),
                ("reason", count.reason),
            ];
            family.encode_family(&labels.as_slice())?.encode_counter::<NoLabelSet, _, u64>(&count.frames, None)?;
        }
    }
    Ok(())
}
