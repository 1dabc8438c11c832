//! Is what must outlive the agent still pinned? A bpffs can be unmounted, or another one mounted over it, and anybody who
//! may can remove a pin. What runs goes on: its maps and links have their descriptors here.
//!
//! Maps that lost their pins must get them back before anything is loaded: the loader would make new ones under their
//! names, where nothing that runs counts.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::PoisonError;

use aya::maps::{MapData, MapInfo};
use multus_ebpf_common::LAYOUT;

use super::error::{DatapathError, chain};
use super::maps::{NAMES, failed, on};
use super::{Datapath, make_private, numbers};
use crate::sys::mounts;

/// The folders below that of the layout.
const FOLDERS: [&str; 4] = ["maps", "progs", "links", "protocols"];

/// Makes the folder of the layout and those below it.
pub(super) fn make_folders(root: &Path) -> Result<(), DatapathError> {
    make_private(root)?;
    FOLDERS.into_iter().try_for_each(|folder| make_private(&root.join(folder)))
}

/// The kernel's numbers of the maps that are pinned in `folder`.
pub(super) fn pinned_maps(folder: &Path) -> Result<Vec<(&'static str, u32)>, DatapathError> {
    let number = |name: &'static str| MapInfo::from_pin(folder.join(name)).map(|info| (name, info.id()));
    NAMES.into_iter().map(|name| number(name).map_err(on("open", name))).collect()
}

impl Datapath {
    /// What is not pinned that should be, in words; `None`: everything is.
    pub fn look_at_pins(&self) -> Option<String> {
        let lost: Vec<String> = self.lost_maps().into_iter().map(str::to_owned).chain(self.links.unpinned()).collect();
        let Some(first) = lost.first() else {
            self.links.remember_marks();
            return None;
        };
        if !self.has_bpffs() {
            let gone = DatapathError::NoBpffs(self.settings.bpffs.clone());
            return Some(format!("{gone}; what runs goes on and would end with the agent, nothing can be added"));
        }
        let more = if lost.len() > 1 { format!(" and {} more", lost.len() - 1) } else { String::new() };
        Some(format!("pin {first}{more} is gone from {}", self.root().display()))
    }

    /// Pins everything again that is not pinned: the maps and links that are in use.
    ///
    /// # Errors
    /// There is no bpffs, or it takes them not.
    pub fn restore_pins(&self) -> Result<(), DatapathError> {
        // Another one would take a pin that was just written for a stale one.
        let _alone = self.pinning.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_bpffs() {
            return Err(DatapathError::NoBpffs(self.settings.bpffs.clone()));
        }
        let root = self.root();
        make_folders(&root)?;
        let lost = self.lost_maps();
        for (name, number) in self.maps.iter().filter(|(name, _)| lost.contains(name)) {
            let path = root.join("maps").join(name);
            match fs::remove_file(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(DatapathError::Pins { action: "remove stale pin", path, source });
                }
                _ => {}
            }
            let map = MapData::from_id(*number).map_err(on("open", name))?;
            map.pin(&path).map_err(|error| failed("pin", name)(chain(&error)))?;
        }
        self.links.pin_all()?;
        numbers::remember(&root.join("protocols"), &self.numbers, &[])?;
        self.links.restore_marks();
        Ok(())
    }

    /// Before anything is loaded: the maps it is to use are where the loader looks for them.
    pub(super) fn need_pins(&self) -> Result<(), DatapathError> {
        if self.lost_maps().is_empty() { Ok(()) } else { self.restore_pins() }
    }

    fn lost_maps(&self) -> Vec<&'static str> {
        let folder = self.root().join("maps");
        let is_pinned = |(name, number): &&(&'static str, u32)| {
            MapInfo::from_pin(folder.join(name)).is_ok_and(|info| info.id() == *number)
        };
        self.maps.iter().filter(|map| !is_pinned(map)).map(|(name, _)| *name).collect()
    }

    fn has_bpffs(&self) -> bool {
        mounts::is_on_bpffs(&self.settings.bpffs).unwrap_or(false)
    }

    fn root(&self) -> std::path::PathBuf {
        self.settings.bpffs.join(format!("v{LAYOUT}"))
    }
}
