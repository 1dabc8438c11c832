//! What a step can be about: the words of traces, and of the label `stage` of the metrics.

/// What a step is about: the label `stage` of `multus_cni_stage_duration_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a turn, or for the cluster's own network.
    Wait,
    /// The pod's annotations.
    Pod,
    /// Networks, plan, and a look whether it can be carried out.
    Plan,
    /// A record, written to disk.
    Record,
    /// One attachment.
    Network,
    /// A plugin at work.
    Delegate,
    /// Programs and maps for an attachment.
    Datapath,
    /// Default routes.
    Routes,
    /// Where the host meets the pod.
    Reflect,
    /// The answer, and what is kept of it.
    Result,
    /// A look at what the kernel has.
    Kernel,
    /// Undoing, in reverse.
    Undo,
    /// All else.
    Rest,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 13] = [
        Self::Wait,
        Self::Pod,
        Self::Plan,
        Self::Record,
        Self::Network,
        Self::Delegate,
        Self::Datapath,
        Self::Routes,
        Self::Reflect,
        Self::Result,
        Self::Kernel,
        Self::Undo,
        Self::Rest,
    ];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Pod => "pod",
            Self::Plan => "plan",
            Self::Record => "record",
            Self::Network => "network",
            Self::Delegate => "delegate",
            Self::Datapath => "datapath",
            Self::Routes => "routes",
            Self::Reflect => "reflect",
            Self::Result => "result",
            Self::Kernel => "kernel",
            Self::Undo => "undo",
            Self::Rest => "rest",
        }
    }

    /// Does it mostly find nothing to do, so that a quick one says nothing?
    pub(super) fn has_mostly_nothing_to_do(self) -> bool {
        matches!(self, Self::Wait | Self::Routes | Self::Reflect | Self::Undo)
    }
}
