//! Does the datapath do in real namespaces, on the real kernel, what its documents say?
//!
//! Each test makes its own namespaces and pin folder and removes them; root and macvlan are needed.
#![expect(clippy::tests_outside_test_module, reason = "an integration test is a test module")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bench;
mod budget;
mod frames;
mod lab;
mod listeners;
mod model;
mod stranger;
mod trial;

mod bpftool;
mod cost;
mod costs;
mod counting;
mod cycles;
mod damage;
mod golden;
mod guard;
mod host_access;
mod host_ports;
mod kernels;
mod lifecycle;
mod parents;
mod plain;
mod property;
mod protocols;
mod relaying;
mod replay;
mod shown;
mod spoofing;
