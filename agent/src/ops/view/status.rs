//! How the agent is: one line per subsystem, worst first.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::API_VERSION;
use crate::datapath::{Facts, Guarded, Method, ParentFacts, ProgramFacts, Reading};
use crate::fault::many;
use crate::ops::context::Context;
use crate::ops::status;
use crate::records::{Origin, State};

/// How one subsystem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// As it should be.
    Ok,
    /// Works, but look at it.
    Warning,
    /// Does not work.
    Failed,
}

/// One line of the status.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Which subsystem.
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// One sentence.
    pub text: String,
}

/// The status document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct StatusView {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub version: &'static str,
    pub health: Health,
    pub subsystems: Vec<Line>,
    pub runtime_conf: Option<RuntimeConfView>,
    pub datapath: Option<DatapathView>,
}

/// The conf for the container runtime.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct RuntimeConfView {
    pub file: Option<String>,
    pub master: Option<String>,
    pub since: u64,
    pub problem: Option<String>,
    pub warnings: Vec<String>,
}

/// What the eBPF side holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct DatapathView {
    pub layout: u32,
    pub object: &'static str,
    pub slots: u32,
    pub slots_used: u32,
    pub uncounted: u32,
    pub counters_read_by: &'static str,
    pub parents: Vec<ParentView>,
    pub programs: Vec<ProgramView>,
}

/// One macvlan parent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ParentView {
    pub name: String,
    pub ifindex: u32,
    pub attached_by: Option<&'static str>,
    pub guard: Option<&'static str>,
    pub guard_fault: Option<String>,
    pub members: usize,
    pub beyond_fanout: usize,
}

/// One loaded program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct ProgramView {
    pub name: String,
    pub id: u32,
    pub verified_instructions: Option<u32>,
}

impl From<Facts> for DatapathView {
    fn from(facts: Facts) -> Self {
        let parent = |parent: ParentFacts| ParentView {
            attached_by: parent.method.map(Method::as_str),
            guard: parent.guard.as_ref().and_then(Guarded::method),
            guard_fault: parent.guard.as_ref().and_then(Guarded::fault).map(str::to_owned),
            name: parent.name,
            ifindex: parent.ifindex,
            members: parent.members,
            beyond_fanout: parent.overflow,
        };
        let program = |program: ProgramFacts| ProgramView {
            name: program.name,
            id: program.id,
            verified_instructions: program.verified_instructions,
        };
        Self {
            layout: facts.layout,
            object: facts.object,
            slots: facts.slots,
            slots_used: facts.slots_used,
            uncounted: facts.uncounted,
            counters_read_by: facts.reading.as_str(),
            parents: facts.parents.into_iter().map(parent).collect(),
            programs: facts.programs.into_iter().map(program).collect(),
        }
    }
}

/// How the agent is, worst subsystem first.
pub fn status(context: &Context) -> StatusView {
    let mut subsystems = vec![readiness(context), cluster(context), records(context), datapath(context)];
    let runtime_conf = context.settings.generator.on.then(|| runtime_conf(context));
    subsystems.extend(runtime_conf.as_ref().map(runtime_conf_line));
    subsystems.extend(metrics(context));
    subsystems.extend(page(context));
    subsystems.sort_by_key(|line| std::cmp::Reverse(line.health));
    StatusView {
        api_version: API_VERSION,
        kind: "Status",
        version: env!("CARGO_PKG_VERSION"),
        health: subsystems.first().map_or(Health::Ok, |line| line.health),
        subsystems,
        runtime_conf,
        datapath: context.datapath.get().map(|datapath| datapath.facts().into()),
    }
}

fn readiness(context: &Context) -> Line {
    match status::ready(context) {
        Ok(()) if context.gate.is_closed() => {
            let text = "drained: new pods wait for the next agent; restart this one to undo that".to_owned();
            Line { name: "requests", health: Health::Warning, text }
        }
        Ok(()) => {
            let (attaching, others) = context.turns.free();
            let text = format!("ready; {} free for ADD, {others} for the rest", many(attaching, "place"));
            Line { name: "requests", health: Health::Ok, text }
        }
        Err(error) => Line { name: "requests", health: Health::Failed, text: error.to_string() },
    }
}

