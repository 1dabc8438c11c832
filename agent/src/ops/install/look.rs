//! What is there to see of a host? Texts and folders for `plan::host`, which decides.

use std::path::Path;

use crate::names::{NetnsId, NetnsPath};
use crate::plan::host::{self, Facts, Places, Wishes};
use crate::plan::master;
use crate::plan::runtime_conf::ENDINGS;
use crate::sys::netns;
use crate::sys::rooted::Root;

/// Most files of all patterns together.
const MOST_FILES: usize = 200;

/// Where the host below `root` has its CNI folders, with what is doubtful about it.
pub fn found(root: &Path, wishes: &Wishes) -> Places {
    host::places(&facts(&Root::at(root), wishes), wishes)
}

fn facts(root: &Root, wishes: &Wishes) -> Facts {
    let mut facts = Facts::default();
    for pattern in host::FILES {
        read(root, pattern, &mut facts.files);
    }
    for file in host::more_files(&facts) {
        read(root, &file, &mut facts.files);
    }
    let mut at = 0;
    while let Some((path, text)) = facts.files.get(at) {
        let imported = host::imports(path, text);
        for pattern in imported {
            read(root, &pattern, &mut facts.files);
        }
        at += 1;
    }
    facts.folders = host::marks(&facts).into_iter().filter(|folder| root.has_folder(folder)).collect();
    let has_plugins = |folder: &String| !root.names(folder).is_empty();
    facts.equipped = host::plugin_dirs(&facts, wishes).into_iter().filter(has_plugins).collect();
    let is_configured = |folder: &&str| has_networks(root, folder);
    let mut folders = host::conf_dirs();
    let likely = host::places(&facts, wishes).conf_dir.path;
    folders.extend(wishes.conf_dir.as_deref().filter(|wished| !folders.contains(wished)));
    folders.extend(Some(likely.as_str()).filter(|likely| !folders.contains(likely)));
    facts.configured = folders.into_iter().filter(is_configured).map(str::to_owned).collect();
    facts
}

/// Is the namespace that is called `id`, where that is known, there, as far as can be seen below `root` or here? One that a
/// process stands for counts as there: the processes that we see need not be the host's.
pub(super) fn may_be(root: &Path, netns: &NetnsPath, id: Option<&NetnsId>) -> bool {
    let path = netns.as_path();
    let is_it = |path: &Path| path.exists() && !is_another(path, id);
    path.starts_with("/proc") || is_it(path) || Root::at(root).resolve(path).is_ok_and(|path| is_it(&path))
}

/// Is this surely a namespace, and not that one?
fn is_another(path: &Path, id: Option<&NetnsId>) -> bool {
    let here = netns::identity(path).map(|(device, inode)| NetnsId::of(device, inode));
    id.zip(here).is_some_and(|(id, here)| *id != here)
}

/// Is a plugin of Multus, or ours in its place, in this folder of the host?
pub(super) fn has_multus(root: &Path, folder: &str) -> bool {
    let (root, folder) = (Root::at(root), Path::new(folder));
    let has = |name: &str| root.resolve(&folder.join(name)).is_ok_and(|path| path.is_file());
    has("multus-shim") || has("multus")
}

/// Reads a file, or every file that a `*` stands for; what was read already is not read again.
fn read(root: &Root, pattern: &str, files: &mut Vec<(String, String)>) {
    let paths = match pattern.rsplit_once('/') {
        Some((folder, name)) if name.contains('*') => {
            let (begins, ends) = name.split_once('*').unwrap_or((name, ""));
            let fits = |found: &String| found.starts_with(begins) && found.ends_with(ends);
            root.names(folder).into_iter().filter(fits).map(|found| format!("{folder}/{found}")).collect()
        }
        _ => vec![pattern.to_owned()],
    };
    for path in paths {
        let is_known = files.iter().any(|(known, _)| *known == path);
        if is_known || files.len() >= MOST_FILES || !path.starts_with('/') {
            continue;
        }
        files.extend(root.text(&path).map(|text| (path, text)));
    }
}

/// Does the folder hold a CNI configuration of somebody else?
fn has_networks(root: &Root, folder: &str) -> bool {
    let is_conf = |name: &String| Path::new(name).extension().is_some_and(|is| ENDINGS.iter().any(|e| is == *e));
    let is_others = |name: String| {
        root.text(&format!("{folder}/{name}")).is_some_and(|text| {
            let bytes = text.as_bytes();
            !master::leads_to_multus(bytes, "multus-shim") && master::network(bytes, None).is_ok()
        })
    };
    root.names(folder).into_iter().filter(is_conf).any(is_others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_gone_only_where_that_can_be_seen() {
        let root = std::env::temp_dir().join(format!("multus-look-{}", std::process::id()));
        std::fs::create_dir_all(root.join("run/netns")).unwrap();
        std::fs::write(root.join("run/netns/of-the-host"), "").unwrap();
        let table = [
            ("/run/netns/of-the-host", true),
            ("/run/netns/gone", false),
            ("/nowhere/gone", false),
            ("/proc/self/ns/net", true),
            // No process has this number, here.
            ("/proc/4194999/ns/net", true),
        ];
        for (path, wanted) in table {
            assert_eq!(may_be(&root, &NetnsPath::new(path).unwrap(), None), wanted, "{path}");
        }
        // A name that leads to ours.
        let (link, own) = (root.join("own"), Path::new("/proc/self/ns/net"));
        std::os::unix::fs::symlink(own, &link).unwrap();
        let named = NetnsPath::new(link.to_string_lossy()).unwrap();
        for (id, wanted) in [(None, true), (crate::sys::files::netns_id(own), true), (Some(NetnsId::of(0, 0)), false)] {
            assert_eq!(may_be(&root, &named, id.as_ref()), wanted, "{id:?}");
        }
        std::fs::remove_dir_all(root).unwrap();
    }
}
