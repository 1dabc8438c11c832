//! Giving the node back to Multus: its files as they were, and for each running container a note by which its DEL finds
//! everything. The notes come first: who calls Multus's plugin finds them there.
//!
//! Touches no interface: what was attached goes on working, uncounted and without a relay.

use std::path::Path;

use super::super::take::{self, Heir};
use super::super::{Drained, InstallError, Kind, Report, Site, is_all_seen, remains};
use super::{Migration, handing_over, seen};
use crate::names::ContainerId;
use crate::ops::takeover;
use crate::plan::migrate::{Fortune, Held, back as decide};
use crate::records::{Origin, Record, Records, State};
use crate::sys::revert::there;

/// What only the operator can know, said once.
const CRI_O: &str = "CRI-O asks for a DEL with the conf that a pod was started with, ours, which Multus does not do: there \
                     delete the pods with further networks before this";

/// Gives the node back. `drained`: what came of asking the agent to end.
///
/// # Errors
/// What stopped it; it can be run again.
pub fn back(migration: &Migration, drained: &Drained) -> Result<Report, InstallError> {
    let site = &migration.site;
    let mut report = Report::default();
    take::say_drained(drained, &mut report);
    is_all_seen(site)?;
    let cni_dir = site.cni_dir()?;
    // Who comes again finds nothing of ours, and empty folders are Multus's.
    let is_over = || take::is_untouched(&cni_dir).then(|| take::shared(site, &cni_dir));
    let staying = there::noted(site.host_root(), &cni_dir).or_else(is_over).unwrap_or_default();
    let records = take::open(&cni_dir, site.dry_run)?;
    let own = match (&records, site.dry_run) {
        (Some(records), false) => Some(take::own(records, &cni_dir)?),
        _ => None,
    };
    let read = |records: &Records| take::all(records, site.dry_run);
    let all = records.as_ref().map(read).transpose();
    let all = all.map_err(|error| InstallError::of("read the records in", &cni_dir, error))?.unwrap_or_default();
    take::kernel(site, &all, &mut report);
    let mut left = Vec::new();
    if let Some(records) = &records {
        left = hand_over_all(site, (records, all), &mut report)?;
        take::notes(site, &cni_dir, &mut report);
    }
    for record in told_by_results_alone(site, &cni_dir) {
        left.extend(hand_over(site, record, &mut report)?);
    }
    take::revert(site, &cni_dir, (left.is_empty(), Heir::Multus), &mut report)?;
    let is_served = take::socket(site, drained, &staying, &mut report);
    drop(own);
    if left.is_empty() {
        let staying = if is_served { take::shared(site, &cni_dir) } else { staying };
        take::own_files(site, &cni_dir, &staying, &mut report)?;
        if !is_served {
            report.note(Kind::Left, "next: start Multus again, if it has a daemon");
        }
    } else {
        take::close(site, &cni_dir)?;
        take::say_what_stays(&left, &mut report);
    }
    Ok(report)
}

/// Gives Multus what is attached, and finishes what is gone. The answer is what could be neither given nor finished.
fn hand_over_all(
    site: &Site,
    (records, all): (&Records, Vec<Record>),
    report: &mut Report,
) -> Result<Vec<Record>, InstallError> {
    let cni_dir = site.cni_dir()?;
    let (mut gone, mut left) = (Vec::new(), Vec::new());
    for record in all {
        let may_live = record.netns.is_none() || seen::is_alive(site, &record);
        let is_noted = handing_over::is_noted(&cni_dir, &record);
        let (is_attached, is_due) = (record.state == State::Added, !record.due().is_empty());
        match decide(Held { is_attached, may_live, is_due, is_noted }) {
            Fortune::Finish => gone.push(record),
            Fortune::Noted => report.note(Kind::Already, format!("{} has Multus's own note still", name(&record))),
            Fortune::Note if site.dry_run => left.extend(hand_over(site, record, report)?),
            Fortune::Note => {
                // A plugin may be at its DEL, which needs no agent, and may have done it since we read.
                let Ok(Some(_held)) = records.hold(&record.container) else {
                    left.push(record);
                    continue;
                };
                match records.load(&record.container) {
                    Ok(Some(now)) if now.state == State::Added => left.extend(hand_over(site, now, report)?),
                    Ok(Some(now)) => gone.push(now),
                    Ok(None) => {}
                    Err(_) => left.push(record),
                }
            }
        }
    }
    for record in remains::finish(site, records, gone, report) {
        let what = if seen::is_alive(site, &record) {
            "was to be detached, which could not be finished from here"
        } else {
            "is gone and could not be detached from here"
        };
        let text = format!(
            "{} {what}: Multus does it only if the runtime asks once more; with host-exec, or run on the host, it is \
             done now",
            name(&record)
        );
        report.note(Kind::Warning, text);
        left.extend(hand_over(site, record, report)?);
    }
    Ok(left)
}

/// Running containers whose records were lost: libcni's results still say what they have.
fn told_by_results_alone(site: &Site, cni_dir: &Path) -> Vec<Record> {
    let is_recorded = |id: &ContainerId| Records::at(cni_dir).load(id).is_ok_and(|record| record.is_some());
    let left = takeover::Left::below(cni_dir);
    let told = left.containers().filter(|id| !is_recorded(id)).filter_map(|id| left.told(id));
    told.filter(|record| record.origin == Origin::Cache && seen::is_alive(site, record)).collect()
}

/// Gives one container; it comes back where that cannot be done.
fn hand_over(site: &Site, record: Record, report: &mut Report) -> Result<Option<Record>, InstallError> {
    let cni_dir = site.cni_dir()?;
    let done = if site.dry_run { Ok(()) } else { handing_over::hand_over(&cni_dir, &record) };
    match done {
        Ok(()) => {
            if record.origin == Origin::Agent && report.steps.iter().all(|step| step.text != CRI_O) {
                report.note(Kind::Left, CRI_O);
            }
            report.note(Kind::Done, format!("{} is noted for Multus, whose DEL undoes its networks", name(&record)));
            Ok(None)
        }
        Err(error) => {
            report.note(Kind::Warning, format!("{} cannot be noted for Multus: {error}", name(&record)));
            Ok(Some(record))
        }
    }
}

fn name(record: &Record) -> String {
    let pod = record.pod.as_ref().map(|pod| format!("pod {pod}"));
    pod.unwrap_or_else(|| format!("container {}", record.container))
}
