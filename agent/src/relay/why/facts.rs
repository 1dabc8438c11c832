//! What is the case between an announcement and a pod's interface, as somebody found it.
//!
//! Words, and what can be said about them without a judgement.

use std::time::Duration;

/// How long a parent must have been listened to for silence to mean something: what is announced is asked for now and then.
const LONG_ENOUGH: Duration = Duration::from_secs(10);

/// What is the case for one interface of a pod, on one parent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// What is looked for.
    pub name: String,
    /// The protocol's name, `mdns` unless asked otherwise.
    pub protocol: String,
    /// `NAMESPACE/NAME`.
    pub pod: String,
    /// The pod's interface.
    pub interface: String,
    /// The network it is an attachment of.
    pub network: String,
    /// The link below.
    pub parent: String,
    /// Announcements of it on the parent.
    pub here: Vec<Told>,
    /// Other parents on which it is announced.
    pub elsewhere: Vec<String>,
    /// Links from which the protocol is reflected to the pod's own interface.
    pub reflected_from: Vec<String>,
    /// Names on the parent that resemble it.
    pub similar: Vec<String>,
    /// How long announcements on the parent have been listened to; `None`: nobody does.
    pub listening: Option<Duration>,
    /// Why nothing is relayed at all, if so.
    pub datapath: Option<String>,
    /// What is wrong with the parent's programs.
    pub parent_programs: Option<String>,
    /// Whether the protocol is relayed for the attachment, and who says so.
    pub switch: Switch,
    /// Why the pod is no member although it should be.
    pub no_place: Option<String>,
    /// Why nothing can reach the interface.
    pub no_interface: Option<String>,
    /// What is wrong with the interface's own programs.
    pub programs: Option<String>,
    /// Frames of the protocol that the host sent and that were relayed to the parent's pods.
    pub relayed: u64,
    /// Frames of it that were not, by reason.
    pub skipped: Vec<(String, u64)>,
    /// Frames of it that the storm guard dropped.
    pub guarded: u64,
    /// When the pod was last told what it had missed, and in how many datagrams.
    pub replayed: Option<(Duration, u64)>,
}

/// One announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What is announced: `"Office Printer" (_ipp._tcp)`.
    pub what: String,
    /// Who announces it.
    pub by: By,
    /// From which addresses.
    pub from: String,
    /// How long ago.
    pub age: Duration,
    /// For how long it holds.
    pub left: Duration,
}

/// Who announces something, as the pod sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum By {
    /// A device of the link: macvlan interfaces hear it without us.
    Lan,
    /// The node: only the relay brings it to the pod.
    Host,
    /// The pod itself.
    Itself,
    /// Another pod on the parent, and whether the two hear each other (both are in bridge mode).
    Sibling(String, Option<bool>),
}

/// Whether a protocol is relayed for an attachment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    #[default]
    On,
    /// `datapath.relay.protocols` leaves it out.
    Configuration,
    /// `datapath.relay.allowed` does not allow it.
    Ceiling,
    /// The network's annotation, with its value.
    Network(String),
    /// The pod's annotation, with its value where it can be read.
    Pod(Option<String>),
    /// Now nothing would switch it off, but something did when the pod was attached.
    Stale,
}

impl Facts {
    /// Whether the pod hears of it only if the relay brings it.
    pub(super) fn needs_relay(&self) -> bool {
        !self.here.iter().any(|told| matches!(told.by, By::Lan | By::Itself | By::Sibling(_, Some(true))))
    }

    /// Whether silence on the parent means something by now.
    pub(super) fn listened_long_enough(&self) -> bool {
        self.listening.is_some_and(|since| since >= LONG_ENOUGH)
    }
}

/// A time, as precise as anybody needs it.
pub(super) fn said(time: Option<Duration>) -> String {
    match time.unwrap_or_default().as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// A printer that `by` announces, or nobody, and a viewer for whom all is well.
#[cfg(test)]
pub(super) fn facts(by: Option<By>) -> Facts {
    Facts {
        name: "Printer".into(),
        protocol: "mdns".into(),
        pod: "default/viewer".into(),
        interface: "net1".into(),
        network: "default/lan".into(),
        parent: "eth0".into(),
        here: by.map(told).unwrap_or_default(),
        listening: Some(Duration::from_mins(5)),
        relayed: 7,
        ..Facts::default()
    }
}

#[cfg(test)]
fn told(by: By) -> Vec<Told> {
    let (age, left) = (Duration::from_secs(12), Duration::from_secs(4488));
    vec![Told { what: "\"Printer\" (_ipp._tcp)".into(), by, from: "192.168.50.1".into(), age, left }]
}
