//! The running agent: its records against the kernel, the relay, the datapath, and what it lives on.

use std::fmt::Write as _;

use super::{NEEDS_AGENT, NO_DATAPATH};
use crate::diagnosis::facts::{Agent, Viewpoint};
use crate::diagnosis::{Facts, Problem, Verdict};
use crate::fault::many;

/// Above this share of the limit memory is short.
const FULL_PERCENT: u64 = 80;

fn judged(facts: &Facts, problems: impl FnOnce(&Agent) -> Vec<Problem>) -> Verdict {
    facts.agent.as_ref().map_or(Verdict::Skipped(NEEDS_AGENT), |agent| Verdict::of(problems(agent)))
}

pub(in crate::diagnosis) fn reachable(facts: &Facts) -> Verdict {
    match &facts.viewpoint {
        Viewpoint::Agent => Verdict::Fine(format!("version {}", facts.version)),
        Viewpoint::Before => Verdict::Skipped("not asked for with --pre"),
        Viewpoint::Outside(why) => Verdict::wrong(
            why,
            "see whether its pod runs on this node, and whether socketDir and --socket (MULTUS_SOCKET) are the same; what follows was seen without it",
        ),
    }
}

pub(in crate::diagnosis) fn undone(facts: &Facts) -> Verdict {
    judged(facts, |agent| match agent.records {
        (_, 0) => Vec::new(),
        (all, undo) => vec![Problem::new(
            format!("to be undone: {undo} of {} on record", many(all, "container")),
            "they are tried again; if they stay, the agent's log names the plugin that refuses (hostExec lets the agent run it)",
        )],
    })
}

pub(in crate::diagnosis) fn lost(facts: &Facts) -> Verdict {
    let remedy = "delete the pod, so that it is made anew: somebody removed the interface behind the plugin";
    judged(facts, |agent| {
        let problem = |(pod, interface, why): &(String, String, String)| {
            Problem::new(format!("pod {pod}: interface {interface} is on record, and {why}"), remedy)
        };
        agent.lost.iter().map(problem).collect()
    })
}

pub(in crate::diagnosis) fn untold(facts: &Facts) -> Verdict {
    let remedy = "it is written again until done: see api-reachable and api-rbac";
    judged(facts, |agent| {
        agent.untold.iter().map(|pod| Problem::new(format!("pod {pod} has no network-status"), remedy)).collect()
    })
}

fn with_relay(facts: &Facts, problems: impl FnOnce(&Agent) -> Vec<Problem>) -> Verdict {
    if facts.wanted.relay { judged(facts, problems) } else { Verdict::Skipped("datapath.mode is not full") }
}

pub(in crate::diagnosis) fn parents(facts: &Facts) -> Verdict {
    with_relay(facts, |agent| {
        let bare = agent.datapath.parents.iter().filter(|parent| parent.attached_by.is_none());
        let problem = |parent: &crate::diagnosis::facts::Parent| {
            Problem::new(
                format!(
                    "parent {} has no programs of ours: nothing is relayed to its {} pods",
                    parent.name, parent.members.0
                ),
                "see datapath-programs and the agent's log; another program on the link may refuse company",
            )
        };
        bare.map(problem).collect()
    })
}

pub(in crate::diagnosis) fn fanout(facts: &Facts) -> Verdict {
    with_relay(facts, |agent| {
        let full = agent.datapath.parents.iter().filter(|parent| parent.members.1 > 0);
        let problem = |parent: &crate::diagnosis::facts::Parent| {
            Problem::new(
                format!(
                    "parent {}: {} of its {} pods found no place in the relay",
                    parent.name, parent.members.1, parent.members.0
                ),
                "spread the pods over more nodes or parents",
            )
        };
        full.map(problem).collect()
    })
}

/// What somebody chose is no problem; it is said, because it is what one looks for when nothing is discovered.
pub(in crate::diagnosis) fn relayed(facts: &Facts) -> Verdict {
    let Some(agent) = facts.agent.as_ref().filter(|_| facts.wanted.relay) else {
        return Verdict::Skipped(if facts.agent.is_none() { NEEDS_AGENT } else { "datapath.mode is not full" });
    };
    let interfaces = &agent.datapath.interfaces;
    let off: Vec<&str> = interfaces.iter().filter(|(_, relayed)| !relayed).map(|(name, _)| name.as_str()).collect();
    let mut text = format!("{} of {} macvlan interfaces", interfaces.len() - off.len(), interfaces.len());
    if !off.is_empty() {
        let shown: Vec<&str> = off.iter().take(5).copied().collect();
        let _infallible = write!(text, "; not for {} (why: multus-agent explain pod)", shown.join(", "));
    }
    Verdict::Fine(text)
}

pub(in crate::diagnosis) fn open(facts: &Facts) -> Verdict {
    if !facts.wanted.datapath {
        return Verdict::Skipped(NO_DATAPATH);
    }
    judged(facts, |agent| match &agent.datapath.fault {
        None => Vec::new(),
        Some(why) => vec![Problem::new(
            format!("the datapath is off: {why}"),
            "it is tried again by itself; see kernel-bpffs and privileges-capabilities. Pods are attached, and nothing is counted or relayed",
        )],
    })
}

