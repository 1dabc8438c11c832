//! What have the slots counted, and how is it read? All of them in as few calls as the kernel allows, or one call each.
//!
//! Knows nothing of attachments: a slot is a number.

use std::path::Path;

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use multus_ebpf_common::counters::{InterfaceCounters, PROTOCOL_ROOM, RECEIVE, SIZE_BUCKETS, TRANSMIT};

use super::error::{DatapathError, chain};
use super::maps::{self, BPF_ANY, Plain};
use super::report::Interface;
use crate::sys::bpf::PerCpuWords;

/// The map's name.
const NAME: &str = "if_counters";

/// How the counters of all slots are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Many in one call (`BPF_MAP_LOOKUP_BATCH`; for per-CPU arrays from kernel 5.13 on).
    Batch,
    /// One call for each slot and direction.
    Single,
}

impl Reading {
    /// The word for it in the status.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::Single => "single",
        }
    }
}

/// The counter map, open.
pub(super) struct Counters {
    map: PerCpuArray<MapData, Plain<InterfaceCounters>>,
    /// The same map, for batches; `None`: the kernel has none for it.
    batches: Option<PerCpuWords>,
    cpus: usize,
}

impl Counters {
    /// Opens `map`, and tries whether the kernel reads many of its entries in one call.
    pub(super) fn open(map: Map, cpus: usize) -> Result<Self, DatapathError> {
        let words = match &map {
            Map::PerCpuArray(data) => {
                PerCpuWords::of(data.fd()).and_then(|words| words.sums(1, |_, _| {}).map(|()| words))
            }
            _ => Err(std::io::ErrorKind::InvalidInput.into()),
        };
        let batches = words.inspect_err(|error| tracing::info!("counters are read one by one: {error}")).ok();
        Ok(Self { map: PerCpuArray::try_from(map).map_err(maps::on("open", NAME))?, batches, cpus })
    }

    /// How many slots the map really has (a pinned one keeps the size it was made with).
    pub(super) fn slots(&self) -> u32 {
        self.map.len() / 2
    }

    /// How [`Self::all`] reads.
    pub(super) fn reading(&self) -> Reading {
        if self.batches.is_some() { Reading::Batch } else { Reading::Single }
    }

    /// Both directions of a slot, summed over the CPUs.
    pub(super) fn one(&self, slot: u32) -> Result<Interface, DatapathError> {
        Ok(Interface { receive: self.direction(slot, RECEIVE)?, transmit: self.direction(slot, TRANSMIT)? })
    }

    /// The same of the first `slots` slots, by slot.
    pub(super) fn all(&self, slots: u32) -> Result<Vec<Interface>, DatapathError> {
        let slots = slots.min(self.slots());
        let Some(batches) = &self.batches else { return (0..slots).map(|slot| self.one(slot)).collect() };
        let mut all = vec![Interface::default(); usize::try_from(slots).unwrap_or_default()];
        let read = batches.sums(slots.saturating_mul(2), |index, words| {
            let slot = usize::try_from(index / 2).ok().and_then(|slot| all.get_mut(slot));
            match slot {
                Some(slot) if index % 2 == RECEIVE => slot.receive = of_words(words),
                Some(slot) => slot.transmit = of_words(words),
                None => {}
            }
        });
        read.map_err(|error| maps::failed("read", NAME)(chain(&error)))?;
        Ok(all)
    }

    fn direction(&self, slot: u32, direction: u32) -> Result<InterfaceCounters, DatapathError> {
        let index = slot.saturating_mul(2).saturating_add(direction);
        let values = self.map.get(&index, 0).map_err(maps::on("read", NAME))?;
        Ok(values.iter().fold(InterfaceCounters::default(), |sum, value| add(sum, &value.0)))
    }

    /// Another map of the same form, pinned at `path`. Fields are only ever added to a slot's counters, so values of one
    /// size have the same fields. `None`: there is none such.
    pub(super) fn alike(&self, path: &Path) -> Option<Self> {
        let map = Map::from_map_data(MapData::from_pin(path).ok()?).ok()?;
        Self::open(map, self.cpus).ok()
    }

    /// Adds what a slot counted in `before`, from which it is taken. Nothing may count there any more. Somebody counts
    /// here: what one processor counts in the moment between our reading and our writing is missed.
    pub(super) fn take_along(&mut self, slot: u32, before: &mut Self) -> Result<(), DatapathError> {
        if slot >= before.slots() {
            return Ok(());
        }
        for direction in [RECEIVE, TRANSMIT] {
            let index = slot * 2 + direction;
            let counted = before.map.get(&index, 0).map_err(maps::on("read", NAME))?;
            let here = self.map.get(&index, 0).map_err(maps::on("read", NAME))?;
            let both: Vec<_> =
                here.iter().zip(counted.iter()).map(|(here, more)| Plain(add(here.0, &more.0))).collect();
            let both = PerCpuValues::try_from(both).map_err(|error| maps::failed("write", NAME)(error.to_string()))?;
            self.map.set(index, both, BPF_ANY).map_err(maps::on("write", NAME))?;
        }
        // An agent that is killed now takes nothing along a second time.
        before.zero(slot)
    }

    /// Zeroes a slot, so that its next owner inherits nothing.
    pub(super) fn zero(&mut self, slot: u32) -> Result<(), DatapathError> {
        for direction in [RECEIVE, TRANSMIT] {
            let zero = maps::zeroes(InterfaceCounters::default(), self.cpus, NAME)?;
            self.map.set(slot * 2 + direction, zero, BPF_ANY).map_err(maps::on("write", NAME))?;
        }
        Ok(())
    }
}

fn add(mut sum: InterfaceCounters, value: &InterfaceCounters) -> InterfaceCounters {
    sum.packets += value.packets;
    sum.bytes += value.bytes;
    sum.multicast_packets += value.multicast_packets;
    sum.multicast_bytes += value.multicast_bytes;
    sum.broadcast_packets += value.broadcast_packets;
    sum.broadcast_bytes += value.broadcast_bytes;
    for (total, part) in sum.protocols.iter_mut().zip(value.protocols) {
        *total += part;
    }
    for (total, part) in sum.sizes.iter_mut().zip(value.sizes) {
        *total += part;
    }
    sum
}

/// The value is words in the order of its fields (layout test of the shared crate).
fn of_words(words: &[u64]) -> InterfaceCounters {
    let mut words = words.iter().copied();
    let mut next = || words.next().unwrap_or_default();
    InterfaceCounters {
        packets: next(),
        bytes: next(),
        multicast_packets: next(),
        multicast_bytes: next(),
        broadcast_packets: next(),
        broadcast_bytes: next(),
        protocols: [(); PROTOCOL_ROOM].map(|()| next()),
        sizes: [(); SIZE_BUCKETS].map(|()| next()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_fields_in_order() {
        let words: Vec<u64> = (1..=30).collect();
        let counters = of_words(&words);
        assert_eq!((counters.packets, counters.broadcast_bytes), (1, 6));
        assert_eq!((counters.protocols[0], counters.protocols[15]), (7, 22));
        assert_eq!((counters.sizes[0], counters.sizes[7]), (23, 30));
        assert_eq!(add(counters, &counters).sizes[7], 60);
    }
}
