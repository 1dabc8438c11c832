//! Which panels answer "is attaching healthy?".

use super::grafana::{Dashboard, Row, column, lines, query, stacked, stat, table};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    name: "attaching",
    title: "is attaching healthy?",
    about: "Whether pods get their interfaces and give them back: how many, how fast, what is refused, and what is \
            still to be done.",
    variables: &[],
    rows: &[
        Row {
            height: 4,
            panels: &[
                stat(
                    "ADDs that fail",
                    "percentunit",
                    &[query(
                        "(sum(rate(multus_cni_requests_total{@, verb=\"ADD\", code!=\"0\"}[$__rate_interval])) or \
                         vector(0)) / sum(rate(multus_cni_requests_total{@, verb=\"ADD\"}[$__rate_interval]))",
                        "failed",
                    )],
                )
                .about(
                    "Share of ADDs that ended with an error: those pods wait, and the kubelet tries again. Which pods \
                     and why: multus-agent trace --failed on the node.",
                )
                .warns(0.01, 0.05),
                stat(
                    "ADD, 99th percentile",
                    "s",
                    &[query(
                        "histogram_quantile(0.99, sum by (le) \
                         (rate(multus_cni_request_duration_seconds_bucket{@, verb=\"ADD\"}[$__rate_interval])))",
                        "99 %",
                    )],
                )
                .about("All but one in a hundred ADDs took less than this, the delegate plugins included.")
                .warns(5.0, 10.0),
                stat("Waiting requests", "short", &[query("sum(multus_admission_waiting{@})", "waiting")])
                    .about("Requests that wait for a place, or for an earlier request of the same container.")
                    .warns(1.0, 20.0),
                stat("Containers attached", "short", &[query("sum(multus_records{@, state=\"added\"})", "containers")])
                    .about("Containers whose networks the agents keep on record."),
                stat("Nodes bypassed", "short", &[query("sum(multus_cni_conf_bypassed{@})", "nodes")])
                    .about(
                        "Nodes on which another CNI configuration sorts before ours: new pods there get no further \
                     networks, and nobody is told. multus-agent check names the file.",
                    )
                    .warns(1.0, 1.0),
                stat("Agents up", "short", &[query("sum(up{@})", "agents")])
                    .about("Agents that answered the last scrape."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "Requests by verb",
                    "reqps",
                    &[query("sum by (verb) (rate(multus_cni_requests_total{@}[$__rate_interval]))", "{{verb}}")],
                )
                .about(
                    "What the runtimes ask for: ADD and DEL as pods come and go, STATUS every few seconds with some \
                     runtimes, GC now and then.",
                ),
                lines(
                    "Failures by code",
                    "reqps",
                    &[query(
                        "sum by (verb, code) (rate(multus_cni_requests_total{@, code!=\"0\"}[$__rate_interval]))",
                        "{{verb}} {{code}}",
                    )],
                )
                .about("Answers with an error. The reference of error codes says what each means and what to do."),
                lines(
                    "Duration, 99th percentile",
                    "s",
                    &[query(
                        "histogram_quantile(0.99, sum by (le, verb) (rate(\
                         multus_cni_request_duration_seconds_bucket{@, verb=~\"ADD|DEL|CHECK\"}[$__rate_interval])))",
                        "{{verb}}",
                    )],
                )
                .about("All but one in a hundred requests took less than this."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "Where an ADD's time goes",
                    "s",
                    &[query(
                        "sum by (stage) \
                         (rate(multus_cni_stage_duration_seconds_sum{@, verb=\"ADD\"}[$__rate_interval])) / \
                         on () group_left sum(rate(\
                         multus_cni_request_duration_seconds_count{@, verb=\"ADD\"}[$__rate_interval]))",
                        "{{stage}}",
                    )],
                )
                .about(
                    "The mean ADD, cut into stages. delegate is the plugins' own time; the dashboard of delegates says \
                     whose. wait is for another request of the same pod, or for the cluster's own network.",
                ),
                lines(
                    "Places",
                    "short",
                    &[
                        query("sum by (pool) (multus_admission_in_flight{@})", "{{pool}} at work"),
                        query("sum by (pool) (multus_admission_waiting{@})", "{{pool}} waiting"),
                        query("sum by (pool) (multus_admission_limit{@})", "{{pool}} at most"),
                    ],
                )
                .about(
                    "Requests at work at once, and how many may be. Waiting for long means: raise the limit, or \
                     find the slow plugin.",
                ),
                lines(
                    "Wait for a place, 99th percentile",
                    "s",
                    &[query(
                        "histogram_quantile(0.99, sum by (le, pool) \
                         (rate(multus_admission_wait_seconds_bucket{@}[$__rate_interval])))",
                        "{{pool}}",
                    )],
                )
                .about("How long requests wait before they are begun."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                lines(
                    "Still to be done",
                    "short",
                    &[
                        query("sum(multus_records{@, state=\"undo\"})", "containers to undo"),
                        query("sum(multus_spool_notes{@})", "DELs noted while the agent was away"),
                        query("sum(multus_network_status_owed{@})", "network-status to write"),
                        query("sum(multus_events_waiting{@})", "events to post"),
                    ],
                )
                .about(
                    "All of it is tried again by itself and should be short-lived. multus-agent status says what \
                     holds it up.",
                ),
                lines(
                    "Age of what is known",
                    "s",
                    &[query("max by (resource) (multus_watch_age_seconds{@})", "{{resource}}")],
                )
                .about(
                    "How long ago what the agents know of pods and networks was last known to be current: the worst \
                     agent. Pods attach meanwhile, but with what was known then.",
                ),
                stacked("Networks", "short", &[query("max by (state) (multus_networks{@})", "{{state}}")]).about(
                    "NetworkAttachmentDefinitions, and those that cannot be used: multus-agent get networks says \
                     why.",
                ),
            ],
        },
        Row {
            height: 8,
            panels: &[table(
                "Address pools",
                "percentunit",
                &[
                    column(
                        "sum by (instance, network, range) (multus_address_pool_used{@}) / \
                             sum by (instance, network, range) (multus_address_pool_size{@} > 0)",
                        "used",
                        "",
                    ),
                    column(
                        "sum by (instance, network, range) (multus_address_pool_size{@}) - \
                             sum by (instance, network, range) (multus_address_pool_used{@})",
                        "free addresses",
                        "short",
                    ),
                ],
            )
            .about(
                "Ranges of host-local on each node, the fullest first. Where none is free, ADDs of that network \
                     fail.",
            )],
        },
    ],
};
