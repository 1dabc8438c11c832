//! Integration tests: the two programs on real namespaces, links, plugins and kernels.

#![allow(clippy::tests_outside_test_module, reason = "this whole crate is tests")]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "this whole crate is tests")]

/// Ends the test, visibly, when the programs under test are not built; with `MULTUS_BIN_DIR` set that is a failure.
macro_rules! needs_programs {
    () => {
        if let Some(reason) = lab::agent::missing_programs() {
            assert!(std::env::var_os("MULTUS_BIN_DIR").is_none(), "{reason}");
            // Straight to the descriptor: the test harness hides what passing tests print.
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("skipped: {}: {reason}\n", std::thread::current().name().unwrap_or("a test")),
            );
            return;
        }
    };
}

mod alerts;
mod annotations;
mod api;
mod autoconf;
mod auxiliary;
mod avahi;
mod broken;
mod canary;
mod capture;
mod cli;
mod counters;
mod dashboards;
mod del;
mod devices;
mod discovery;
mod disturbances;
mod docs;
mod events;
mod explain;
mod faults;
mod fixtures;
mod gc;
mod guard;
mod host_access;
mod hostile;
mod image;
mod install;
mod kube;
mod lab_itself;
mod load;
mod log_file;
mod manifests;
mod metrics;
mod migrate;
mod networks;
mod page;
mod ping;
mod privileges;
mod prometheus;
mod reflect;
mod regressions;
mod relay;
mod repair;
mod restart;
mod results;
mod routes;
mod sandbox;
mod skew;
mod storm;
mod strangers;
mod sweep;
mod sysdump;
mod takeover;
mod thin;
mod top;
mod trace;
mod upgrade;
mod upstream;
mod verbs;
mod watch;
mod why;
