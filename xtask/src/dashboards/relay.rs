//! Which panels answer "is the relay working?".

use super::grafana::{Dashboard, Row, Variable, lines, query, stacked, stat};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    name: "relay",
    title: "is the relay working?",
    about: "Whether discovery (mDNS, SSDP, WS-Discovery, CoAP) reaches pods, the host and other links, and what is \
            left out and why.",
    variables: &[Variable { name: "parent", label: "Parent", of: "multus_relay_frames_total{@}" }],
    rows: &[
        Row {
            height: 4,
            panels: &[
                stat(
                    "Relayed",
                    "pps",
                    &[query(
                        "sum(rate(multus_relay_frames_total{#, verdict=\"relayed\"}[$__rate_interval]))",
                        "relayed",
                    )],
                )
                .about("Frames a second that were carried to where the kernel alone would not have brought them."),
                stat("Members", "short", &[query("sum(multus_relay_members{#})", "members")])
                    .about("Pods' interfaces on parents with the relay."),
                stat("Without a place", "short", &[query("sum(multus_relay_members_beyond_fanout{#})", "members")])
                    .about("Pods' interfaces that hear nothing from the relay: a parent serves 256.")
                    .warns(1.0, 1.0),
                stat(
                    "Forged",
                    "pps",
                    &[query("sum(rate(multus_relay_frames_total{#, reason=\"spoof\"}[$__rate_interval]))", "spoof")],
                )
                .about(
                    "Frames a second whose source MAC is not their sender's: a pod that pretends, or a program of the \
                     host that writes whole frames. Whose they are: multus-agent relay watch --verdict skipped.",
                )
                .warns(0.1, 10.0),
                stat("Datapath", "short", &[query("sum(multus_datapath_ready{@})", "nodes")])
                    .about("Nodes whose eBPF datapath works. multus-agent status says what is missing on another."),
                stat("Services announced", "short", &[query("sum(multus_discovery_services{#})", "services")]).about(
                    "Services that devices, hosts and pods announce by mDNS. Which ones: multus-agent get services.",
                ),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "Relayed by protocol",
                    "pps",
                    &[query(
                        "sum by (protocol) (rate(multus_relay_frames_total{#, verdict=\"relayed\"}[$__rate_interval]))",
                        "{{protocol}}",
                    )],
                )
                .about("Frames carried, by what they speak."),
                stacked(
                    "Relayed by path",
                    "pps",
                    &[query(
                        "sum by (path) (rate(multus_relay_frames_total{#, verdict=\"relayed\"}[$__rate_interval]))",
                        "{{path}}",
                    )],
                )
                .about("Frames carried between host and pods of one link, and reflected between links."),
                lines(
                    "Not relayed, by reason",
                    "pps",
                    &[query(
                        "sum by (reason) (rate(multus_relay_frames_total{#, verdict=\"skipped\"}[$__rate_interval])) \
                         > 0",
                        "{{reason}}",
                    )],
                )
                .about(
                    "Frames that went only where they go without the relay. unwanted is normal: nobody on the other \
                     side asked for them. The reference of metrics explains each reason.",
                ),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "Members by parent",
                    "short",
                    &[query("sum by (instance, parent) (multus_relay_members{#})", "{{instance}} {{parent}}")],
                )
                .about("Pods' interfaces on each parent."),
                lines(
                    "Announcements",
                    "ops",
                    &[query(
                        "sum by (outcome) (rate(multus_discovery_datagrams_total{#}[$__rate_interval]))",
                        "{{outcome}}",
                    )],
                )
                .about(
                    "What became of mDNS announcements: kept for pods that come later, replayed to such pods; limited, \
                     lost or evicted where there is too much of them.",
                ),
                stacked(
                    "Announced services by type",
                    "short",
                    &[query("topk(10, sum by (type) (multus_discovery_services{#}))", "{{type}}")],
                )
                .about("The ten most frequent types."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                lines(
                    "Storm guard",
                    "pps",
                    &[query(
                        "sum by (protocol, verdict) (rate(multus_guard_frames_total{#}[$__rate_interval])) > 0",
                        "{{protocol}} {{verdict}}",
                    )],
                )
                .about("Discovery frames from the LAN that the storm guard passed and dropped. Empty while it is off."),
                lines(
                    "Repairs",
                    "short",
                    &[query(
                        "sum by (object, reason) (increase(multus_datapath_repairs_total{@}[$__rate_interval]))",
                        "{{object}} {{reason}}",
                    )],
                )
                .about(
                    "What somebody else took off the datapath, or changed under it, and the agent put back or \
                     followed. Repairs that go on and on: two programs fight for one hook.",
                ),
            ],
        },
    ],
};
