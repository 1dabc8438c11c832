//! What the benchmarks are made of: contenders, figures, the cost of the eBPF programs, and the relay beside its peers.
//!
//! It measures; the program `bench` prints.

pub mod contender;
pub mod figures;
pub mod packets;
pub mod relay;
