//! Does a pod hear what somebody announces, and if not, what is in the way? The chain from the announcement to the pod's
//! interface, link by link, and one sentence that names the first broken one with its remedy.
//!
//! Pure: what is the case is an argument. Asks nobody.

use std::time::Duration;

use crate::fault::many;

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

/// How one link of the chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Fine,
    /// Worth a look.
    Warning,
    /// Nothing gets past it.
    Broken,
    /// It does not matter here.
    Aside,
    /// Nobody can say.
    Unknown,
}

impl State {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Warning => "warning",
            Self::Broken => "broken",
            Self::Aside => "aside",
            Self::Unknown => "unknown",
        }
    }
}

/// One link of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its name.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// One sentence.
    pub text: String,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The chain, in order.
    pub steps: Vec<Step>,
    /// Whether the pod hears of it; `None`: nobody can say.
    pub seen: Option<bool>,
    /// Why, in one sentence.
    pub verdict: String,
    /// What to do; empty when nothing is to be done.
    pub remedy: String,
}

/// Goes through the chain.
pub fn judge(facts: &Facts) -> Judgement {
    let steps = steps(facts);
    let (seen, verdict, remedy) = first_broken(facts).unwrap_or_else(|| nothing_in_the_way(facts));
    Judgement { steps, seen, verdict, remedy }
}

/// Whether the pod hears of it only if the relay brings it.
fn needs_relay(facts: &Facts) -> bool {
    !facts.here.iter().any(|told| matches!(told.by, By::Lan | By::Itself | By::Sibling(_, Some(true))))
}

type Answer = (Option<bool>, String, String);

fn first_broken(facts: &Facts) -> Option<Answer> {
    let Facts { name, pod, interface, parent, protocol, .. } = facts;
    let no = |verdict: String, remedy: String| Some((Some(false), verdict, remedy));
    if let Some(why) = &facts.no_interface {
        return no(format!("{interface} of {pod} is not there: {why}"), "create the pod anew".into());
    }
    if let Some(uplink) = facts.elsewhere.iter().find(|link| facts.reflected_from.contains(link)) {
        let verdict = format!("{pod} hears it on its own interface: {protocol} is reflected to it from {uplink}");
        return facts.here.is_empty().then_some((Some(true), verdict, String::new()));
    }
    if facts.here.is_empty() && !facts.elsewhere.is_empty() {
        let others = facts.elsewhere.join(", ");
        return no(
            format!("\"{name}\" is announced on {others}, and {pod} is on {parent}"),
            format!("attach {pod} to a network on {others}, or have {protocol} reflected from there"),
        );
    }
    if facts.here.is_empty() && facts.listening.is_some_and(|since| since >= LONG_ENOUGH) {
        let similar = match &facts.similar[..] {
            [] => String::new(),
            names => format!("; what sounds like it: {}", names.join(", ")),
        };
        return no(
            format!("nobody announced \"{name}\" on {parent} in the last {}{similar}", said(facts.listening)),
            format!("see whether the device is on and on this link: multus-agent relay ping --parent {parent}"),
        );
    }
    if let [Told { by: By::Sibling(other, Some(false)), .. }] = &facts.here[..] {
        return no(
            format!("{other} announces it, and the mode of their network keeps pods apart from each other"),
            format!("give the network of {parent} the mode bridge"),
        );
    }
    if needs_relay(facts) { relay_broken(facts) } else { None }
}

