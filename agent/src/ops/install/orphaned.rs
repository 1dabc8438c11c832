//! Which confs of Multus must not come back? Those that we took away, and whose daemon has gone since: the runtime would take
//! them, and every new pod would wait for a daemon that is not there.
//!
//! Changes nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Drained, Kind, Report, Site, shown};
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
