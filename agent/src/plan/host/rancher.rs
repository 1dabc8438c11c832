//! Where do K3s and RKE2 keep their data, if their own configuration names another folder than the usual one?
//!
//! Reads as much of YAML as `data-dir` takes. What their command line says is not to be seen.

use super::{Facts, Preset};

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    K3s,
    Rke2,
}

impl Of {
    /// Both.
    pub(super) const ALL: [Self; 2] = [Self::K3s, Self::Rke2];

    fn name(self) -> &'static str {
        match self {
            Self::K3s => "k3s",
            Self::Rke2 => "rke2",
        }
    }

    /// Where it keeps its data unless it is told otherwise.
    pub(super) fn usual(self) -> &'static str {
        match self {
            Self::K3s => "/var/lib/rancher/k3s",
            Self::Rke2 => "/var/lib/rancher/rke2",
        }
    }
}

/// The folder that its configuration names, the last one that is named; `None`: none.
pub(super) fn data_dir(facts: &Facts, of: Of) -> Option<&str> {
    let (_, folder) = said(facts, of)?;
    let folder = if folder.len() > 1 { folder.trim_end_matches('/') } else { folder };
    (folder.starts_with('/') && !folder.contains(['$', '{', '}'])).then_some(folder)
}

/// What cannot be followed, as sentences.
pub(super) fn doubts(facts: &Facts) -> Vec<String> {
    let doubt = |of: Of| {
        let (path, folder) = said(facts, of)?;
        let folder = super::shown(folder);
        match data_dir(facts, of) {
            None => Some(format!("{path} names a data-dir that is not understood here, {folder}")),
            Some(known) if !facts.has(known) => Some(format!("{path} names the data-dir {folder}, which is not there")),
            Some(_) => None,
        }
    };
    Of::ALL.into_iter().filter_map(doubt).collect()
}

/// A folder of this distribution, with its data where they are.
pub(super) fn moved(facts: &Facts, distribution: Preset, folder: &str) -> String {
    let of = match distribution {
        Preset::K3s | Preset::K3sOld => Of::K3s,
        _ => return folder.to_owned(),
    };
    let below = data_dir(facts, of).and_then(|data| Some(format!("{data}{}", folder.strip_prefix(of.usual())?)));
    below.unwrap_or_else(|| folder.to_owned())
}

/// Files that are of interest where data are elsewhere.
pub(super) fn files(facts: &Facts) -> Vec<String> {
    let moved = Of::ALL.into_iter().filter_map(|of| data_dir(facts, of));
    moved.map(|data| format!("{data}/agent/etc/containerd/config.toml")).collect()
}

/// Folders whose existence is of interest where data are elsewhere.
pub(super) fn marks(facts: &Facts) -> Vec<String> {
    let moved = Of::ALL.into_iter().filter_map(|of| data_dir(facts, of));
    moved.flat_map(|data| [data.to_owned(), format!("{data}/data/cni")]).collect()
}

/// The file that has the last word, and the value as it is written there.
fn said(facts: &Facts, of: Of) -> Option<(&str, &str)> {
    let folder = format!("/etc/rancher/{}/config.yaml", of.name());
    let is_of = |path: &str| path.strip_prefix(&folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(".d/"));
    let files = facts.files.iter().filter(|(path, _)| is_of(path));
    files.rev().find_map(|(path, text)| Some((path.as_str(), text.lines().rev().find_map(value)?)))
}

/// The value of a line that says `data-dir`.
fn value(line: &str) -> Option<&str> {
    let rest = ["data-dir", "\"data-dir\"", "'data-dir'"].into_iter().find_map(|key| line.strip_prefix(key))?;
    let value = rest.trim_start().strip_prefix(':')?.trim();
    let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
    match quote {
        Some(quote) => value.get(1..)?.split(quote).next(),
        None => value.split(" #").next().map(str::trim_end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_data_dir_counts_and_what_cannot_be_followed_is_told() {
        let main = "/etc/rancher/k3s/config.yaml";
        let facts = |files: &[(&str, &str)], folders: &[&str]| Facts {
            files: files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect(),
            folders: folders.iter().map(|folder| (*folder).to_owned()).collect(),
            ..Facts::default()
        };
        for (files, folder, doubt) in [
            (vec![(main, "token: x\ndata-dir: /mnt/k3s # big disk\n")], Some("/mnt/k3s"), None),
            (vec![(main, "\"data-dir\": '/mnt/k3s/'\n")], Some("/mnt/k3s"), None),
            (
                vec![(main, "data-dir: /a\n"), ("/etc/rancher/k3s/config.yaml.d/1.yaml", "data-dir: /mnt/k3s")],
                Some("/mnt/k3s"),
                None,
            ),
            (vec![(main, "# data-dir: /a\nother:\n  data-dir: /b\ndata-dirs: /c\n")], None, None),
            (vec![(main, "data-dir: ${HOME}/x\n")], None, Some("not understood")),
            (vec![(main, "data-dir: rel\n")], None, Some("not understood")),
            (vec![(main, "data-dir: /gone\n")], Some("/gone"), Some("not there")),
            (vec![("/etc/rancher/rke2/config.yaml", "data-dir: /mnt/k3s")], None, None),
        ] {
            let facts = facts(&files, &["/mnt/k3s"]);
            assert_eq!(data_dir(&facts, Of::K3s), folder, "{files:?}");
            let doubts = doubts(&facts).join("\n");
            assert!(doubt.map_or(doubts.is_empty(), |doubt| doubts.contains(doubt)), "{files:?}: {doubts}");
        }
    }
}