fn relay_broken(facts: &Facts) -> Option<Answer> {
    let Facts { pod, parent, protocol, network, interface, .. } = facts;
    let only = match &facts.here[..] {
        [] => format!("{protocol} of the node does not reach {pod}"),
        _ => format!("the node announces it, and that does not reach {pod}"),
    };
    let no = |why: String, remedy: String| Some((Some(false), format!("{only}: {why}"), remedy));
    if let Some(why) = &facts.datapath {
        return no(why.clone(), "set datapath.mode to full, and see multus-agent status".into());
    }
    let anew = format!("then create {pod} anew");
    match &facts.switch {
        Switch::On => {}
        Switch::Configuration => {
            return no(
                format!("{protocol} is not in datapath.relay.protocols"),
                format!("add it there, or to annotation multus-ebpf.io/relay of network {network}, {anew}"),
            );
        }
        Switch::Ceiling => {
            return no(
                format!("{protocol} is not in datapath.relay.allowed, the ceiling of this node"),
                format!("add it there, {anew}"),
            );
        }
        Switch::Network(value) => {
            return no(
                format!("annotation multus-ebpf.io/relay of network {network}, \"{value}\", leaves {protocol} out"),
                format!("add {protocol} to it, {anew}"),
            );
        }
        Switch::Pod(value) => {
            let value = value.as_ref().map(|value| format!(", \"{value}\",")).unwrap_or_default();
            return no(
                format!("annotation multus-ebpf.io/relay of {pod}{value} leaves {protocol} out"),
                format!("add {protocol} to it, {anew}"),
            );
        }
        Switch::Stale => {
            return no(
                format!("{protocol} was switched off when {pod} was attached, and is not any more"),
                format!("create {pod} anew"),
            );
        }
    }
    if let Some(why) = &facts.no_place {
        return no(format!("{interface} is no member of {parent}: {why}"), "see multus-agent get relay".into());
    }
    if let Some(why) = &facts.parent_programs {
        return no(
            format!("the programs on {parent} are not whole: {why}"),
            "the agent puts them back; find out who removes them".into(),
        );
    }
    None
}

fn nothing_in_the_way(facts: &Facts) -> Answer {
    let Facts { pod, parent, protocol, name, interface, .. } = facts;
    let Some(told) = facts.here.first() else {
        return (
            None,
            format!(
                "nothing is in the way of {protocol} to {interface} of {pod}; whether \"{name}\" is announced on {parent} is not known"
            ),
            format!("ask who is there: multus-agent relay ping --parent {parent}"),
        );
    };
    let road = match &told.by {
        By::Lan => "a device of the link announces it, which the interface hears itself".to_owned(),
        By::Host => "the node announces it, and the relay brings it".to_owned(),
        By::Itself => "it announces it itself".to_owned(),
        By::Sibling(other, _) => format!("{other} announces it on the same link"),
    };
    let doubt = match &told.by {
        By::Sibling(_, None) => None,
        _ => Some(true),
    };
    (doubt, format!("{pod} hears it on {interface}: {road}"), String::new())
}

fn steps(facts: &Facts) -> Vec<Step> {
    let Facts { pod, interface, parent, protocol, .. } = facts;
    let needed = needs_relay(facts);
    // What the relay lacks does not matter to what comes without it.
    let state = |is_broken: bool| match (is_broken, needed) {
        (false, _) => State::Fine,
        (true, true) => State::Broken,
        (true, false) => State::Aside,
    };
    let or = |fault: &Option<String>, fine: String| (state(fault.is_some()), fault.clone().unwrap_or(fine));
    let mut steps = vec![announced(facts)];
    let mut step = |name, (state, text): (State, String)| steps.push(Step { name, state, text });
    step("datapath", or(&facts.datapath, format!("{protocol} is relayed on this node")));
    step("switch", (state(facts.switch != Switch::On), switch(facts)));
    step("member", or(&facts.no_place, format!("{interface} of {pod} is a member of {parent}")));
    step("parent", or(&facts.parent_programs, format!("the programs on {parent} are in place")));
    let own = match (&facts.no_interface, &facts.programs) {
        (Some(fault), _) => (State::Broken, fault.clone()),
        (None, Some(fault)) => (State::Warning, fault.clone()),
        (None, None) => (State::Fine, format!("{interface} is up, with its programs")),
    };
    step("interface", own);
    step("frames", frames(facts));
    if facts.guarded > 0 {
        let text = format!("dropped on {parent}: {} of {protocol} from the LAN", many(facts.guarded, "frame"));
        step("guard", (State::Warning, text));
    }
    step(
        "replay",
        match facts.replayed {
            Some((age, count)) => {
                (State::Fine, format!("told {} ago what it had missed, in {count} datagrams", said(Some(age))))
            }
            None => (State::Aside, "it was not told anything that it had missed".to_owned()),
        },
    );
    steps
}

