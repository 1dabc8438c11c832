//! What each check makes of the facts: one file per part of the node, one function per check.

pub(super) mod cluster;
pub(super) mod install;
pub(super) mod kernel;
pub(super) mod networks;
pub(super) mod node;

/// Why a check that needs the agent's memory says nothing.
const NEEDS_AGENT: &str = "only a running agent can tell";
/// Why a check about eBPF says nothing.
const NO_DATAPATH: &str = "datapath.mode is off";
