//! The eBPF programs of ours in the kernel, beside what the records say should be there.

use std::sync::Arc;

use serde::Serialize;

use super::List;
use crate::datapath::{Attached, Datapath, Placed, ProgramFacts};
use crate::ops::context::Context;
use crate::ops::links::attached;
use crate::records::State;

/// One program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/cli.md describes them")]
pub struct PlacedProgramView {
    pub program: String,
    pub id: Option<u32>,
    pub on: Option<String>,
    pub interface: Option<String>,
    pub attached_by: Option<&'static str>,
    pub recorded: bool,
    pub verified_instructions: Option<u32>,
    pub problem: Option<String>,
}

/// Where programs should be.
struct Place {
    on: String,
    interface: String,
}

/// Every program that should be there, and those that should not.
///
/// # Errors
/// The look at the kernel did not end.
pub async fn programs(context: &Context) -> Result<List<PlacedProgramView>, String> {
    let Some(datapath) = context.datapath.get() else { return Ok(List::of("ProgramList", Vec::new())) };
    let pods = expected(context);
    let datapath = Arc::clone(datapath);
    let items = tokio::task::spawn_blocking(move || look(&datapath, pods)).await.map_err(|error| error.to_string())?;
    Ok(List::of("ProgramList", items))
}

/// What the records say.
fn expected(context: &Context) -> Vec<(Place, Attached)> {
    let mut pods = Vec::new();
    for record in context.ledger.all().iter().filter(|record| record.state == State::Added) {
        let pod = record.pod.as_ref();
        let on = pod.map_or_else(|| record.container.to_string(), |pod| format!("{}/{}", pod.namespace, pod.name));
        for attachment in &record.attachments {
            if let Some(attached) = attached(context, record, attachment) {
                pods.push((Place { on: on.clone(), interface: attachment.ifname.to_string() }, attached));
            }
        }
    }
    pods
}

fn look(datapath: &Datapath, pods: Vec<(Place, Attached)>) -> Vec<PlacedProgramView> {
    let mut items = Vec::new();
    for parent in datapath.parents() {
        let place = Place { on: "node".to_owned(), interface: parent.name.clone() };
        match datapath.placed_on_parent(parent.ifindex) {
            Ok(placed) => items.extend(placed.into_iter().map(|placed| view(&place, placed))),
            Err(error) => items.push(unseen(&place, "parent_ingress", error.to_string())),
        }
    }
    for (place, attached) in pods {
        match datapath.placed_on_pod(&attached) {
            Ok(Some(placed)) => items.extend(placed.into_iter().map(|placed| view(&place, placed))),
            Ok(None) => items.push(unseen(&place, "pod_ingress", "the interface is gone".to_owned())),
            Err(error) => items.push(unseen(&place, "pod_ingress", error.to_string())),
        }
    }
    items.extend(datapath.unplaced().into_iter().map(|program| unplaced(program, None)));
    let known: Vec<u32> = items.iter().filter_map(|item| item.id).collect();
    let stray = |program| unplaced(program, Some("no record knows it: left by an earlier agent, or on its way out"));
    items.extend(datapath.strays(&known).into_iter().map(stray));
    items
}

fn view(place: &Place, placed: Placed) -> PlacedProgramView {
    PlacedProgramView {
        program: placed.name.to_owned(),
        id: placed.id,
        on: Some(place.on.clone()),
        interface: Some(place.interface.clone()),
        attached_by: placed.id.map(|_| placed.method),
        recorded: true,
        verified_instructions: None,
        problem: placed.problem,
    }
}

fn unseen(place: &Place, program: &str, problem: String) -> PlacedProgramView {
    PlacedProgramView {
        program: program.to_owned(),
        id: None,
        on: Some(place.on.clone()),
        interface: Some(place.interface.clone()),
        attached_by: None,
        recorded: true,
        verified_instructions: None,
        problem: Some(problem),
    }
}

/// One that is on no interface: as it should be, or with what is odd about it.
fn unplaced(program: ProgramFacts, odd: Option<&str>) -> PlacedProgramView {
    PlacedProgramView {
        program: program.name,
        id: Some(program.id),
        on: None,
        interface: None,
        attached_by: None,
        recorded: odd.is_none(),
        verified_instructions: program.verified_instructions,
        problem: odd.map(str::to_owned),
    }
}