fn announced(facts: &Facts) -> Step {
    let Facts { parent, protocol, .. } = facts;
    let (state, text) = match (&facts.here[..], facts.listening) {
        ([], _) if !facts.elsewhere.is_empty() => {
            (State::Broken, format!("announced on {} and not on {parent}", facts.elsewhere.join(", ")))
        }
        ([], _) if protocol != "mdns" => {
            (State::Unknown, format!("announcements of {protocol} are not remembered, those of mdns alone are"))
        }
        ([], None) => {
            (State::Unknown, format!("nobody on {parent} has mdns relayed, so announcements there are not listened to"))
        }
        ([], Some(since)) if since < LONG_ENOUGH => {
            (State::Unknown, format!("not announced in the {} that {parent} has been listened to", said(Some(since))))
        }
        ([], since) => (State::Broken, format!("not announced on {parent} in the last {}", said(since))),
        (all, _) => (State::Fine, all.iter().map(one).collect::<Vec<_>>().join("; ")),
    };
    Step { name: "announced", state, text }
}

fn one(told: &Told) -> String {
    let by = match &told.by {
        By::Lan => "a device of the link".to_owned(),
        By::Host => "the node".to_owned(),
        By::Itself => "the pod itself".to_owned(),
        By::Sibling(pod, _) => pod.clone(),
    };
    let (age, left) = (said(Some(told.age)), said(Some(told.left)));
    format!("{} by {by} at {}, {age} ago, holds for {left}", told.what, told.from)
}

fn switch(facts: &Facts) -> String {
    let Facts { protocol, pod, network, .. } = facts;
    let off = format!("{protocol} is not relayed for it: ");
    match &facts.switch {
        Switch::On => format!("{protocol} is relayed for it"),
        Switch::Configuration => off + "not in datapath.relay.protocols",
        Switch::Ceiling => off + "not in datapath.relay.allowed",
        Switch::Network(value) => format!("{off}the annotation of network {network} is \"{value}\""),
        Switch::Pod(Some(value)) => format!("{off}the annotation of {pod} is \"{value}\""),
        Switch::Pod(None) => format!("{off}left out by the annotation of {pod}, which cannot be read now"),
        Switch::Stale => off + "it was switched off when the pod was attached",
    }
}

fn frames(facts: &Facts) -> (State, String) {
    let skipped: Vec<String> = facts.skipped.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    let text = format!("{} of the node relayed to pods on {}", many(facts.relayed, "frame"), facts.parent);
    if skipped.is_empty() {
        return (State::Fine, text);
    }
    (State::Warning, format!("{text}; not relayed: {}", skipped.join(", ")))
}

