//! Taking everything off: what is left of deletions is done, then the kernel's part, the host's files, and our own.
//!
//! A pod that still needs its DEL keeps its record, and the CNI plugin that does it from there without an agent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::{InstallError, Kind, Report, Site, is_all_seen, look, orphaned, ours, remains, shown};
use crate::datapath::{self, PodPlace};
use crate::fault::{many, quote};
use crate::ops::{device_info, takeover};
use crate::records::{Record, Records, State};
use crate::spool::{Note, Spool};
use crate::sys::files::{self, Held};
use crate::sys::revert::{RevertLog, Reverted, there};
use crate::wire;

/// How long an agent may take to end: longer than its last work.
const AGENTS_END: Duration = Duration::from_secs(25);
/// Folders below `cniDir` that are ours alone.
const OWN: [&str; 4] = ["records", "networks", "spool", "traces"];
/// Most pods that a sentence names.
const MOST_NAMED: usize = 5;

/// What came of draining the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// It was drained, and ends.
    Yes,
    /// There is none.
    NoAgent,
    /// It did not answer, as the sentence says.
    Failed(String),
}

/// Who has the node next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Heir<'a> {
    /// The cluster's own network alone; and this came of draining the agent.
    Cluster(&'a Drained),
    /// Multus, which is going to be started again.
    Multus,
}

/// Takes everything of ours off the host, but what a pod still needs. `drained`: what came of asking the agent to end.
///
/// # Errors
/// What stopped it; it can be run again.
pub fn uninstall(site: &Site, drained: &Drained) -> Result<Report, InstallError> {
    let mut report = Report::default();
    is_all_seen(site)?;
    say_drained(drained, &mut report);
    let cni_dir = site.cni_dir()?;
    let staying = there::noted(site.host_root(), &cni_dir).unwrap_or_default();
    let records = open(&cni_dir, site.dry_run)?;
    let own = match (&records, site.dry_run) {
        (Some(records), false) => Some(own(records, &cni_dir)?),
        _ => None,
    };
    let all = match &records {
        Some(records) => {
            all(records, site.dry_run).map_err(|error| InstallError::of("read the records in", &cni_dir, error))?
        }
        None => Vec::new(),
    };
    kernel(site, &all, &mut report);
    let (waiting, gone) = all.into_iter().partition::<Vec<_>, _>(|record| needs_del(site, record));
    let mut left = waiting;
    if let Some(records) = &records {
        left.extend(remains::finish(site, records, gone, &mut report));
        notes(site, &cni_dir, &mut report);
    }
    revert(site, &cni_dir, (left.is_empty(), Heir::Cluster(drained)), &mut report)?;
    let is_served = socket(site, drained, &staying, &mut report);
    drop(own);
    if left.is_empty() {
        let staying = if is_served { shared(site, &cni_dir) } else { staying };
        own_files(site, &cni_dir, &staying, &mut report)?;
    } else {
        close(site, &cni_dir)?;
        say_what_stays(&left, &mut report);
    }
    let did = |kind| report.steps.iter().any(|step| step.kind == kind);
    if !did(Kind::Done) && !did(Kind::Left) && !did(Kind::Warning) {
        report.note(Kind::Already, "nothing of ours is on this host");
    }
    Ok(report)
}

pub(super) fn say_drained(drained: &Drained, report: &mut Report) {
    match drained {
        Drained::Yes => report.note(Kind::Done, "the agent is drained and ends"),
        Drained::NoAgent => {}
        Drained::Failed(why) => report.note(Kind::Warning, format!("the agent was not drained: {why}")),
    }
}

