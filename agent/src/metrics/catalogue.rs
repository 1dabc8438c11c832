//! Which metric families there are: name, type, labels with their values, and what each one means.
//!
//! The one place that declares metrics. Handles, the exposition and docs/reference/metrics.md are made from it. Counts
//! nothing.

/// What a family is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, and begins anew at 0.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Buckets, a sum and a count.
    Histogram,
}

/// A label of a family.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Of what, where other families mean something else by the same name.
    pub of: &'static str,
    /// The values it can have, in Markdown.
    pub values: &'static str,
}

/// A family: its name without `_total`, and its help text without the full stop.
#[derive(Debug, Clone, Copy)]
pub struct Described {
    /// Name.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Help.
    pub help: &'static str,
    /// Labels, in order.
    pub labels: &'static [Label],
}

impl Described {
    /// The name that a query uses.
    pub fn queried(&self) -> String {
        format!("{}{}", self.name, if self.kind == Kind::Counter { "_total" } else { "" })
    }

    /// What one is counted in, by the name's last word.
    pub fn unit(&self) -> &'static str {
        const UNITS: [(&str, &str); 3] = [("_seconds", "seconds"), ("_bytes", "bytes"), ("_packets", "packets")];
        UNITS.iter().find(|(ending, _)| self.name.ends_with(ending)).map_or("", |(_, unit)| unit)
    }
}

/// Families that belong together.
#[derive(Debug, Clone, Copy)]
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// The families.
    pub families: &'static [Described],
}

macro_rules! labels {
    ($($const:ident = $name:literal $(of $of:literal)?, $values:literal;)+) => {
        $(const $const: Label = Label { name: $name, of: concat!($($of)?), values: $values };)+
    };
}

macro_rules! catalogue {
    ($($title:literal { $($const:ident: $kind:ident $name:literal [$($label:ident)*] $help:literal;)+ })+) => {
        $($(
            #[doc = $help]
            pub const $const: Described =
                Described { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*] };
        )+)+
        /// Every family there is.
        pub const CATALOGUE: &[Group] = &[$(Group { title: $title, families: &[$($const),+] }),+];
    };
}

