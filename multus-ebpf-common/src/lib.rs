#![cfg_attr(not(test), no_std)]
//! What do the eBPF programs and the agent say to each other? The shapes of every map's keys and values, and the
//! numbers that have meaning on both sides.
//!
//! Plain data only: `#[repr(C)]`, named integer fields, explicit padding, so that the kernel's BTF carries the names
//! and `bpftool map dump` prints them. Nothing here knows a helper, a system call or an allocation.
//!
//! A change of any layout here is a new [`LAYOUT`], and so a new folder of pins: a running agent of the other layout
//! never sees maps it would misread.

pub mod counters;
pub mod events;
pub mod guard;
pub mod host;
pub mod mark;
pub mod protocols;
pub mod relay;

/// Version of the map layouts in this crate; part of the pin folder's name (`<bpffs>/v2`).
pub const LAYOUT: u32 = 2;
