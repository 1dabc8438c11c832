//! Which panels answer "what does the agent cost?".

use super::grafana::{Dashboard, Row, column, lines, query, stacked, stat, table};

pub(super) const DASHBOARD: Dashboard = Dashboard {
    name: "agent",
    title: "what does the agent cost?",
    about: "Memory, processor time and requests of the agent on each node, and of its programs in the kernel.",
    variables: &[],
    rows: &[
        Row {
            height: 4,
            panels: &[
                stat("Largest memory", "bytes", &[query("max(process_resident_memory_bytes{@})", "memory")])
                    .about("Resident memory of the largest agent."),
                stat(
                    "Busiest agent",
                    "percentunit",
                    &[query("max(rate(process_cpu_seconds_total{@}[$__rate_interval]))", "CPU")],
                )
                .about("Processor time of the busiest agent; 100 % is one processor.")
                .warns(0.5, 1.0),
                stat(
                    "eBPF programs",
                    "percentunit",
                    &[query("sum(rate(multus_bpf_program_run_seconds_total{@}[$__rate_interval]))", "CPU")],
                )
                .about(
                    "Processor time of all our programs in the kernel; 100 % is one processor. Measured only while the \
                     sysctl kernel.bpf_stats_enabled is 1, else 0.",
                )
                .warns(0.5, 1.0),
                stat(
                    "API requests",
                    "reqps",
                    &[query("sum(rate(multus_api_requests_total{@}[$__rate_interval]))", "requests")],
                )
                .about("Requests of all agents to the API server."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                lines(
                    "Memory",
                    "bytes",
                    &[
                        query("max by (instance) (process_resident_memory_bytes{@})", "{{instance}}"),
                        query("max(multus_memory_limit_bytes{@})", "limit"),
                    ],
                )
                .about("Resident memory of each agent, and what its container may have; 0 where there is no limit."),
                lines(
                    "Processor time",
                    "percentunit",
                    &[query(
                        "sum by (instance) (rate(process_cpu_seconds_total{@}[$__rate_interval]))",
                        "{{instance}}",
                    )],
                )
                .about("User and system time of each agent; 100 % is one processor. Delegate plugins are not in it."),
                lines(
                    "Descriptors and threads",
                    "short",
                    &[
                        query("max by (instance) (process_open_fds{@})", "{{instance}} descriptors"),
                        query("max by (instance) (process_threads{@})", "{{instance}} threads"),
                    ],
                )
                .about("Both follow the work at hand and fall again. What only grows is a leak: please report it."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "API requests by kind",
                    "reqps",
                    &[query(
                        "sum by (verb, resource, code) (rate(multus_api_requests_total{@}[$__rate_interval]))",
                        "{{verb}} {{resource}} {{code}}",
                    )],
                )
                .about(
                    "What the agents ask of the API server; code 0 is no answer. An ADD costs one status write, and \
                     its events.",
                ),
                lines(
                    "API latency, 99th percentile",
                    "s",
                    &[query(
                        "histogram_quantile(0.99, sum by (le, verb, resource) \
                         (rate(multus_api_request_duration_seconds_bucket{@}[$__rate_interval])))",
                        "{{verb}} {{resource}}",
                    )],
                )
                .about(
                    "How long the API server takes. No pod waits for it, except those with resource claims or \
                     without annotations from the runtime.",
                ),
                stacked(
                    "Requests on the socket",
                    "reqps",
                    &[query(
                        "sum by (handler, code) (rate(multus_server_request_total{@}[$__rate_interval]))",
                        "{{handler}} {{code}}",
                    )],
                )
                .about("HTTP requests of shims, the command line and controllers, by path and status."),
            ],
        },
        Row {
            height: 8,
            panels: &[
                stacked(
                    "Processor time of eBPF programs",
                    "percentunit",
                    &[query(
                        "sum by (program) (rate(multus_bpf_program_run_seconds_total{@}[$__rate_interval]))",
                        "{{program}}",
                    )],
                )
                .about(
                    "Per program, all nodes together; 100 % is one processor. Measured only while the sysctl \
                     kernel.bpf_stats_enabled is 1, which costs some nanoseconds a packet.",
                ),
                lines(
                    "Time of one run",
                    "s",
                    &[query(
                        "sum by (program) (rate(multus_bpf_program_run_seconds_total{@}[$__rate_interval])) / \
                         sum by (program) (rate(multus_bpf_program_runs_total{@}[$__rate_interval]) > 0)",
                        "{{program}}",
                    )],
                )
                .about("Mean time a program needs for one packet. Empty while the kernel does not measure."),
                lines("Scrape", "s", &[query("max by (instance) (scrape_duration_seconds{@})", "{{instance}}")])
                    .about("How long Prometheus waits for an agent's metrics, which are read from the kernel for it."),
            ],
        },
        Row {
            height: 8,
            panels: &[table(
                "Agents",
                "bytes",
                &[
                    column(
                        "max by (instance, version) (process_resident_memory_bytes{@} * \
                             on (job, instance) group_left (version) multus_build_info{@})",
                        "memory",
                        "",
                    ),
                    column(
                        "max by (instance, version) ((time() - process_start_time_seconds{@}) * \
                             on (job, instance) group_left (version) multus_build_info{@})",
                        "running for",
                        "s",
                    ),
                    column(
                        "max by (instance, version) (scrape_samples_scraped{@} * \
                             on (job, instance) group_left (version) multus_build_info{@})",
                        "series",
                        "short",
                    ),
                    column(
                        "max by (instance, version) (multus_datapath_slots_used{@} * \
                             on (job, instance) group_left (version) multus_build_info{@})",
                        "interfaces counted",
                        "short",
                    ),
                ],
            )
            .about("Each agent: its version, and what it holds. Series grow with the interfaces that are counted.")],
        },
    ],
};