pub(in crate::diagnosis) fn slots(facts: &Facts) -> Verdict {
    if !facts.wanted.datapath {
        return Verdict::Skipped(NO_DATAPATH);
    }
    let Some(agent) = &facts.agent else { return Verdict::Skipped(NEEDS_AGENT) };
    let (used, all, uncounted) = agent.datapath.slots;
    if uncounted > 0 {
        return Verdict::wrong(
            format!("not counted, as all {all} slots are taken: {}", many(uncounted, "attachment")),
            "raise datapath.slots and restart the agent",
        );
    }
    let noted = agent.datapath.notes.iter();
    let problem =
        |(whose, note): &(String, String)| Problem::new(format!("{whose}: {note}"), "see the agent's log for why");
    match noted.map(problem).collect::<Vec<_>>() {
        problems if problems.is_empty() => Verdict::Fine(format!("{used} of {all} slots used")),
        problems => Verdict::Wrong(problems),
    }
}

pub(in crate::diagnosis) fn troubles(facts: &Facts) -> Verdict {
    let remedy = "they are put back with growing pauses; find who takes them away (bpftool net, tc filter show)";
    if !facts.wanted.datapath {
        return Verdict::Skipped(NO_DATAPATH);
    }
    judged(facts, |agent| agent.datapath.troubles.iter().map(|text| Problem::new(text, remedy)).collect())
}

pub(in crate::diagnosis) fn memory(facts: &Facts) -> Verdict {
    let Some(agent) = &facts.agent else { return Verdict::Skipped(NEEDS_AGENT) };
    let mib = |bytes: u64| bytes >> 20;
    match agent.memory {
        None => Verdict::Skipped("its control group has no limit"),
        Some((used, limit)) if used.saturating_mul(100) > limit.saturating_mul(FULL_PERCENT) => Verdict::wrong(
            format!("{} of {} MiB are in use", mib(used), mib(limit)),
            "raise the memory limit of the agent's container; datapath.slots is the largest part that is configured",
        ),
        Some((used, limit)) => Verdict::Fine(format!("{} of {} MiB", mib(used), mib(limit))),
    }
}

pub(in crate::diagnosis) fn queue(facts: &Facts) -> Verdict {
    let Some(agent) = &facts.agent else { return Verdict::Skipped(NEEDS_AGENT) };
    match agent.places {
        (0, _) => Verdict::wrong(
            "no place is free for another ADD: requests wait for their turn",
            "see which plugin takes so long: multus-agent trace, top delegates",
        ),
        (attaching, others) => Verdict::Fine(format!("{attaching} free for ADD, {others} for the rest")),
    }
}

pub(in crate::diagnosis) fn disk(facts: &Facts) -> Verdict {
    judged(facts, |agent| {
        let problem = |why: &String| {
            Problem::new(
                format!("write a record below cniDir: {why}"),
                "free space there, or mount it writable: no pod can be attached",
            )
        };
        agent.unwritable.iter().map(problem).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::facts::{Datapath, Parent, Wanted};

    fn node(agent: Agent) -> Facts {
        let wanted = Wanted { datapath: true, relay: true, ..Wanted::default() };
        Facts { agent: Some(agent), wanted, viewpoint: Viewpoint::Agent, ..Facts::default() }
    }

    fn is_wrong(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Wrong(_))
    }

    type Case = (Facts, fn(&Facts) -> Verdict);

    #[test]
    fn each_trouble_is_its_own_checks() {
        let parent = |attached_by, members| Parent { name: "eth0".into(), attached_by, members };
        let of = |datapath: Datapath| node(Agent { datapath, ..Agent::default() });
        let cases: [Case; 11] = [
            (node(Agent { records: (3, 1), ..Agent::default() }), undone),
            (node(Agent { lost: vec![("a/b".into(), "net1".into(), "is gone".into())], ..Agent::default() }), lost),
            (node(Agent { untold: vec!["a/b".into()], ..Agent::default() }), untold),
            (of(Datapath { parents: vec![parent(None, (2, 0))], ..Datapath::default() }), parents),
            (of(Datapath { parents: vec![parent(Some("tcx"), (70, 6))], ..Datapath::default() }), fanout),
            (of(Datapath { fault: Some("EPERM".into()), ..Datapath::default() }), open),
            (of(Datapath { slots: (512, 512, 3), ..Datapath::default() }), slots),
            (of(Datapath { troubles: vec!["taken off".into()], ..Datapath::default() }), troubles),
            (node(Agent { memory: Some((81 << 20, 100 << 20)), ..Agent::default() }), memory),
            (node(Agent { places: (0, 8), ..Agent::default() }), queue),
            (node(Agent { unwritable: Some("full".into()), ..Agent::default() }), disk),
        ];
        let fine = node(Agent { places: (8, 8), memory: Some((80 << 20, 100 << 20)), ..Agent::default() });
        for (at, (facts, judge)) in cases.iter().enumerate() {
            assert!(is_wrong(&judge(facts)), "{at}");
            assert!(!is_wrong(&judge(&fine)), "{at} of a healthy node");
            assert!(!is_wrong(&judge(&Facts::default())), "{at} without an agent");
        }
    }

    #[test]
    fn who_hears_nothing_is_said_and_is_no_problem() {
        let interfaces = vec![("default/a net1".to_owned(), true), ("default/b net1".to_owned(), false)];
        let facts = node(Agent { datapath: Datapath { interfaces, ..Datapath::default() }, ..Agent::default() });
        let text = "1 of 2 macvlan interfaces; not for default/b net1 (why: multus-agent explain pod)";
        assert_eq!(relayed(&facts), Verdict::Fine(text.into()));
    }

    #[test]
    fn an_agent_that_is_away_is_the_first_problem() {
        let facts = Facts { viewpoint: Viewpoint::Outside("no socket".into()), ..Facts::default() };
        let Verdict::Wrong(problems) = reachable(&facts) else { panic!("it is away") };
        assert_eq!(problems[0].cause, "no socket");
    }
}
