//! Which fields of our documents may leave the node? Those on the list, and no other: a field that somebody adds stays here
//! until somebody has thought about it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// The fields of our own documents.
const FIELDS: [&str; 125] = [
    "apiVersion",
    "kind",
    "items",
    "name",
    "health",
    "text",
    "version",
    "subsystems",
    "runtimeConf",
    "file",
    "master",
    "since",
    "problem",
    "warnings",
    "datapath",
    "layout",
    "object",
    "slots",
    "slotsUsed",
    "uncounted",
    "countersReadBy",
    "parents",
    "ifindex",
    "attachedBy",
    "guard",
    "guardFault",
    "members",
    "beyondFanout",
    "programs",
    "id",
    "verifiedInstructions",
    "namespace",
    "pod",
    "container",
    "interface",
    "network",
    "default",
    "state",
    "origin",
    "mac",
    "ips",
    "parent",
    "slot",
    "relay",
    "hostAccess",
    "hostPorts",
    "relayCopy",
    "note",
    "networkStatus",
    "receive",
    "transmit",
    "packets",
    "bytes",
    "multicastPackets",
    "multicastBytes",
    "broadcastPackets",
    "broadcastBytes",
    "protocols",
    "sizes",
    "plugins",
    "cniVersion",
    "attachments",
    "routes",
    "dst",
    "gw",
    "stage",
    "relayed",
    "frames",
    "protocol",
    "path",
    "verdict",
    "reason",
    "guardFrames",
    "type",
    "instance",
    "host",
    "addresses",
    "port",
    "sources",
    "expiresIn",
    "program",
    "on",
    "recorded",
    "verb",
    "runner",
    "calls",
    "buckets",
    "failures",
    "p50Ms",
    "p99Ms",
    "last",
    "lastError",
    "time",
    "code",
    "message",
    "number",
    "first",
    "times",
    "field",
    "remedy",
    "fatal",
    "success",
    "errors",
    "mayPass",
    "categories",
    "checks",
    "description",
    "result",
    "detail",
    "problems",
    "hint",
    "error",
    "tookUs",
    "steps",
    "omitted",
    "plugin",
    "atUs",
    "failed",
    "exit",
    "next",
    "retries",
    "services",
    "about",
    "copies",
    "cause",
];

/// The fields of a pod's network-status (multi-network de-facto standard 1.3, section 5).
const STATUS: [&str; 7] = ["name", "interface", "ips", "mac", "default", "gateway", "mtu"];

/// What may leave of one of our documents; the names of the rest are noted.
pub(super) fn document(value: &Value, dropped: &mut BTreeSet<String>) -> Value {
    only(value, &FIELDS, dropped)
}

/// What may leave of a network-status.
pub(super) fn network_status(value: &Value) -> Value {
    only(value, &STATUS, &mut BTreeSet::new())
}

fn only(value: &Value, fields: &[&str], dropped: &mut BTreeSet<String>) -> Value {
    match value {
        Value::Array(items) => items.iter().map(|item| only(item, fields, dropped)).collect(),
        // Counters by protocol: their names are ours.
        Value::Object(map) if !map.is_empty() && map.values().all(Value::is_number) && fields.len() > STATUS.len() => {
            value.clone()
        }
        Value::Object(map) => {
            let mut kept = Map::new();
            for (key, value) in map {
                match key.as_str() {
                    "networkStatus" if value.is_array() => drop(kept.insert(key.clone(), network_status(value))),
                    known if fields.contains(&known) => drop(kept.insert(key.clone(), only(value, fields, dropped))),
                    other => drop(dropped.insert(other.chars().take(64).collect())),
                }
            }
            Value::Object(kept)
        }
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_not_on_the_list_stays() {
        let mut dropped = BTreeSet::new();
        let kept = document(
            &json!({
                "kind": "X", "password": "canary", "items": [{"pod": "a", "args": {"token": "canary"}}],
                "receive": {"protocols": {"mdns": 1, "arp": 2}},
                "networkStatus": [{"name": "lan", "text": "canary", "dns": {"domain": "canary"}}],
            }),
            &mut dropped,
        );
        assert_eq!(
            kept,
            json!({
                "kind": "X", "items": [{"pod": "a"}], "receive": {"protocols": {"mdns": 1, "arp": 2}},
                "networkStatus": [{"name": "lan"}],
            })
        );
        assert_eq!(dropped.into_iter().collect::<Vec<_>>(), ["args", "password"]);
    }
}
