//! What became of maps and links of another layout? An agent with maps of another shape pinned them; their programs must
//! not relay beside ours.
//!
//! Touches nothing but the folders `v<number>` beside our own. Counts of another layout are lost with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use multus_ebpf_common::LAYOUT;

/// Takes another layout's programs off a parent that has ours now.
pub(super) fn detach_parent(bpffs: &Path, ifindex: u32) {
    for folder in others(bpffs) {
        for direction in ["ingress", "egress"] {
            removed(fs::remove_file(folder.join("links").join(format!("parent-{ifindex}-{direction}"))), &folder);
        }
    }
}

/// Removes every other layout's pins: whatever is attached has our programs by now.
pub(super) fn remove_others(bpffs: &Path) {
    for folder in others(bpffs) {
        tracing::info!(?folder, "pins of another layout are removed");
        removed(fs::remove_dir_all(&folder), &folder);
    }
}

fn others(bpffs: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(bpffs) else { return Vec::new() };
    let number = |name: &str| name.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
    let is_other = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(number).is_some_and(|number| number != LAYOUT)
    };
    entries.filter_map(Result::ok).map(|entry| entry.path()).filter(is_other).collect()
}

fn removed(result: io::Result<()>, folder: &Path) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(?folder, %error, "a pin of another layout could not be removed");
        }
        _ => {}
    }
}
