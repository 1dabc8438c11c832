//! What the benchmarks are made of: contenders, figures, and the cost of the eBPF programs.
//!
//! It measures; the program `bench` prints.

pub mod contender;
pub mod figures;
pub mod packets;