labels! {
    NAMESPACE = "namespace", "the pod's namespace";
    POD = "pod", "the pod's name";
    INTERFACE = "interface", "the interface's name in the pod";
    NETWORK = "network", "the network's name as in network-status";
    NETWORK_NAME_LABEL = "network_name", "the same as `network`; this name is network-metrics-daemon's";
    CAST = "cast", "`unicast`, `multicast`, `broadcast`. It follows the IP destination; the MAC only for frames without IP";
    DIRECTION = "direction", "`receive`, `transmit`; the pod's view";
    PROTOCOL = "protocol" of "an interface", "`arp`, `nd`, `icmp`, `tcp`, `udp`, `mdns`, `ssdp`, `wsd`, `coap`, `igmp`, `mld`, `dhcp`, `sctp`, `other`; each packet is in one";
    RELAYED_PROTOCOL = "protocol" of "the relay", "a protocol of the [configuration](configuration.md#datapath), or `host-access`";
    PARENT = "parent", "the name of the macvlan parent; of reflection, the uplink that the frame came from or was for";
    PATH = "path", "`host_to_pod`, `pod_to_host`; of reflection `lan_to_pod`, `pod_to_lan`, `link_to_link`";
    VERDICT = "verdict" of "the relay", "`relayed`, for host access: carried to its receiver; `skipped`: the frame went where it goes without us";
    REASON = "reason" of "the relay", "why it was skipped, see below; empty when relayed";
    GUARD_VERDICT = "verdict" of "the storm guard", "`passed`, `dropped`";
    GUARD_REASON = "reason" of "the storm guard", "`rate`: dropped, as its source sends more than it may; `probe`, `goodbye`: passed because it is that; empty for what is within its source's rate";
    SERVICE_TYPE = "type" of "services", "such as `_ipp._tcp`; `other` beyond the twenty most frequent of a parent, and for odd ones";
    DATAGRAM_OUTCOME = "outcome" of "an announcement", "`kept` (remembered); `malformed`; `limited` (more than 200 a second on the parent, or 25 of one device; also reports of joining the group, beyond 200 a second); `lost` (waiting too long for the agent); `evicted` (forgotten for others, see [discovery](discovery.md)); `replayed`, `failed` (told, or not told, to a pod that joined late)";
    OBJECT = "object", "what was put right or followed: `parent`, `pod`";
    REPAIR_REASON = "reason" of "a repair", "`programs` (taken off), `order` (somebody came before them), `mac`, `name`, `parent` (the pod's interface has another, or none), `interface` (another of the same name), `gone`; see [the datapath's life](datapath.md)";
    PROGRAM = "program", "a program's name, as bpftool shows it; see [what bpftool shows](bpftool.md)";
    VERB = "verb" of "a CNI request", "`ADD`, `DEL`, `CHECK`, `STATUS`, `GC`, `VERSION`; `unknown` for others";
    CODE = "code" of "a CNI request", "the [CNI error code](errors.md), `0` on success; 999 beyond the first 64 that were seen";
    STAGE = "stage", "`wait` (for a turn, or for the cluster's own network), `pod` (annotations), `plan`, `record` (written to disk), `network` (one attachment, without its plugins), `delegate` (plugins at work), `datapath`, `routes`, `reflect`, `result` (the answer and what is kept of it), `kernel` (CHECK's own look), `undo` (without its plugins), `rest`. A stage's time is without that of stages inside it: all of a request's together are its duration";
    TYPE = "type" of "a delegate", "the plugin; `other` beyond the first 64 that were seen";
    RUNNER = "runner", "who executed the plugin: `shim` or `host`";
    VERSION = "version" of "a shim", "what the CNI plugin calls itself; `upstream` is Multus's shim; `other` beyond the first 8 that were seen";
    POOL = "pool", "`attach` (ADD), `other` (the rest)";
    STATE = "state" of "a container", "`adding`, `added`, `undo` (something of it is still to be undone)";
    UNDO_OUTCOME = "outcome" of "another try to undo", "`done`, `failed` (tried again, after 5 s to 10 min)";
    API_VERB = "verb" of "the API", "`get`, `list`, `watch` (counted when one ends with an error), `create`, `update`, `patch`";
    RESOURCE = "resource", "`pods`, `pods/status`, `network-attachment-definitions`, `events`, `leases`, `resourceclaims`, `version` (a sign of life)";
    API_CODE = "code" of "the API", "the HTTP status, `0` where no answer came";
    NETWORK_STATE = "state" of "a network", "`valid`, `invalid` (its config cannot be used)";
    WRITE_OUTCOME = "outcome" of "a network-status", "`written`, `retried` (did not succeed and is tried again), `dropped` (its pod is gone or another one, or the API server refuses it for good)";
    RANGE = "range", "a range of addresses, as `first-last`, or several that one address comes from; the first hundred ranges of all networks";
    HANDLER = "handler", "the path on the agent's socket, `NotFound` for others";
    HTTP_CODE = "code" of "the socket", "the HTTP status";
    METHOD = "method", "`GET`, `POST`, `other`";
    AGENT_VERSION = "version" of "the agent", "the agent's version";
    LAYOUT = "layout", "the version of the pinned maps' layout";
}

