//! Which confs of Multus must not come back? Those that we took away, and whose daemon has gone since: the runtime would take
//! them, and every new pod would wait for a daemon that is not there. And which of others' stand, and lead there?
//!
//! Changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Drained, InstallError, Kind, Report, Site, look, shown};
use crate::ops::cluster_network;
use crate::plan::master;
use crate::sys::revert::{Left, RevertLog};
use crate::sys::unix_socket;
use crate::wire;

/// How long somebody who listens at a socket may take to show it.
const ANSWER: Duration = Duration::from_secs(1);

/// All that stay away, each with its copy.
pub(super) fn all_kept_away(site: &Site, drained: &Drained, log: &RevertLog) -> BTreeMap<PathBuf, PathBuf> {
    let paths = log.entries().map(|(path, _)| path);
    paths.filter_map(|path| Some((path.to_owned(), kept_away(site, drained, log, path)?))).collect()
}

/// Says which stay away, and where they are kept.
pub(super) fn say_kept_away(away: &BTreeMap<PathBuf, PathBuf>, kind: Kind, report: &mut Report) {
    for (path, kept) in away {
        let text = format!(
            "{} stays away: it leads to a Multus whose daemon does not answer, and every new pod would wait for it; it is \
             kept as {}, and multus-agent migrate --back gives the node back to Multus",
            shown(path),
            shown(kept)
        );
        report.note(kind, text);
    }
}

/// Says which confs that stand lead to a Multus whose daemon is not there; but those that are gone in the end. They are
/// not ours to take: a warning where something was done here, and else, told before, what is left.
pub(super) fn say_standing(
    site: &Site,
    drained: &Drained,
    is_gone: impl Fn(&Path) -> bool,
    report: &mut Report,
) -> Result<(), InstallError> {
    let places = look::found(&site.root, &site.wishes);
    let folder = site.ours("find the conf's folder", &places.conf_dir.path)?;
    let has_done = report.steps.iter().any(|step| step.kind == Kind::Done);
    for candidate in cluster_network::candidates(&folder).unwrap_or_default() {
        let (path, own) = (folder.join(candidate.file), site.settings.generator.plugin.as_str());
        let socket = candidate.content.ok().and_then(|bytes| master::daemon_socket(&bytes, own));
        if is_gone(&path) || socket.is_none_or(|socket| is_served(site, drained, &socket)) {
            continue;
        }
        let text = format!(
            "{} leads to a Multus whose daemon does not answer: where the runtime takes it, new pods wait for it until \
             you remove the file or start Multus",
            shown(&path)
        );
        report.note(if has_done { Kind::Warning } else { Kind::Left }, text);
    }
    Ok(())
}

/// The copy of what was at `path`, if that is to stay away. What stands there is nobody's to judge.
fn kept_away(site: &Site, drained: &Drained, log: &RevertLog, path: &Path) -> Option<PathBuf> {
    let is_path = |(known, _): &(&Path, _)| *known == path;
    let (_, entry) = log.entries().find(is_path)?;
    if entry.left != [Left::Nothing] || fs::symlink_metadata(path).is_ok() {
        return None;
    }
    let (kept, bytes) = log.kept(path)?;
    let folder = master::daemon_socket(&bytes, site.settings.generator.plugin.as_str())?;
    (!is_served(site, drained, &folder)).then_some(kept)
}

/// Does a daemon that is not our agent listen in this folder of the host?
fn is_served(site: &Site, drained: &Drained, folder: &str) -> bool {
    let Ok(folder) = site.ours("find Multus's socket", folder) else { return false };
    // In a dry run ours goes on.
    let has_agent = site.dry_run && *drained == Drained::Yes;
    let is_ours = has_agent && site.socket_dir().is_ok_and(|ours| ours == folder);
    !is_ours && is_answered(&folder.join(wire::SOCKET))
}

/// Does anybody listen there? Also somebody who accepts nobody just now.
pub(super) fn is_answered(socket: &Path) -> bool {
    use io::ErrorKind::{ConnectionRefused, InvalidInput, NotADirectory, NotFound};
    match unix_socket::connect(socket, Instant::now() + ANSWER) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ConnectionRefused | InvalidInput | NotADirectory | NotFound),
    }
}
