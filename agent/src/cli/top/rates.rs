//! What happened between two documents: pure arithmetic on counters, row by row.
//!
//! A counter that went back began anew, so all of it counts. What is in the later document alone has no rate yet.

use std::collections::BTreeMap;

use serde_json::Value;

use super::table::{Cell, Table, bits, millis, percent, short};
use crate::cli::output::cell;
use crate::ops::delegate_tally::quantile;

/// The heads of what is looked at.
pub(super) fn heads(what: &str) -> &'static [&'static str] {
    match what {
        "attachments" => ATTACHMENTS,
        "networks" => NETWORKS,
        "relay" => RELAY,
        _ => DELEGATES,
    }
}

fn items(document: &Value) -> &[Value] {
    document.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn count(item: &Value, pointer: &str) -> u64 {
    item.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn grown(before: u64, after: u64) -> u64 {
    after.checked_sub(before).unwrap_or(after)
}

#[expect(clippy::cast_precision_loss, reason = "what grows within seconds is far below 2^53")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

fn text(item: &Value, pointer: &str) -> Cell {
    Cell::Text(cell(item, pointer))
}

/// What an interface, or several, carried.
#[derive(Debug, Clone, Copy, Default)]
struct Traffic {
    received: u64,
    sent: u64,
    received_bytes: u64,
    sent_bytes: u64,
    group: u64,
}

impl Traffic {
    fn between(before: &Value, after: &Value) -> Self {
        let more = |pointer: &str| grown(count(before, pointer), count(after, pointer));
        Self {
            received: more("/receive/packets"),
            sent: more("/transmit/packets"),
            received_bytes: more("/receive/bytes"),
            sent_bytes: more("/transmit/bytes"),
            group: [
                "/receive/multicastPackets",
                "/receive/broadcastPackets",
                "/transmit/multicastPackets",
                "/transmit/broadcastPackets",
            ]
            .into_iter()
            .map(more)
            .sum(),
        }
    }

    fn add(&mut self, other: Self) {
        self.received += other.received;
        self.sent += other.sent;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.group += other.group;
    }

    fn cells(self, seconds: f64) -> [Cell; 6] {
        let rate = |count| per_second(count, seconds);
        let all = self.received + self.sent;
        let share = if all == 0 {
            Cell::Nothing
        } else {
            Cell::Number(per_second(self.group * 100, 1.0) / per_second(all, 1.0), percent)
        };
        [
            Cell::Number(rate(all), short),
            Cell::Number(rate(self.received), short),
            Cell::Number(rate(self.sent), short),
            Cell::Number(rate(self.received_bytes * 8), bits),
            Cell::Number(rate(self.sent_bytes * 8), bits),
            share,
        ]
    }
}

/// Documents' items by what tells them apart.
fn by_key(document: &Value, pointers: &[&str]) -> BTreeMap<Vec<String>, Value> {
    let key = |item: &Value| pointers.iter().map(|pointer| cell(item, pointer)).collect();
    items(document).iter().map(|item| (key(item), item.clone())).collect()
}

const ATTACHMENTS: &[&str] = &[
    "NAMESPACE",
    "POD",
    "INTERFACE",
    "NETWORK",
    "PACKETS/S",
    "RECEIVED/S",
    "SENT/S",
    "RECEIVED-BITS/S",
    "SENT-BITS/S",
    "GROUP",
];

/// Each interface that is counted.
pub(super) fn attachments(before: &Value, after: &Value, seconds: f64) -> Table {
    let key = ["/container", "/interface"];
    let earlier = by_key(before, &key);
    let rows = by_key(after, &key).into_iter().filter(|(_, item)| item.get("receive").is_some_and(Value::is_object));
    let row = |(key, item): (Vec<String>, Value)| {
        let mut row =
            vec![text(&item, "/namespace"), text(&item, "/pod"), text(&item, "/interface"), text(&item, "/network")];
        match earlier.get(&key) {
            Some(before) => row.extend(Traffic::between(before, &item).cells(seconds)),
            None => row.extend([const { Cell::Nothing }; 6]),
        }
        row
    };
    Table::of(ATTACHMENTS, rows.map(row).collect())
}

const NETWORKS: &[&str] =
    &["NETWORK", "INTERFACES", "PACKETS/S", "RECEIVED/S", "SENT/S", "RECEIVED-BITS/S", "SENT-BITS/S", "GROUP"];

/// Each network, all its interfaces together.
pub(super) fn networks(before: &Value, after: &Value, seconds: f64) -> Table {
    let key = ["/container", "/interface"];
    let earlier = by_key(before, &key);
    let mut sums: BTreeMap<String, (u64, Traffic)> = BTreeMap::new();
    for (key, item) in by_key(after, &key) {
        let (interfaces, sum) = sums.entry(cell(&item, "/network")).or_default();
        *interfaces += 1;
        if let Some(before) = earlier.get(&key) {
            sum.add(Traffic::between(before, &item));
        }
    }
    let row = |(network, (interfaces, sum)): (String, (u64, Traffic))| {
        let mut row = vec![Cell::Text(network), Cell::Number(per_second(interfaces, 1.0), short)];
        row.extend(sum.cells(seconds));
        row
    };
    Table::of(NETWORKS, sums.into_iter().map(row).collect())
}

const RELAY: &[&str] = &["PARENT", "PROTOCOL", "PATH", "VERDICT", "REASON", "FRAMES/S", "FRAMES"];

/// Each counter of the relay that is not zero.
pub(super) fn relay(before: &Value, after: &Value, seconds: f64) -> Table {
    let flat = |document: &Value| {
        let mut counts = BTreeMap::new();
        for item in items(document) {
            let parent = cell(item, "/parent");
            for frames in item.get("frames").and_then(Value::as_array).into_iter().flatten() {
                let mut key = vec![parent.clone()];
                key.extend(["/protocol", "/path", "/verdict", "/reason"].map(|pointer| cell(frames, pointer)));
                counts.insert(key, count(frames, "/frames"));
            }
        }
        counts
    };
    let earlier = flat(before);
    let row = |(key, now): (Vec<String>, u64)| {
        let rate = earlier.get(&key).map(|then| per_second(grown(*then, now), seconds));
        let mut row: Vec<Cell> = key.into_iter().map(Cell::Text).collect();
        row.push(rate.map_or(Cell::Nothing, |rate| Cell::Number(rate, short)));
        row.push(Cell::Number(per_second(now, 1.0), short));
        row
    };
    Table::of(RELAY, flat(after).into_iter().filter(|(_, now)| *now > 0).map(row).collect())
}

const DELEGATES: &[&str] =
    &["TYPE", "VERB", "RUNNER", "CALLS/S", "P50", "P99", "FAILURES/S", "CALLS", "ALL-P50", "ALL-P99", "FAILURES"];

/// Each plugin: what it did between the looks, then since the agent started.
pub(super) fn delegates(before: &Value, after: &Value, seconds: f64) -> Table {
    let key = ["/type", "/verb", "/runner"];
    let earlier = by_key(before, &key);
    let buckets = |item: &Value| -> Vec<u64> {
        item.get("buckets").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64).collect()
    };
    let row = |(key, item): (Vec<String>, Value)| {
        // A plugin that was not called before was called between the looks for the first time.
        let before = earlier.get(&key).cloned().unwrap_or_default();
        let then = buckets(&before);
        let all = buckets(&item);
        let new: Vec<u64> =
            all.iter().enumerate().map(|(at, now)| grown(then.get(at).copied().unwrap_or(0), *now)).collect();
        let quantiles = |buckets: &[u64]| {
            [0.5, 0.99].map(|share| match buckets.iter().sum::<u64>() {
                0 => Cell::Nothing,
                _ => Cell::Number(quantile(buckets, share) * 1000.0, millis),
            })
        };
        let more = |pointer: &str| {
            Cell::Number(per_second(grown(count(&before, pointer), count(&item, pointer)), seconds), short)
        };
        let total = |pointer: &str| Cell::Number(per_second(count(&item, pointer), 1.0), short);
        let mut row: Vec<Cell> = key.into_iter().map(Cell::Text).collect();
        row.push(more("/calls"));
        row.extend(quantiles(&new));
        row.extend([more("/failures"), total("/calls")]);
        row.extend(quantiles(&all));
        row.push(total("/failures"));
        row
    };
    Table::of(DELEGATES, by_key(after, &key).into_iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn interface(pod: &str, network: &str, packets: u64) -> Value {
        let half =
            json!({"packets": packets, "bytes": packets * 100, "multicastPackets": packets / 4, "broadcastPackets": 0});
        json!({"namespace": "x", "pod": pod, "container": pod, "interface": "net1", "network": network,
               "receive": half, "transmit": {"packets": 0, "bytes": 0, "multicastPackets": 0, "broadcastPackets": 0}})
    }

    #[test]
    fn interfaces_are_sorted_by_what_they_carry_and_networks_are_sums() {
        let before = json!({"items": [interface("a", "x/lan", 100), interface("b", "x/lan", 100), interface("c", "x/iot", 900)]});
        let after = json!({"items": [interface("a", "x/lan", 140), interface("b", "x/lan", 2_100), interface("c", "x/iot", 8),
                                     interface("new", "x/iot", 7), {"namespace": "x", "pod": "d", "container": "d", "interface": "eth0", "network": "n", "receive": null}]});
        let mut table = attachments(&before, &after, 2.0);
        table.sort(None, false);
        assert_eq!(table.sorted_by(), "PACKETS/S");
        let wanted = "\
NAMESPACE  POD  INTERFACE  NETWORK  PACKETS/S  RECEIVED/S  SENT/S  RECEIVED-BITS/S  SENT-BITS/S  GROUP
x          b    net1       x/lan    1.0k       1.0k        0       800kb            0b           25%
x          a    net1       x/lan    20         20          0       16.0kb           0b           25%
x          c    net1       x/iot    4          4           0       3.2kb            0b           25%
x          new  net1       x/iot    -          -           -       -                -            -
";
        let plain = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(plain(&table.text()), plain(wanted));
        table.sort(Some(1), false);
        assert_eq!(table.items()[0]["pod"], "a", "names from the first");
        table.sort(Some(1), true);
        assert_eq!(table.items()[0]["pod"], "new", "or from the last");
        assert_eq!((table.len(), table.shown(3)[0][1].clone()), (4, (false, "a".to_owned())));
        let mut table = networks(&before, &after, 2.0);
        table.sort(Some(2), false);
        let lan = &table.items()[0];
        assert_eq!(
            (&lan["network"], &lan["interfaces"], &lan["packets/s"]),
            (&json!("x/lan"), &json!(2.0), &json!(1_020.0))
        );
    }

    #[test]
    fn percentiles_are_those_of_the_calls_between_the_looks() {
        let plugin = |fast: u64, slow: u64| {
            let mut buckets = vec![0; 16];
            (buckets[4], buckets[9]) = (fast, slow);
            json!({"items": [{"type": "macvlan", "verb": "ADD", "runner": "shim", "calls": fast + slow, "failures": slow, "buckets": buckets}]})
        };
        let row = |before: &Value, after: &Value| delegates(before, after, 2.0).items().remove(0);
        let slow_now = row(&plugin(1_000, 0), &plugin(1_000, 4));
        assert!(slow_now["p50"].as_f64() > Some(500.0) && slow_now["all-p50"].as_f64() < Some(25.0), "{slow_now}");
        assert_eq!((&slow_now["calls/s"], &slow_now["failures/s"]), (&json!(2.0), &json!(2.0)));
        let quiet = row(&plugin(10, 0), &plugin(10, 0));
        assert!(quiet["p50"].is_null() && quiet["all-p99"].is_number(), "{quiet}");
        let first = row(&json!({"items": []}), &plugin(4, 0));
        assert_eq!(first["calls/s"], 2.0);
    }

    #[test]
    fn the_relay_shows_what_moved() {
        let document = |relayed: u64| {
            json!({"items": [{"parent": "eth0", "frames": [
            {"protocol": "mdns", "path": "host_to_pod", "verdict": "relayed", "reason": "", "frames": relayed},
            {"protocol": "ssdp", "path": "host_to_pod", "verdict": "relayed", "reason": "", "frames": 0}]}]})
        };
        let items = relay(&document(5), &document(25), 4.0).items();
        assert_eq!((items.len(), &items[0]["frames/s"], &items[0]["frames"]), (1, &json!(5.0), &json!(25.0)));
    }
}
