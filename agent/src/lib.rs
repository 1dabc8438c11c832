//! The map of the house, in reading order.
//!
//! A request comes in through `server`, becomes one of `ops`, which asks `plan` what to do and does it through
//! `sys`, `kube`, `datapath` and `records`. Words (`names`, `fault`, `cni`, `wire`, `objects`, `config`, `metrics`) are
//! what they all speak. Layers, checked by `cargo xtask tidy`: words < decide < touch < act < serve < root; see
//! ARCHITECTURE.md. Without the feature `daemon` only what the shim needs is built.

// Words: pure, depend on nothing.
pub mod cni;
#[cfg(feature = "daemon")]
pub mod config;
pub mod fault;
#[cfg(feature = "daemon")]
pub mod metrics;
pub mod names;
#[cfg(feature = "daemon")]
pub mod objects;
pub mod wire;

// Decide: pure functions over words.
#[cfg(feature = "daemon")]
pub mod diagnosis;
#[cfg(feature = "daemon")]
pub mod plan;
#[cfg(feature = "daemon")]
pub mod relay;

// Touch: each wraps one outside thing.
#[cfg(feature = "daemon")]
pub mod datapath;
#[cfg(feature = "daemon")]
pub mod kube;
#[cfg(feature = "daemon")]
pub mod kubelet;
pub mod records;
pub mod spool;
pub mod sys;

// Act: the only place that knows the order of things.
#[cfg(feature = "daemon")]
pub mod ops;

// Serve: edges that translate.
#[cfg(feature = "daemon")]
pub mod cli;
#[cfg(feature = "daemon")]
pub mod server;
#[cfg(feature = "daemon")]
pub mod telemetry;

// Root: builds the parts and starts them in order.
#[cfg(feature = "daemon")]
pub mod daemon;
#[cfg(feature = "daemon")]
pub mod thin;
