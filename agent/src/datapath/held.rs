//! Which links of ours are there, pinned under which names? The pins hold them when the agent is gone; the agent holds
//! them itself besides, so that they stay where they are when the bpffs goes.
//!
//! Beside the pins lie marks, as empty folders: they say which qdiscs we added.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::DatapathError;
use crate::sys::bpf_links;

/// How the marks' names begin.
pub(super) const MARK: &str = "clsact-";

/// The folder of pinned links, and what the agent holds of it.
#[derive(Debug)]
pub(super) struct Links {
    folder: PathBuf,
    held: Mutex<BTreeMap<String, OwnedFd>>,
    /// The marks that were there when all was well.
    marks: Mutex<Vec<String>>,
}

impl Links {
    /// The links pinned in `folder`; none of them is held yet.
    pub(super) fn at(folder: PathBuf) -> Self {
        Self { folder, held: Mutex::default(), marks: Mutex::default() }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a link of this name is pinned.
    pub(super) fn pin(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Holds the link that is pinned under `name`.
    pub(super) fn hold(&self, name: &str) {
        match bpf_links::open_pin(&self.pin(name)) {
            Ok(link) => drop(self.held().insert(name.to_owned(), link)),
            Err(error) => tracing::debug!(name, %error, "a pinned link is not held"),
        }
    }

    /// Pins the link of this name again where it is held and its pin is gone; says nothing where that cannot be.
    pub(super) fn pin_again(&self, name: &str) {
        let held = self.held();
        if let Some(link) = held.get(name).filter(|_| !self.pin(name).exists())
            && let Err(error) = bpf_links::pin(link.as_fd(), &self.pin(name))
        {
            tracing::debug!(name, %error, "a link is not pinned again");
        }
    }

    /// Takes the link of this name off its interface, whoever else holds it, and removes its pin.
    pub(super) fn take_off(&self, name: &str) {
        let held = self.held().remove(name).or_else(|| bpf_links::open_pin(&self.pin(name)).ok());
        // One that is off already, or of a kernel without this, goes with its last descriptor and pin.
        let _gone = held.map(|link| bpf_links::detach(link.as_fd()));
        match fs::remove_file(self.pin(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound && self.folder.exists() => {
                tracing::warn!(name, %error, "a pinned link could not be removed");
            }
            _ => {}
        }
    }

    /// The links that are held and not pinned, or another one is in their place.
    pub(super) fn unpinned(&self) -> Vec<String> {
        let id = |link: &OwnedFd| bpf_links::link_id(link.as_fd()).ok();
        let is_lost = |(name, link): &(&String, &OwnedFd)| {
            bpf_links::open_pin(&self.pin(name)).ok().and_then(|pinned| id(&pinned)) != id(link)
        };
        self.held().iter().filter(is_lost).map(|(name, _)| name.clone()).collect()
    }

    /// Pins everything that is held where it is not.
    pub(super) fn pin_all(&self) -> Result<(), DatapathError> {
        for name in self.unpinned() {
            let path = self.pin(&name);
            // Another one's, under a name of ours.
            let _absent = fs::remove_file(&path);
            if let Some(link) = self.held().get(&name) {
                let failed = |source| DatapathError::Pins { action: "pin a link at", path: path.clone(), source };
                bpf_links::pin(link.as_fd(), &path).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Remembers the marks that are there.
    pub(super) fn remember_marks(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        *self.marks.lock().unwrap_or_else(PoisonError::into_inner) =
            names.filter(|name| name.starts_with(MARK)).collect();
    }

    /// Makes the marks again that were there.
    pub(super) fn restore_marks(&self) {
        for name in self.marks.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            // One that cannot be made costs no more than a qdisc that stays.
            let _there = fs::create_dir(self.folder.join(name));
        }
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
