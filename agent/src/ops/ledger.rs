//! The records, in memory and on disk, kept equal: what is attached right now.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::names::ContainerId;
use crate::records::{Record, Records};

/// All records of this node.
#[derive(Debug)]
pub struct Ledger {
    records: Records,
    index: Mutex<BTreeMap<ContainerId, Arc<Record>>>,
}

impl Ledger {
    /// Reads every record; the second value names the torn ones, which were set aside.
    pub fn open(records: Records) -> io::Result<(Self, Vec<String>)> {
        let (all, torn) = records.all()?;
        let index = all.into_iter().map(|record| (record.container.clone(), Arc::new(record))).collect();
        Ok((Self { records, index: Mutex::new(index) }, torn))
    }

    fn index(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Record>>> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record of one container.
    pub fn get(&self, container: &ContainerId) -> Option<Arc<Record>> {
        self.index().get(container).cloned()
    }

    /// Every record, by container id.
    pub fn all(&self) -> Vec<Arc<Record>> {
        self.index().values().cloned().collect()
    }

    /// Replaces a record, on disk first.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        self.records.save(record)?;
        self.index().insert(record.container.clone(), Arc::new(record.clone()));
        Ok(())
    }

    /// Removes a record, on disk first.
    pub fn remove(&self, container: &ContainerId) -> io::Result<()> {
        self.records.remove(container)?;
        self.index().remove(container);
        Ok(())
    }

    /// Forgets a record that somebody else (the shim) removed from disk; reads it again if it is still there.
    pub fn reread(&self, container: &ContainerId) {
        match self.records.load(container) {
            Ok(Some(record)) => self.index().insert(container.clone(), Arc::new(record)),
            _ => self.index().remove(container),
        };
    }

    /// Makes a record survive power loss. Slow; for after the reply.
    pub fn persist(&self, container: &ContainerId) -> io::Result<()> {
        self.records.persist(container)
    }

    /// Can a record be written?
    pub fn writable(&self) -> io::Result<()> {
        self.records.writable()
    }
}
