//! What the outside hears of the agent unasked: its log and its metrics.

pub mod exposition;
mod line;
pub mod log;
mod rotation;
