//! Which panels answer "what flows on secondary interfaces?".

use super::grafana::{Dashboard, Row, Variable, column, lines, query, stacked, stat, table};

const INTERFACES: &str = "multus_interface_receive_packets_total{@}";

pub(super) const DASHBOARD: Dashboard = Dashboard {
    name: "traffic",
    title: "what flows on secondary interfaces?",
    about: "Traffic of secondary interfaces by namespace, network and pod, counted in the kernel. Directions are the \
            pod's view: received is what the pod receives. Bytes include the Ethernet header.",
    variables: &[
        Variable { name: "namespace", label: "Namespace", of: INTERFACES },
        Variable { name: "network", label: "Network", of: INTERFACES },
        Variable { name: "pod", label: "Pod", of: INTERFACES },
    ],
    rows: &[
        Row {
            height: 4,
            panels: &[
                stat(
                    "Received",
                    "Bps",
                    &[query("sum(rate(multus_interface_receive_bytes_total{#}[$__rate_interval]))", "received")],
                )
                .about("All that the chosen pods receive on secondary interfaces."),
                stat(
                    "Sent",
                    "Bps",
                    &[query("sum(rate(multus_interface_transmit_bytes_total{#}[$__rate_interval]))", "sent")],
                )
                .about("All that the chosen pods send on secondary interfaces."),
                stat(
                    "Multicast and broadcast share",
                    "percentunit",
                    &[query(
                        "sum(rate(multus_interface_receive_packets_total{#, cast!=\"unicast\"}[$__rate_interval])) / \
                         sum(rate(multus_interface_receive_packets_total{#}[$__rate_interval]))",
                        "share",
                    )],
                )
                .about(
                    "Share of received packets that were for a group or for all. Each of them wakes every pod on the \
                     network: look who sends them.",
                )
                .warns(0.5, 0.9),
                stat(
                    "Interfaces not counted",
                    "short",
                    &[query("sum(multus_datapath_uncounted_attachments{@})", "interfaces")],
                )
                .about(
                    "Interfaces that found no counter slot: they work, but nothing here knows of them. Raise \
                     datapath.slots.",
                )
                .warns(1.0, 1.0),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "Received by namespace",
                    "Bps",
                    &[query(
                        "sum by (namespace) (rate(multus_interface_receive_bytes_total{#}[$__rate_interval]))",
                        "{{namespace}}",
                    )],
                )
                .about("What the pods of each namespace receive."),
                stacked(
                    "Received by network",
                    "Bps",
                    &[query(
                        "sum by (network) (rate(multus_interface_receive_bytes_total{#}[$__rate_interval]))",
                        "{{network}}",
                    )],
                )
                .about("What pods receive on each network."),
                stacked(
                    "Sent by network",
                    "Bps",
                    &[query(
                        "sum by (network) (rate(multus_interface_transmit_bytes_total{#}[$__rate_interval]))",
                        "{{network}}",
                    )],
                )
                .about("What pods send on each network."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                lines(
                    "Top receivers",
                    "Bps",
                    &[query(
                        "topk(10, sum by (namespace, pod, network) \
                         (rate(multus_interface_receive_bytes_total{#}[$__rate_interval])))",
                        "{{namespace}}/{{pod}} {{network}}",
                    )],
                )
                .about("The ten pods that receive most, at each moment."),
                lines(
                    "Top senders",
                    "Bps",
                    &[query(
                        "topk(10, sum by (namespace, pod, network) \
                         (rate(multus_interface_transmit_bytes_total{#}[$__rate_interval])))",
                        "{{namespace}}/{{pod}} {{network}}",
                    )],
                )
                .about("The ten pods that send most, at each moment."),
                lines(
                    "Top senders to groups",
                    "pps",
                    &[query(
                        "topk(10, sum by (namespace, pod, network) (rate(\
                         multus_interface_transmit_packets_total{#, cast!=\"unicast\"}[$__rate_interval])))",
                        "{{namespace}}/{{pod}} {{network}}",
                    )],
                )
                .about(
                    "The ten pods that send most multicast and broadcast packets, which everybody on the network \
                     hears.",
                ),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "Received packets by cast",
                    "pps",
                    &[query(
                        "sum by (cast) (rate(multus_interface_receive_packets_total{#}[$__rate_interval]))",
                        "{{cast}}",
                    )],
                )
                .about("Packets for the pod alone (unicast), for a group, and for all."),
                stacked(
                    "Packets by protocol",
                    "pps",
                    &[query(
                        "sum by (protocol) (rate(multus_interface_protocol_packets_total{#}[$__rate_interval])) > 0",
                        "{{protocol}}",
                    )],
                )
                .about(
                    "Both directions; protocols that are silent are left out. mdns, ssdp, wsd and coap are \
                     discovery.",
                ),
                lines(
                    "Packet size",
                    "bytes",
                    &[
                        query(
                            "histogram_quantile(0.5, sum by (le, direction) \
                             (rate(multus_interface_packet_size_bytes_bucket{#}[$__rate_interval])))",
                            "{{direction}}, median",
                        ),
                        query(
                            "histogram_quantile(0.95, sum by (le, direction) \
                             (rate(multus_interface_packet_size_bytes_bucket{#}[$__rate_interval])))",
                            "{{direction}}, 95th percentile",
                        ),
                    ],
                )
                .about("Estimated from seven classes of size. Many small packets cost more than few large ones."),
            ],
        },
        Row {
            height: 9,
            panels: &[table(
                "Top talkers",
                "Bps",
                &[
                    column(
                        "topk(25, sum by (namespace, pod, interface, network) \
                             (increase(multus_interface_receive_bytes_total{#}[$__range]) / $__range_s))",
                        "received",
                        "",
                    ),
                    column(
                        "topk(25, sum by (namespace, pod, interface, network) \
                             (increase(multus_interface_transmit_bytes_total{#}[$__range]) / $__range_s))",
                        "sent",
                        "",
                    ),
                    column(
                        "topk(25, sum by (namespace, pod, interface, network) (increase(\
                             multus_interface_transmit_packets_total{#, cast!=\"unicast\"}[$__range]) / $__range_s))",
                        "sent to groups",
                        "pps",
                    ),
                ],
            )
            .about("Means over the time shown. Sent to groups are packets by multicast and broadcast.")],
        },
    ],
};
