//! What does host access let through? The ports of the host that a pod may open, and the exchanges the host began.

/// How many port ranges one attachment can have.
pub const MOST_RANGES: usize = 16;
/// How long the host's last datagram of an exchange lets the pod answer, in nanoseconds: conntrack's own time-out for an
/// exchange that was answered, two minutes.
pub const FLOW_LIFE: u64 = 120_000_000_000;

/// Ports from `first` to `last`, both included; host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// Value of `host_ports` (key: instance number): what a pod may open on the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostPorts {
    /// How many of `ranges` count, at most [`MOST_RANGES`].
    pub count: u32,
    /// TCP and UDP ports; those from `count` on are zero.
    pub ranges: [PortRange; MOST_RANGES],
}

/// Key of `host_flows`: a UDP exchange between the host and a pod whose ports are limited. The value is the time of the
/// host's last datagram, in nanoseconds since the boot (`CLOCK_MONOTONIC`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Interface index of the parent.
    pub parent: u32,
    /// The pod's MAC.
    pub mac: [u8; 6],
    /// The pod's port, host byte order.
    pub pod_port: u16,
    /// The host's port.
    pub host_port: u16,
    /// Zero.
    pub pad: u16,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{align_of, size_of};

    #[test]
    fn the_layouts_are_what_pinned_maps_hold() {
        assert_eq!((size_of::<PortRange>(), align_of::<PortRange>()), (4, 2));
        assert_eq!((size_of::<HostPorts>(), align_of::<HostPorts>()), (4 + 4 * MOST_RANGES, 4));
        assert_eq!((size_of::<FlowKey>(), align_of::<FlowKey>()), (4 + 6 + 2 + 2 + 2, 4));
    }
}
