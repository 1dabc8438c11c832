//! What became of maps and links of another layout? An agent with maps of another shape pinned them; their programs must
//! not relay beside ours.
//!
//! Touches nothing but the folders `v<number>` beside our own. What interfaces have counted is taken along where it has
//! the same form; relays' counts are lost with their layout, whose protocols may have had other numbers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use multus_ebpf_common::LAYOUT;

use super::counters::Counters;
use super::guard;

/// Moves another layout's links to a parent among ours, where there are none yet: a link is then given our program in
/// place of the other one, from one frame to the next.
pub(super) fn take_over_parent(bpffs: &Path, links: &Path, ifindex: u32) {
    for folder in others(bpffs) {
        for name in [
            format!("parent-{ifindex}-ingress"),
            format!("parent-{ifindex}-egress"),
            format!("clsact-parent-{ifindex}"),
        ]
        .into_iter()
        .chain(guard::link_names(ifindex))
        {
            if !links.join(&name).exists() {
                moved(fs::rename(folder.join("links").join(&name), links.join(&name)), &folder);
            }
        }
    }
}

/// The interfaces' counters of other layouts, those that are like `ours`.
pub(super) fn counters(bpffs: &Path, ours: &Counters) -> Vec<Counters> {
    others(bpffs).iter().filter_map(|folder| ours.alike(&folder.join("maps/if_counters"))).collect()
}

/// Removes every other layout's pins: whatever is attached has our programs by now.
pub(super) fn remove_others(bpffs: &Path) {
    for folder in others(bpffs) {
        tracing::info!(?folder, "pins of another layout are removed");
        moved(fs::remove_dir_all(&folder), &folder);
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

fn moved(result: io::Result<()>, folder: &Path) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(?folder, %error, "a pin of another layout could not be taken over or removed");
        }
        _ => {}
    }
}