/// The records for ourselves, once the agent has ended.
pub(super) fn own(records: &Records, cni_dir: &Path) -> Result<Held, InstallError> {
    let until = Instant::now() + AGENTS_END;
    loop {
        if let Some(held) = records.own().map_err(|error| InstallError::of("lock the records in", cni_dir, error))? {
            return Ok(held);
        }
        if Instant::now() >= until {
            return Err(InstallError::Running(shown(cni_dir)));
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The records, if there are any; and also where there are none yet, but a DEL waits that may leave one.
pub(super) fn open(cni_dir: &Path, dry_run: bool) -> Result<Option<Records>, InstallError> {
    let failed = |error| InstallError::of("open", cni_dir, error);
    if put_off(cni_dir).map_err(failed)?.is_empty() {
        return Records::open_if_any(cni_dir).map_err(failed);
    }
    let records = if dry_run { Ok(Records::at(cni_dir)) } else { Records::open(cni_dir) };
    records.map(Some).map_err(failed)
}

/// Every record; what a DEL was answered for that is still to be done is marked for it, and so nobody will ask again.
pub(super) fn all(records: &Records, dry_run: bool) -> io::Result<Vec<Record>> {
    let mut all = if dry_run {
        match records.look() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            looked => looked?.0,
        }
    } else {
        records.sweep()?;
        records.all()?.0
    };
    for note in put_off(&records.cni_dir())? {
        match all.iter_mut().find(|record| record.container == note.container) {
            // A container that was added after that DEL is another one under the same name.
            Some(record) if record.since > note.when => {}
            Some(record) => record.state = State::Undo,
            None => {
                let told = takeover::told(&records.cni_dir(), &note.container, None);
                all.extend(told.map(|record| Record { state: State::Undo, ..record }));
            }
        }
    }
    Ok(all)
}

/// The DELs that the plugin left to an agent.
fn put_off(cni_dir: &Path) -> io::Result<Vec<Note>> {
    let (notes, _unreadable) = Spool::at(cni_dir).look()?;
    Ok(notes.into_iter().map(|(_, note)| note).filter(|note| note.pending).collect())
}

/// Will the runtime still call for this container? Its namespace is there, or nobody knows where that is.
fn needs_del(site: &Site, record: &Record) -> bool {
    let is_there = record.netns.as_ref().is_none_or(|netns| look::may_be(&site.root, netns, record.netns_id.as_ref()));
    record.state == State::Added && is_there && !record.due().is_empty()
}

/// Programs, filters, links, pins.
pub(super) fn kernel(site: &Site, all: &[Record], report: &mut Report) {
    let bpffs = match site.ours("find datapath.bpffs", &site.settings.datapath.bpffs) {
        Ok(bpffs) => bpffs,
        Err(error) => return report.note(Kind::Warning, error.to_string()),
    };
    let places: Vec<PodPlace> = all.iter().flat_map(pod_places).collect();
    let done = match datapath::dismantle(&bpffs, &places, site.dry_run) {
        Ok(done) => done,
        Err(error) => return report.note(Kind::Warning, error.to_string()),
    };
    if done.pods > 0 || done.parents > 0 {
        let (pods, parents) = (done.pods, done.parents);
        report.note(
            Kind::Done,
            format!("programs are off {} of pods and {}", many(pods, "interface"), many(parents, "parent")),
        );
    }
    for pins in done.pins {
        report.note(Kind::Done, format!("pins in {} are removed", shown(&pins)));
    }
    for (name, id) in done.programs {
        report.note(Kind::Warning, format!("program {name} (id {id}) is still loaded: see bpftool prog show id {id}"));
    }
    for sentence in done.failed {
        report.note(Kind::Warning, sentence);
    }
}

fn pod_places(record: &Record) -> Vec<PodPlace> {
    let Some(netns) = &record.netns else { return Vec::new() };
    let place = |attachment: &crate::records::Attachment| {
        let link = attachment.link.as_ref()?;
        let (netns, ifname) = (netns.as_path().to_owned(), attachment.ifname.to_string());
        let netns_id = record.netns_id.clone();
        Some(PodPlace { netns, netns_id, ifname, instance: link.instance })
    };
    record.attachments.iter().filter_map(place).collect()
}

/// Notes of DELs that the plugin did: all that is left of them for us are device-info files.
pub(super) fn notes(site: &Site, cni_dir: &Path, report: &mut Report) {
    let spool = Spool::at(cni_dir);
    if site.dry_run {
        return;
    }
    let notes = match spool.notes() {
        Ok(notes) => notes,
        Err(error) => return report.note(Kind::Warning, format!("read the spool: {error}")),
    };
    for (path, note) in notes {
        if let Some(record) = note.record.as_ref().filter(|_| note.clean) {
            device_info::forget_undone(record);
        }
        if let Err(error) = spool.replayed(&path) {
            report.note(Kind::Warning, format!("remove the note {}: {error}", shown(&path)));
        }
    }
}

/// Is nothing of ours below `cni_dir`?
pub(super) fn is_untouched(cni_dir: &Path) -> bool {
    !RevertLog::is_begun(cni_dir) && OWN.iter().all(|name| !cni_dir.join(name).exists())
}

/// The host's files as they were: the runtime's conf first, so that nobody is called who is not there; then the rest.
pub(super) fn revert(
    site: &Site,
    cni_dir: &Path,
    (everything, heir): (bool, Heir<'_>),
    report: &mut Report,
) -> Result<(), InstallError> {
    let failed = |error| InstallError::of("open the revert log in", cni_dir, error);
    let plugin = site.settings.generator.plugin.as_str();
    let is_plugin = |path: &Path| path.file_name().is_some_and(|name| name == plugin);
    let mut known: Vec<PathBuf> = Vec::new();
    let mut is_judged = true;
    if let Some(mut log) = RevertLog::if_any(site.host_root(), cni_dir).map_err(failed)? {
        let away = match heir {
            Heir::Cluster(drained) => orphaned::all_kept_away(site, drained, &log),
            Heir::Multus => BTreeMap::new(),
        };
        let paths: Vec<PathBuf> = log.entries().map(|(path, _)| path.to_owned()).collect();
        let (plugins, mut others): (Vec<_>, Vec<_>) = paths.into_iter().partition(|path| is_plugin(path));
        known.extend(plugins.iter().chain(&others).cloned());
        // What is in a folder before the folder.
        others.reverse();
        // Who takes everything off in two runs needs the configuration for the second.
        let is_configuration = |path: &PathBuf| site.is_configuration(path);
        let confs = others.iter().filter(|path| !path.is_dir() && (everything || !is_configuration(path))).cloned();
        let folders = others.iter().filter(|path| path.is_dir() && everything).cloned();
        let plugins = plugins.into_iter().filter(|_| everything);
        let due = confs.chain(plugins).chain(folders).filter(|path| !away.contains_key(path));
        let due: Vec<PathBuf> = due.collect();
        // Who has nothing else to do in this run has been told before.
        orphaned::say_kept_away(&away, if due.is_empty() { Kind::Left } else { Kind::Warning }, report);
        for path in due {
            is_judged &= revert_one(&mut log, &path, site.dry_run, report);
        }
    }
    // What an agent without a log left, or one whose log is lost. Where an entry could not be judged the plugin may be its.
    let standing = ours::standing(site)?;
    let plugin = standing.plugin.filter(|_| everything && is_judged);
    let unknown = standing.confs.into_iter().chain(plugin).filter(|path| !known.contains(path));
    let unknown: Vec<PathBuf> = unknown.collect();
    for path in &unknown {
        remove(path, site.dry_run, report);
    }
    known.extend(unknown);
    if let Heir::Cluster(drained) = heir {
        // In a dry run what would be gone still stands.
        let is_gone = |path: &Path| site.dry_run && known.iter().any(|known| known == path);
        orphaned::say_standing(site, drained, is_gone, report)?;
    }
    Ok(())
}

/// Puts one back. The answer: what is there could be judged.
fn revert_one(log: &mut RevertLog, path: &Path, dry_run: bool, report: &mut Report) -> bool {
    let shown = shown(path);
    if dry_run {
        report.note(Kind::Done, format!("{shown} is put back as it was"));
        return true;
    }
    match log.revert(path) {
        Ok(Reverted::AsBefore) => {}
        Ok(Reverted::Removed) => report.note(Kind::Done, format!("{shown} is removed; there was none before")),
        Ok(Reverted::Restored { owner: true }) => report.note(Kind::Done, format!("{shown} is as it was before")),
        Ok(Reverted::Restored { owner: false }) => {
            report.note(Kind::Warning, format!("{shown} is as it was before, but for its owner: that takes CAP_CHOWN"));
        }
        Ok(Reverted::Foreign(how)) => {
            report.note(Kind::Warning, format!("{shown} is left as it is: {how} by somebody else since"));
        }
        Err(error) => {
            let is_unseen = !path.parent().is_some_and(Path::is_dir);
            let why = if is_unseen { unseen(log, path) } else { String::new() };
            report.note(Kind::Warning, format!("put back {shown}: {error}{why}"));
            return false;
        }
    }
    true
}

/// What is to be done where the folder of a file is not to be seen.
fn unseen(log: &RevertLog, path: &Path) -> String {
    let kept = log.kept(path).map(|(kept, _)| format!("; what was there before stays in {}", shown(&kept)));
    format!(
        "{}: run this again with the --host-root that it was installed with, or make the folder",
        kept.unwrap_or_default()
    )
}

fn remove(path: &Path, dry_run: bool, report: &mut Report) {
    let shown = shown(path);
    match if dry_run { Ok(()) } else { files::remove(path) } {
        Ok(()) => report.note(Kind::Done, format!("{shown} is removed")),
        Err(error) => report.note(Kind::Warning, format!("remove {shown}: {error}")),
    }
}

/// Ends the revert log, if nothing is left in it.
pub(super) fn close(site: &Site, cni_dir: &Path) -> Result<(), InstallError> {
    if site.dry_run {
        return Ok(());
    }
    let log = RevertLog::if_any(site.host_root(), cni_dir).and_then(|log| log.map_or(Ok(()), RevertLog::close));
    log.map_err(|error| InstallError::of("end the revert log in", cni_dir, error))
}

/// The folders that Multus has as well as we: empty ones go, but those that were there before us.
pub(super) fn shared(site: &Site, cni_dir: &Path) -> Vec<PathBuf> {
    let results = cni_dir.join("results");
    site.socket_dir().into_iter().chain([results, cni_dir.to_owned()]).collect()
}

/// The socket that an agent left which was killed, and its folder unless it is one of `staying`. The answer: somebody serves
/// there. It is none of our agents, for these have ended when the records are ours; all that is theirs stays.
pub(super) fn socket(site: &Site, drained: &Drained, staying: &[PathBuf], report: &mut Report) -> bool {
    let Ok(folder) = site.socket_dir() else { return false };
    let begins = format!("{}.", wire::SOCKET);
    // In a dry run ours goes on.
    let is_ours = site.dry_run && *drained == Drained::Yes;
    let is_served = !is_ours && orphaned::is_answered(&folder.join(wire::SOCKET));
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        if name == wire::SOCKET && is_served {
            let text =
                format!("{} stays: it is served by another than our agent, such as Multus's daemon", shown(&path));
            report.note(Kind::Left, text);
        } else if name == wire::SOCKET || name.to_string_lossy().starts_with(&begins) {
            remove(&path, site.dry_run, report);
        }
    }
    if !site.dry_run && !staying.contains(&folder) {
        // Others' files keep it.
        let _ = fs::remove_dir(folder);
    }
    is_served
}

/// Our own folders, when nobody needs them any more; others' that are empty go as well, but for those `staying`.
pub(super) fn own_files(
    site: &Site,
    cni_dir: &Path,
    staying: &[PathBuf],
    report: &mut Report,
) -> Result<(), InstallError> {
    for folder in OWN.map(|name| cni_dir.join(name)) {
        if !folder.is_dir() {
            continue;
        }
        if !site.dry_run {
            fs::remove_dir_all(&folder).map_err(|error| InstallError::of("remove", &folder, error))?;
        }
        report.note(Kind::Done, format!("{} is removed", shown(&folder)));
    }
    // What was there before is noted in the log.
    close(site, cni_dir)?;
    for folder in [cni_dir.join("results"), cni_dir.to_owned()] {
        if !site.dry_run && !staying.contains(&folder) {
            let _ = fs::remove_dir(folder);
        }
    }
    Ok(())
}

pub(super) fn say_what_stays(left: &[Record], report: &mut Report) {
    report.waits_for = left.iter().map(name).collect();
    report.waits_for.sort();
    let (undone, waiting): (Vec<&Record>, Vec<&Record>) = left.iter().partition(|record| record.state == State::Undo);
    if !waiting.is_empty() {
        let text = format!(
            "the CNI plugin and the records stay for {}, whose DEL is still to come and needs no agent; when they are \
             gone, run this again to remove them",
            names(&waiting)
        );
        report.note(Kind::Left, text);
    }
    if !undone.is_empty() {
        let text = format!(
            "the CNI plugin and the records stay for {}, of which something is left that could not be deleted from here; \
             run this again where plugins can be run: on the host, or with the host-exec component",
            names(&undone)
        );
        report.note(Kind::Left, text);
    }
}

fn name(record: &Record) -> String {
    record.pod.as_ref().map_or_else(|| record.container.to_string(), ToString::to_string)
}

fn names(of: &[&Record]) -> String {
    let mut names: Vec<String> = of.iter().take(MOST_NAMED).map(|record| quote(&name(record))).collect();
    let more = of.len().saturating_sub(MOST_NAMED);
    names.extend((more > 0).then(|| format!("{more} more")));
    names.join(", ")
}
