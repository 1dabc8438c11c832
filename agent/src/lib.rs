//! The map of the house, in reading order.
//!
//! A request comes in through `server`, becomes one of `ops`, which asks `plan` what to do and does it through
//! `sys`, `kube`, `datapath` and `records`. Words (`names`, `fault`, `cni`, `wire`, `objects`, `config`) are what they
//! all speak. Layers, checked by `cargo xtask tidy`: words < decide < touch < act < serve < root; see ARCHITECTURE.md.

// Words: pure, depend on nothing.
pub mod fault;
pub mod names;
pub mod objects;

// Touch: each does one outside thing and decides nothing.
#[cfg(feature = "daemon")]
pub mod kube;
