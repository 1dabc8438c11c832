//! The chain from an announcement to a pod's interface, link by link, each with how it is.
//!
//! Says what is the case at each link, and not which of them matters: that is the judgement.

use super::facts::{By, Facts, Switch, Told, said};
use crate::fault::many;

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

/// Every link, in order.
pub(super) fn steps(facts: &Facts) -> Vec<Step> {
    let Facts { pod, interface, parent, protocol, .. } = facts;
    let needed = facts.needs_relay();
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
        ([], Some(since)) if !facts.listened_long_enough() => {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::facts::facts;
    use super::*;

    #[test]
    fn the_chain_says_what_was_dropped() {
        let mut facts = facts(Some(By::Host));
        let state = |facts: &Facts, name: &str| {
            steps(facts).into_iter().find(|step| step.name == name).map(|step| (step.state, step.text))
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
