//! The metric catalogue: every family's name, labels and help text, and the handles that operations count with.
//!
//! The one file that declares metrics; `docs/reference/metrics.md` lists the same. Interface and relay counters are
//! read from the kernel at scrape time and have no handle here, only a [`Described`] row.

use std::sync::Mutex;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::fault::code;

/// A family that is encoded from a snapshot: name without `_total`, and help text without its full stop.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Name.
    pub name: &'static str,
    /// Help.
    pub help: &'static str,
}

macro_rules! described {
    ($($(#[$doc:meta])* $const:ident = $name:literal, $help:literal;)+) => {
        $($(#[$doc])* pub const $const: Described = Described { name: $name, help: $help };)+
    };
}

described! {
    /// Labels: namespace, pod, interface, network, cast.
    RECEIVE_PACKETS = "multus_interface_receive_packets", "Packets the pod received on a secondary interface";
    /// Labels: namespace, pod, interface, network, cast.
    TRANSMIT_PACKETS = "multus_interface_transmit_packets", "Packets the pod sent on a secondary interface";
    /// Labels: namespace, pod, interface, network, cast.
    RECEIVE_BYTES = "multus_interface_receive_bytes", "Bytes the pod received on a secondary interface, Ethernet header included";
    /// Labels: namespace, pod, interface, network, cast.
    TRANSMIT_BYTES = "multus_interface_transmit_bytes", "Bytes the pod sent on a secondary interface, Ethernet header included";
    /// Labels: namespace, pod, interface, network, direction, protocol.
    PROTOCOL_PACKETS = "multus_interface_protocol_packets", "Packets on a secondary interface by protocol class";
    /// Labels: namespace, pod, interface, network, direction.
    PACKET_SIZE = "multus_interface_packet_size_bytes", "Packet sizes on a secondary interface";
    /// Labels: parent, protocol, path, verdict, reason.
    RELAY_FRAMES = "multus_relay_frames", "Discovery frames the relay looked at, by what became of them";
    /// Labels: parent, type.
    DISCOVERY_SERVICES = "multus_discovery_services", "Services that are announced on a parent, by type";
    /// Labels: parent.
    DISCOVERY_RECORDS = "multus_discovery_records", "Announced records that are remembered for a parent";
    /// Labels: parent, outcome.
    DISCOVERY_DATAGRAMS = "multus_discovery_datagrams", "Announcements that were heard on a parent, dropped, and told again to pods";
    /// Labels: parent, protocol, verdict, reason.
    GUARD_FRAMES = "multus_guard_frames", "Discovery frames from the LAN that the storm guard looked at, by what became of them";
    /// Labels: pod, namespace, interface, network_name. Always 0; joined with `+`, as network-metrics-daemon's.
    NETWORK_NAME = "pod_network_name_info", "Which network an interface of a pod belongs to";
}

/// `multus_cni_*` labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The verb, upper case.
    pub verb: &'static str,
    /// The CNI error code; 0 on success.
    pub code: u32,
}

/// `multus_delegate_*` labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DelegateLabels {
    /// The plugin's type; `other` beyond the first 64 that were seen.
    pub r#type: String,
    /// The verb it was called with.
    pub verb: &'static str,
    /// Who ran it: `shim` or `host`.
    pub runner: &'static str,
}

/// `multus_server_request_total` labels, as upstream has them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ServerLabels {
    /// The path, `NotFound` for others.
    pub handler: &'static str,
    /// The HTTP status.
    pub code: u16,
    /// The HTTP method.
    pub method: &'static str,
}

/// `multus_datapath_repairs_total` labels.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RepairLabels {
    /// `parent` or `pod`.
    pub object: &'static str,
    /// What somebody did to it.
    pub reason: &'static str,
}

/// What is put right, or followed, on what; every pair exists at 0.
const REPAIRS: [(&str, &[&str]); 2] = [
    ("parent", &["programs", "order", "mac", "name"]),
    ("pod", &["programs", "order", "mac", "parent", "interface", "gone"]),
];

fn repairs() -> Family<RepairLabels, Counter> {
    let family = Family::default();
    for (object, reasons) in REPAIRS {
        for reason in reasons {
            drop(family.get_or_create(&RepairLabels { object, reason }));
        }
    }
    family
}

/// The handles.
#[derive(Debug)]
pub struct Metrics {
    /// `multus_cni_requests_total`.
    pub requests: Family<RequestLabels, Counter>,
    /// `multus_cni_request_duration_seconds`.
    pub request_duration: Family<RequestLabels, Histogram, fn() -> Histogram>,
    /// `multus_delegate_duration_seconds`.
    pub delegate_duration: Family<DelegateLabels, Histogram, fn() -> Histogram>,
    /// `multus_server_request_total`.
    pub server_requests: Family<ServerLabels, Counter>,
    /// `multus_datapath_repairs_total`.
    pub repairs: Family<RepairLabels, Counter>,
    types: Mutex<Vec<String>>,
    codes: Mutex<Vec<u32>>,
}

/// Most plugin types that get a label value of their own.
const MOST_TYPES: usize = 64;
/// Most error codes that do.
const MOST_CODES: usize = 64;

/// The bounds of every histogram of durations, in seconds.
pub const DURATIONS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

fn durations() -> Histogram {
    Histogram::new(DURATIONS)
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            request_duration: Family::new_with_constructor(durations),
            delegate_duration: Family::new_with_constructor(durations),
            server_requests: Family::default(),
            repairs: repairs(),
            types: Mutex::default(),
            codes: Mutex::default(),
        }
    }
}

impl Metrics {
    /// Registers every family with a handle.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("multus_cni_requests", "CNI requests by verb and error code", self.requests.clone());
        registry.register(
            "multus_cni_request_duration_seconds",
            "Time from a CNI request's arrival to its answer",
            self.request_duration.clone(),
        );
        registry.register(
            "multus_delegate_duration_seconds",
            "Time a delegate plugin took",
            self.delegate_duration.clone(),
        );
        registry.register("multus_server_request", "HTTP requests on the agent's socket", self.server_requests.clone());
        registry.register(
            "multus_datapath_repairs",
            "What others did to the datapath and the agent put right or followed",
            self.repairs.clone(),
        );
    }

    /// The label value for a plugin type: itself, or `other` when too many were seen (a NAD's author chooses them).
    pub fn type_label(&self, plugin: &str) -> String {
        let Ok(mut types) = self.types.lock() else { return "other".into() };
        if !types.iter().any(|seen| seen == plugin) {
            if types.len() >= MOST_TYPES {
                return "other".into();
            }
            types.push(plugin.to_owned());
        }
        plugin.to_owned()
    }

    /// The label value for an error code: itself, or 999 when too many were seen (a plugin may print any).
    pub fn code_label(&self, code: u32) -> u32 {
        let Ok(mut codes) = self.codes.lock() else { return code::INTERNAL };
        if !codes.contains(&code) {
            if codes.len() >= MOST_CODES {
                return code::INTERNAL;
            }
            codes.push(code);
        }
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_types_are_bounded() {
        let metrics = Metrics::default();
        for n in 0..MOST_TYPES {
            assert_eq!(metrics.type_label(&format!("p{n}")), format!("p{n}"));
        }
        assert_eq!(metrics.type_label("one-too-many"), "other");
        assert_eq!(metrics.type_label("p0"), "p0");
        for code in 0..64 {
            assert_eq!(metrics.code_label(code), code);
        }
        assert_eq!((metrics.code_label(4_000_000), metrics.code_label(7)), (code::INTERNAL, 7));
    }
}
