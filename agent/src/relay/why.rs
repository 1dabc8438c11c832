//! Does a pod hear what somebody announces, and if not, what is in the way? The chain from the announcement to the pod's
//! interface, link by link, and one sentence that names the first broken one with its remedy.
//!
//! Pure: what is the case is an argument. Asks nobody.

mod chain;
mod facts;

use chain::steps;
pub use chain::{State, Step};
use facts::said;
pub use facts::{By, Facts, Switch, Told};

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
    if facts.here.is_empty() && facts.listened_long_enough() {
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
    if facts.needs_relay() { relay_broken(facts) } else { None }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::facts::facts;
    use super::*;

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
}