/// A time, as precise as anybody needs it.
fn said(time: Option<Duration>) -> String {
    match time.unwrap_or_default().as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(by: By) -> Vec<Told> {
        let (age, left) = (Duration::from_secs(12), Duration::from_secs(4488));
        vec![Told { what: "\"Printer\" (_ipp._tcp)".into(), by, from: "192.168.50.1".into(), age, left }]
    }

    fn facts(by: Option<By>) -> Facts {
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

    /// What is the case, whether it is heard, and words of verdict and remedy.
    type Row = (&'static str, Facts, Option<bool>, &'static [&'static str]);

    #[test]
    fn the_first_broken_link_is_named_with_its_remedy() {
        let host = || facts(Some(By::Host));
        let off = |switch| Facts { switch, ..host() };
        let deaf = Facts { listening: None, ..facts(None) };
        let sibling = |hears| facts(Some(By::Sibling("default/cast".into(), hears)));
        let rows: Vec<Row> = vec![
            ("the node's", host(), Some(true), &["relay brings it"]),
            ("a device's", facts(Some(By::Lan)), Some(true), &["hears itself"]),
            (
                "a device's, without the relay",
                Facts {
                    switch: Switch::Pod(Some("none".into())),
                    datapath: Some("off".into()),
                    ..facts(Some(By::Lan))
                },
                Some(true),
                &["hears itself"],
            ),
            ("its own", facts(Some(By::Itself)), Some(true), &["itself"]),
            ("a sibling's", sibling(Some(true)), Some(true), &["default/cast"]),
            ("a sibling's, kept apart", sibling(Some(false)), Some(false), &["keeps pods apart", "bridge"]),
            ("a sibling's, unclear", sibling(None), None, &["default/cast"]),
            ("off by the pod", off(Switch::Pod(Some("none".into()))), Some(false), &["of default/viewer, \"none\","]),
            ("off by the network", off(Switch::Network("ssdp".into())), Some(false), &["default/lan, \"ssdp\""]),
            ("off by the ceiling", off(Switch::Ceiling), Some(false), &["datapath.relay.allowed"]),
            ("off by default", off(Switch::Configuration), Some(false), &["datapath.relay.protocols"]),
            ("off when it was attached", off(Switch::Stale), Some(false), &["create default/viewer anew"]),
            (
                "off, and nobody listens",
                Facts { switch: Switch::Pod(None), ..deaf.clone() },
                Some(false),
                &["of default/viewer leaves mdns out"],
            ),
            ("nobody listens", deaf, None, &["is not known", "relay ping --parent eth0"]),
            (
                "not announced",
                Facts { similar: vec!["Print".into()], ..facts(None) },
                Some(false),
                &["nobody announced", "5 min", "sounds like it: Print", "relay ping"],
            ),
            ("too early", Facts { listening: Some(Duration::from_secs(2)), ..facts(None) }, None, &["not known"]),
            (
                "elsewhere",
                Facts { elsewhere: vec!["eth1".into()], ..facts(None) },
                Some(false),
                &["announced on eth1", "is on eth0", "reflected"],
            ),
            (
                "elsewhere, and reflected",
                Facts { elsewhere: vec!["eth1".into()], reflected_from: vec!["eth1".into()], ..facts(None) },
                Some(true),
                &["reflected to it from eth1"],
            ),
            ("no datapath", Facts { datapath: Some("eBPF is off".into()), ..host() }, Some(false), &["eBPF is off"]),
            ("full", Facts { no_place: Some("the fan-out is full".into()), ..host() }, Some(false), &["fan-out"]),
            (
                "torn",
                Facts { parent_programs: Some("parent_egress was removed".into()), ..host() },
                Some(false),
                &["parent_egress"],
            ),
            (
                "gone",
                Facts { no_interface: Some("no net1".into()), ..facts(Some(By::Lan)) },
                Some(false),
                &["not there"],
            ),
        ];
        for (what, facts, seen, words) in rows {
            let judged = judge(&facts);
            assert_eq!(judged.seen, seen, "{what}: {judged:#?}");
            let text = format!("{}. {}", judged.verdict, judged.remedy);
            for word in words {
                assert!(text.contains(word), "{what}: no \"{word}\" in: {text}");
            }
            let has_broken = judged.steps.iter().any(|step| step.state == State::Broken);
            let keeps_apart = matches!(&facts.here[..], [Told { by: By::Sibling(..), .. }]);
            let reflected = !facts.reflected_from.is_empty();
            assert_eq!(
                has_broken || keeps_apart,
                seen == Some(false) || keeps_apart || reflected,
                "{what}: {judged:#?}"
            );
            assert_eq!(judged.remedy.is_empty(), seen == Some(true) || what == "a sibling's, unclear", "{what}");
        }
    }

    #[test]
    fn the_chain_says_what_was_dropped() {
        let mut facts = facts(Some(By::Host));
        let state = |facts: &Facts, name: &str| {
            judge(facts).steps.into_iter().find(|step| step.name == name).map(|step| (step.state, step.text))
        };
        assert_eq!(state(&facts, "guard"), None);
        facts.guarded = 3;
        facts.skipped = vec![("malformed".into(), 2), ("no_member".into(), 1)];
        facts.replayed = Some((Duration::from_mins(3), 4));
        let text = |name| state(&facts, name).map(|(state, text)| format!("{}: {text}", state.name()));
        assert_eq!(text("guard").as_deref(), Some("warning: dropped on eth0: 3 frames of mdns from the LAN"));
        let frames = "warning: 7 frames of the node relayed to pods on eth0; not relayed: 2 malformed, 1 no_member";
        assert_eq!(text("frames").as_deref(), Some(frames));
        assert_eq!(text("replay").as_deref(), Some("fine: told 3 min ago what it had missed, in 4 datagrams"));
    }
}