catalogue! {
    "Secondary interfaces" {
        RECEIVE_PACKETS: Counter "multus_interface_receive_packets" [NAMESPACE POD INTERFACE NETWORK CAST]
            "Packets the pod received on a secondary interface";
        TRANSMIT_PACKETS: Counter "multus_interface_transmit_packets" [NAMESPACE POD INTERFACE NETWORK CAST]
            "Packets the pod sent on a secondary interface";
        RECEIVE_BYTES: Counter "multus_interface_receive_bytes" [NAMESPACE POD INTERFACE NETWORK CAST]
            "Bytes the pod received on a secondary interface, Ethernet header included";
        TRANSMIT_BYTES: Counter "multus_interface_transmit_bytes" [NAMESPACE POD INTERFACE NETWORK CAST]
            "Bytes the pod sent on a secondary interface, Ethernet header included";
        PROTOCOL_PACKETS: Counter "multus_interface_protocol_packets" [NAMESPACE POD INTERFACE NETWORK DIRECTION PROTOCOL]
            "Packets on a secondary interface by protocol class";
        PACKET_SIZE: Histogram "multus_interface_packet_size_bytes" [NAMESPACE POD INTERFACE NETWORK DIRECTION]
            "Packet sizes on a secondary interface";
        NETWORK_NAME: Gauge "pod_network_name_info" [POD NAMESPACE INTERFACE NETWORK_NAME_LABEL]
            "Which network an interface of a pod belongs to; always 0, to be added to another metric";
    }
    "Relay and discovery" {
        RELAY_FRAMES: Counter "multus_relay_frames" [PARENT RELAYED_PROTOCOL PATH VERDICT REASON]
            "Discovery frames the relay looked at, by what became of them";
        RELAY_MEMBERS: Gauge "multus_relay_members" [PARENT]
            "Pods' interfaces on a parent that has the relay's programs";
        RELAY_BEYOND_FANOUT: Gauge "multus_relay_members_beyond_fanout" [PARENT]
            "Those of them that found no place in the relay";
        GUARD_FRAMES: Counter "multus_guard_frames" [PARENT RELAYED_PROTOCOL GUARD_VERDICT GUARD_REASON]
            "Discovery frames from the LAN that the storm guard looked at, by what became of them";
        DISCOVERY_SERVICES: Gauge "multus_discovery_services" [PARENT SERVICE_TYPE]
            "Services that are announced on a parent, by type";
        DISCOVERY_RECORDS: Gauge "multus_discovery_records" [PARENT]
            "Announced records that are remembered for a parent";
        DISCOVERY_DATAGRAMS: Counter "multus_discovery_datagrams" [PARENT DATAGRAM_OUTCOME]
            "Announcements that were heard on a parent, dropped, and told again to pods";
    }
    "Datapath" {
        DATAPATH_READY: Gauge "multus_datapath_ready" []
            "1 while the eBPF datapath works; 0 where it cannot be opened; absent where it is off";
        SLOTS: Gauge "multus_datapath_slots" []
            "Attachments that can be counted at once";
        SLOTS_USED: Gauge "multus_datapath_slots_used" []
            "Attachments that are counted";
        UNCOUNTED: Gauge "multus_datapath_uncounted_attachments" []
            "Attachments that are not counted because every slot is in use";
        REPAIRS: Counter "multus_datapath_repairs" [OBJECT REPAIR_REASON]
            "What others did to the datapath and the agent put right or followed";
        BPF_STATS: Gauge "multus_bpf_stats_enabled" []
            "1 while the kernel measures programs (sysctl kernel.bpf_stats_enabled)";
        PROGRAM_RUN_TIME: Counter "multus_bpf_program_run_seconds" [PROGRAM]
            "Time the kernel spent in our programs, of all instances together; stands still while it does not measure";
        PROGRAM_RUNS: Counter "multus_bpf_program_runs" [PROGRAM]
            "How often the kernel ran our programs, of all instances together; stands still while it does not measure";
    }
    "CNI requests" {
        REQUESTS: Counter "multus_cni_requests" [VERB CODE]
            "CNI requests by verb and error code";
        REQUEST_DURATION: Histogram "multus_cni_request_duration_seconds" [VERB CODE]
            "Time from a CNI request's arrival to its answer";
        STAGE_DURATION: Histogram "multus_cni_stage_duration_seconds" [VERB STAGE]
            "Time a CNI request spent in one stage, without the stages inside it";
        DELEGATE_DURATION: Histogram "multus_delegate_duration_seconds" [TYPE VERB RUNNER]
            "Time a delegate plugin took";
        DELEGATE_FAILURES: Counter "multus_delegate_failures" [TYPE VERB RUNNER]
            "Calls of a delegate plugin that did not succeed";
        ADMISSION_LIMIT: Gauge "multus_admission_limit" [POOL]
            "Requests that may be at work at once";
        ADMISSION_IN_FLIGHT: Gauge "multus_admission_in_flight" [POOL]
            "Requests at work";
        ADMISSION_WAITING: Gauge "multus_admission_waiting" [POOL]
            "Requests that wait for a place, or for an earlier request of the same container";
        ADMISSION_REFUSED: Counter "multus_admission_refused" [POOL]
            "Requests that got no place before their deadline";
        ADMISSION_WAIT: Histogram "multus_admission_wait_seconds" [POOL]
            "Time a request waited for its place";
        CONF_READY: Gauge "multus_cni_conf_ready" []
            "1 while the conf for the container runtime is as it should be; 0 also where none is to be generated";
        CONF_BYPASSED: Gauge "multus_cni_conf_bypassed" []
            "1 while another conf sorts before ours, so that pods get no further networks";
        SHIM_REQUESTS: Counter "multus_shim_requests" [VERSION]
            "CNI requests by the version of the plugin that brought them";
        SHIM_SKEW: Gauge "multus_shim_version_skew" []
            "1 if the multus-shim that asked last has another version than the agent";
    }
    "Records" {
        RECORDS: Gauge "multus_records" [STATE]
            "Containers on record, by how far they are";
        UNDO_ATTEMPTS: Counter "multus_undo_attempts" [UNDO_OUTCOME]
            "Tries to undo what an earlier request left over";
        SPOOL_NOTES: Gauge "multus_spool_notes" []
            "Notes of what the shim did without the agent, or of DELs put off, that are not worked through";
        SPOOL_REPLAYED: Counter "multus_spool_replayed" []
            "Notes worked through";
        POOL_SIZE: Gauge "multus_address_pool_size" [NETWORK RANGE]
            "Addresses of a host-local range that pods can have";
        POOL_USED: Gauge "multus_address_pool_used" [NETWORK RANGE]
            "Addresses of a host-local range that are taken on this node";
    }
    "Cluster" {
        API_CONNECTED: Gauge "multus_api_connected" []
            "1 while the API server answers; where there is none, while the folder of manifests can be read";
        API_REQUESTS: Counter "multus_api_requests" [API_VERB RESOURCE API_CODE]
            "Requests to the API server; of watches, those that were refused or broke";
        API_DURATION: Histogram "multus_api_request_duration_seconds" [API_VERB RESOURCE]
            "Time a request to the API server took";
        WATCH_AGE: Gauge "multus_watch_age_seconds" [RESOURCE]
            "Time since what is known of a resource was last known to be current";
        NETWORKS: Gauge "multus_networks" [NETWORK_STATE]
            "NetworkAttachmentDefinitions that are known";
        STATUS_WRITES: Counter "multus_network_status_writes" [WRITE_OUTCOME]
            "Attempts to write a pod's network-status";
        STATUS_OWED: Gauge "multus_network_status_owed" []
            "Pods whose network-status is not written yet";
        EVENTS_WAITING: Gauge "multus_events_waiting" []
            "Events about pods that are not posted yet";
        EVENTS_DROPPED: Counter "multus_events_dropped" []
            "Events about pods that were given up";
    }
    "Agent" {
        BUILD_INFO: Gauge "multus_build_info" [AGENT_VERSION LAYOUT]
            "Which agent this is; always 1";
        SERVER_REQUESTS: Counter "multus_server_request" [HANDLER HTTP_CODE METHOD]
            "HTTP requests on the agent's socket";
        PROCESS_CPU: Counter "process_cpu_seconds" []
            "Time of all CPUs that the agent used";
        PROCESS_MEMORY: Gauge "process_resident_memory_bytes" []
            "Memory of the agent, with its program's pages";
        PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" []
            "Address space of the agent";
        MEMORY_LIMIT: Gauge "multus_memory_limit_bytes" []
            "Memory that the agent's control group may have; 0 where it has no limit";
        PROCESS_FDS: Gauge "process_open_fds" []
            "File descriptors the agent has open";
        PROCESS_MOST_FDS: Gauge "process_max_fds" []
            "File descriptors the agent may have open";
        PROCESS_THREADS: Gauge "process_threads" []
            "Threads of the agent";
        PROCESS_START: Gauge "process_start_time_seconds" []
            "When the agent started, in seconds of the Unix epoch";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Described> {
        CATALOGUE.iter().flat_map(|group| group.families)
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for family in all() {
            let name = family.name;
            assert!(seen.insert(name), "{name} twice");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'), "{name}");
            assert!(["multus_", "process_", "pod_network_"].iter().any(|head| name.starts_with(head)), "{name}");
            assert!(!name.ends_with("_total"), "{name}: the ending is appended");
            let is_measured = family.unit() == "seconds" || family.unit() == "bytes";
            assert!(family.kind != Kind::Histogram || is_measured, "{name}: a histogram's unit is its last word");
            assert!(!family.help.ends_with('.') && family.help.starts_with(|c: char| c.is_uppercase() || c == '1'));
        }
    }

    #[test]
    fn a_label_means_one_thing_within_a_family() {
        for family in all() {
            let names: BTreeSet<_> = family.labels.iter().map(|label| label.name).collect();
            assert_eq!(names.len(), family.labels.len(), "{}", family.name);
        }
        // Two meanings of one name say of what they are.
        let labels: Vec<&Label> = all().flat_map(|family| family.labels).collect();
        for one in &labels {
            for other in labels.iter().filter(|other| other.name == one.name && other.of == one.of) {
                assert_eq!(one.values, other.values, "{}", one.name);
            }
        }
    }
}