fn cluster(context: &Context) -> Line {
    let health = context.cluster.health();
    let mut parts = vec![format!("source {}, {}", health.source, many(health.networks, "network"))];
    if health.reports_pending > 0 {
        parts.push(format!("{} waiting", many(health.reports_pending, "status annotation")));
    }
    parts.extend(health.last_error.as_ref().map(|error| format!("last fault: {error}")));
    parts.extend(health.refusals.iter().cloned());
    let fine = health.connected && health.refusals.is_empty();
    Line { name: "cluster", health: if fine { Health::Ok } else { Health::Warning }, text: parts.join("; ") }
}

fn runtime_conf(context: &Context) -> RuntimeConfView {
    let known = context.default_network.now();
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    RuntimeConfView {
        file: known.file.as_deref().map(shown),
        master: known.master.as_ref().map(|master| shown(&master.path)),
        since: known.since,
        problem: known.problem.clone(),
        warnings: known.warnings.clone(),
    }
}

fn runtime_conf_line(view: &RuntimeConfView) -> Line {
    let health = match (&view.problem, view.warnings.is_empty()) {
        (Some(_), _) => Health::Failed,
        (None, false) => Health::Warning,
        (None, true) => Health::Ok,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut parts: Vec<String> = view.problem.iter().chain(&view.warnings).cloned().collect();
    parts.push(view.file.clone().unwrap_or_else(|| "no conf of ours is there".into()));
    parts.extend(view.master.as_ref().map(|master| format!("master {master}")));
    parts.push(format!("for {} s", now.saturating_sub(view.since)));
    Line { name: "runtime conf", health, text: parts.join("; ") }
}

/// Only where something is wrong with them.
fn metrics(context: &Context) -> Option<Line> {
    let fault = context.metrics_fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
    fault.map(|text| Line { name: "metrics", health: Health::Warning, text })
}

/// The same for the web page.
fn page(context: &Context) -> Option<Line> {
    let fault = context.page_fault.lock().unwrap_or_else(PoisonError::into_inner).clone();
    fault.map(|text| Line { name: "web page", health: Health::Warning, text })
}

fn records(context: &Context) -> Line {
    let all = context.ledger.all();
    let undo = all.iter().filter(|record| record.state == State::Undo).count();
    let taken_over = all.iter().filter(|record| record.origin != Origin::Agent).count();
    let mut text = format!("{}, {undo} of them to be undone", many(all.len(), "container"));
    if taken_over > 0 {
        let _infallible = write!(text, ", {taken_over} taken over from Multus or libcni's result cache");
    }
    Line { name: "records", health: if undo == 0 { Health::Ok } else { Health::Warning }, text }
}

fn datapath(context: &Context) -> Line {
    let name = "datapath";
    match (context.datapath.get(), context.datapath.fault()) {
        (Some(datapath), _) => {
            let (facts, troubles) = (datapath.facts(), context.troubles.told(Instant::now()));
            let mut parts = vec![format!("{} of {} slots used", facts.slots_used, facts.slots)];
            if facts.reading == Reading::Single {
                parts.push("counters are read one by one, as the kernel has no batches for them".to_owned());
            }
            for parent in &facts.parents {
                let by = parent.method.map_or("nothing", Method::as_str);
                parts.push(format!("parent {} by {by}, {}", parent.name, many(parent.members, "member")));
                match parent.guard.as_ref().map(|guard| (guard.method(), guard.fault())) {
                    Some((Some(method), _)) => parts.push(format!("storm guard by {method}")),
                    Some((None, Some(fault))) if troubles.iter().any(|text| text.contains(fault)) => {
                        parts.push("without its storm guard".to_owned());
                    }
                    Some((None, Some(fault))) => parts.push(format!("without its storm guard: {fault}")),
                    _ => {}
                }
                if parent.overflow > 0 {
                    parts.push(format!("{} of them beyond the fan-out", parent.overflow));
                }
            }
            if facts.uncounted > 0 {
                parts.push(format!("not counted: {}; raise datapath.slots", many(facts.uncounted, "attachment")));
            }
            let unguarded = facts.parents.iter().any(|p| p.guard.as_ref().and_then(Guarded::fault).is_some());
            let is_fine = facts.uncounted == 0 && !unguarded && troubles.is_empty();
            let text = troubles.into_iter().chain(parts).collect::<Vec<_>>().join("; ");
            Line { name, health: if is_fine { Health::Ok } else { Health::Warning }, text }
        }
        (None, Some(fault)) => Line { name, health: Health::Failed, text: fault },
        (None, None) => Line { name, health: Health::Ok, text: "off".into() },
    }
}
