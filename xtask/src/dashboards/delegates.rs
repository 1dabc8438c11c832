//! Which panels answer "which delegate is slow?".

use super::grafana::{Dashboard, Row, Variable, column, lines, query, stacked, table};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    name: "delegates",
    title: "which delegate is slow?",
    about: "How long each delegate plugin takes, by type and by who runs it, and which ones fail. Most of an ADD's \
            time is spent in them.",
    variables: &[Variable { name: "type", label: "Plugin", of: "multus_delegate_duration_seconds_count{@}" }],
    rows: &[
        Row {
            height: 8,
            panels: &[
                lines(
                    "ADD, median",
                    "s",
                    &[query(
                        "histogram_quantile(0.5, sum by (le, type) \
                         (rate(multus_delegate_duration_seconds_bucket{#, verb=\"ADD\"}[$__rate_interval])))",
                        "{{type}}",
                    )],
                )
                .about("Half of a plugin's ADDs took less than this."),
                lines(
                    "ADD, 99th percentile",
                    "s",
                    &[query(
                        "histogram_quantile(0.99, sum by (le, type) \
                         (rate(multus_delegate_duration_seconds_bucket{#, verb=\"ADD\"}[$__rate_interval])))",
                        "{{type}}",
                    )],
                )
                .about(
                    "All but one in a hundred of a plugin's ADDs took less than this. A plugin that waits for somebody \
                     else (a DHCP server, a device) shows here first.",
                ),
                lines(
                    "DEL, 99th percentile",
                    "s",
                    &[query(
                        "histogram_quantile(0.99, sum by (le, type) \
                         (rate(multus_delegate_duration_seconds_bucket{#, verb=\"DEL\"}[$__rate_interval])))",
                        "{{type}}",
                    )],
                )
                .about("All but one in a hundred of a plugin's DELs took less than this."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "Time spent in plugins",
                    "percentunit",
                    &[query(
                        "sum by (type) (rate(multus_delegate_duration_seconds_sum{#}[$__rate_interval]))",
                        "{{type}}",
                    )],
                )
                .about(
                    "Seconds a second, all requests together: at 200 % two requests wait for a plugin all the time.",
                ),
                stacked(
                    "Calls",
                    "ops",
                    &[query(
                        "sum by (type, verb) (rate(multus_delegate_duration_seconds_count{#}[$__rate_interval]))",
                        "{{type}} {{verb}}",
                    )],
                )
                .about("How often each plugin is called."),
                lines(
                    "Failures",
                    "ops",
                    &[query(
                        "sum by (type, verb) (rate(multus_delegate_failures_total{#}[$__rate_interval]))",
                        "{{type}} {{verb}}",
                    )],
                )
                .about(
                    "Calls that did not succeed. The pod's event and multus-agent trace --failed carry what the plugin \
                     said.",
                ),
            ],
        },
        Row {
            height: 8,
            panels: &[table(
                "Plugins by time",
                "s",
                &[
                    column(
                        "sum by (type, verb, runner) \
                             (increase(multus_delegate_duration_seconds_sum{#}[$__range])) / \
                             sum by (type, verb, runner) \
                             (increase(multus_delegate_duration_seconds_count{#}[$__range]) > 0)",
                        "mean",
                        "",
                    ),
                    column(
                        "histogram_quantile(0.99, sum by (le, type, verb, runner) \
                             (increase(multus_delegate_duration_seconds_bucket{#}[$__range])))",
                        "99 %",
                        "",
                    ),
                    column(
                        "sum by (type, verb, runner) \
                             (increase(multus_delegate_duration_seconds_count{#}[$__range]))",
                        "calls",
                        "short",
                    ),
                ],
            )
            .about(
                "Over the time shown, the slowest first. Runner is who executed the plugin: the shim, where the \
                     runtime runs, or the agent on the host.",
            )],
        },
    ],
};
