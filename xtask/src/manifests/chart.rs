//! What the chart has copies of: Helm reads nothing outside a chart, and packs no links that lead out of it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// Where the copies are.
const FILES: &str = "deploy/helm/multus-ebpf/files";
/// Single files, and what their copies are called.
const SINGLE: [(&str, &str); 5] = [
    ("deploy/kustomize/base/crd.yaml", "crd.yaml"),
    ("deploy/kustomize/base/daemon-config.json", "daemon-config.json"),
    ("deploy/kustomize/components/uninstall/patch.yaml", "uninstall-patch.yaml"),
    ("deploy/kustomize/components/admission-policies/own-node-status.yaml", "own-node-status.yaml"),
    ("deploy/kustomize/components/admission-policies/plugin-types.yaml", "plugin-types.yaml"),
];
/// Folders of which every file with an ending is copied.
const WHOLE: [(&str, &str, &str); 2] =
    [("deploy/dashboards", "json", "dashboards"), ("deploy/alerts", "yaml", "alerts")];

/// Makes the copies anew.
pub(super) fn copy(root: &Path) -> Outcome {
    let files = root.join(FILES);
    for (from, name) in SINGLE {
        put(&root.join(from), &files.join(name))?;
    }
    for (from, ending, name) in WHOLE {
        let folder = files.join(name);
        // A file that is no longer there must not stay in the chart.
        let _ = fs::remove_dir_all(&folder);
        for file in with_ending(&root.join(from), ending) {
            put(&file, &folder.join(file.file_name().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn with_ending(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|file| file.extension().is_some_and(|found| found == ending)).collect()
}

fn put(from: &Path, to: &Path) -> Outcome {
    let made = to.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::copy(from, to));
    made.map(|_bytes| ()).map_err(|error| format!("copy {} to {}: {error}", from.display(), to.display()))
}
