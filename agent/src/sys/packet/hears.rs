//! What a packet socket is asked to hear. Words alone: `filter` and `kinds` make programs of them.

/// Frames by their destination MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cast {
    /// All of them.
    #[default]
    Any,
    /// To a group, or to everybody.
    Group,
    /// To one interface.
    Unicast,
}

/// Which kind of frames a socket hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// UDP, by its ports.
    #[default]
    Ports,
    /// Multicast DNS responses, from port 5353 to port 5353, that came in: those to a group's MAC, as they are on the link,
    /// and those to one interface's MAC with a packet mark that has this value under this mask, the relay's copies. And
    /// what this machine sends about the groups it is in: IGMP and MLD reports.
    Discovery(u32, u32),
    /// Every frame, each cut after so many bytes.
    Everything(u32),
}

/// What a socket hears.
#[derive(Debug, Clone, Default)]
pub struct Hears {
    /// Which kind; ports and cast are looked at for [`Kind::Ports`] alone.
    pub kind: Kind,
    /// UDP destination ports, at most [`MOST_PORTS`](super::MOST_PORTS); a frame with one of them is heard.
    pub to: Vec<u16>,
    /// UDP source ports, at most [`MOST_PORTS`](super::MOST_PORTS); a frame with one of them is heard, too.
    pub from: Vec<u16>,
    /// Which destination MACs.
    pub cast: Cast,
    /// Also what this machine sends on the interface, but for what this very socket sends.
    pub outgoing: bool,
    /// Groups' MACs that the interface lets in while the socket lives. Nobody on the link is told (no IGMP, no MLD).
    pub groups: Vec<[u8; 6]>,
    /// How many bytes may wait; the kernel doubles them for its own needs. Zero: as the system has it.
    pub waiting: u32,
}
