//! The records, in memory and on disk, kept equal: what is attached right now.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::cni::{Command, Request};
use crate::names::ContainerId;
use crate::records::results::Results;
use crate::records::{Attachment, Record, Records, State};
use crate::sys::files::Held;

/// All records of this node.
#[derive(Debug)]
pub struct Ledger {
    records: Records,
    _own: Held,
    /// Others work with the same records beside us.
    is_visit: bool,
    index: Mutex<BTreeMap<ContainerId, Arc<Record>>>,
    changed: watch::Sender<()>,
}

impl Ledger {
    /// Becomes the owner of the records and reads every one; the second value names the torn ones, which were set
    /// aside. Another agent that is on its way out is waited for, at most `patience`; blocks meanwhile.
    pub fn open(records: Records, patience: Duration) -> io::Result<(Self, Vec<String>)> {
        let until = Instant::now() + patience;
        let own = loop {
            if let Some(own) = records.own()? {
                break own;
            }
            if Instant::now() >= until {
                return Err(io::Error::other(
                    "another agent works with the same cniDir; stop it, or give this one its own",
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        records.sweep()?;
        let (all, torn) = records.all()?;
        let index = all.into_iter().map(|record| (record.container.clone(), Arc::new(record))).collect();
        Ok((
            Self { records, _own: own, is_visit: false, index: Mutex::new(index), changed: watch::Sender::default() },
            torn,
        ))
    }

    /// For one request beside others that work with the same records: what it is about is read, and for a DEL what is
    /// left over. Its own container must be held by then.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn visit(records: Records, visit: Held, request: &Request) -> io::Result<Self> {
        let mut found = Vec::new();
        if let Some(container) = &request.container_id {
            match records.load(container) {
                Ok(record) => found.extend(record),
                // Setting aside what is torn belongs to reading all.
                Err(_torn) => drop(records.all()?),
            }
        }
        if matches!(request.command, Command::Del | Command::Gc) {
            let all = records.all()?.0.into_iter();
            let others = all.filter(|record| Some(&record.container) != request.container_id.as_ref());
            found.extend(others.filter(|record| request.command == Command::Gc || record.state == State::Undo));
        }
        let index = found.into_iter().map(|record| (record.container.clone(), Arc::new(record))).collect();
        Ok(Self { records, _own: visit, is_visit: true, index: Mutex::new(index), changed: watch::Sender::default() })
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

    /// Tells that some record changed, came or went.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Replaces a record, on disk first.
    pub fn save(&self, record: &Record) -> io::Result<()> {
        self.records.save(record)?;
        self.know(record);
        Ok(())
    }

    /// The same for a step of an ADD, at whose end it is made to survive power loss ([`Self::persist`]).
    pub fn advance(&self, record: &Record) -> io::Result<()> {
        self.records.advance(record)?;
        self.know(record);
        Ok(())
    }

    fn know(&self, record: &Record) {
        self.index().insert(record.container.clone(), Arc::new(record.clone()));
        self.changed.send_replace(());
    }

    /// Replaces a record that nobody asked us to touch. False, and nothing is written: a plugin is at work for its
    /// container, or was, without us: what it deleted must not come back.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn amend(&self, record: &Record) -> io::Result<bool> {
        // Held until it is written, so that no DEL ends in between.
        let Some(_held) = self.records.hold(&record.container)? else { return Ok(false) };
        let on_disk = self.records.load(&record.container).ok().flatten();
        if on_disk.as_ref() != self.get(&record.container).as_deref() {
            self.reread(&record.container);
            return Ok(false);
        }
        self.save(record).map(|()| true)
    }

    /// Removes a record and all else that is kept about its container, on disk first.
    pub fn remove(&self, record: &Record) -> io::Result<()> {
        self.records.forget(record)?;
        self.index().remove(&record.container);
        self.changed.send_replace(());
        Ok(())
    }

    /// Removes libcni's result of one attachment of a container that goes on living.
    pub fn forget_result(&self, container: &ContainerId, attachment: &Attachment) -> io::Result<()> {
        Results::at(&self.cni_dir()).remove(&attachment.conf_name, container, &attachment.ifname)
    }

    /// What others keep about containers is in this folder.
    pub fn cni_dir(&self) -> PathBuf {
        self.records.cni_dir()
    }

    /// Was the record of `container` set aside, because it was torn?
    pub fn is_torn(&self, container: &ContainerId) -> bool {
        self.records.is_torn(container)
    }

    /// Forgets a record that somebody else (the shim) removed from disk; reads it again if it is still there.
    pub fn reread(&self, container: &ContainerId) {
        match self.records.load(container) {
            Ok(Some(record)) => self.index().insert(container.clone(), Arc::new(record)),
            _ => self.index().remove(container),
        };
    }

    /// Keeps uninvited clean-up away from `container`; `None` while a shim is at work for it.
    pub fn hold(&self, container: &ContainerId) -> Option<Held> {
        let held = self.records.hold(container).ok().flatten();
        if self.is_visit && held.is_some() {
            self.reread(container);
        }
        held
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_deleted_without_us_does_not_come_back() {
        let cni_dir = std::env::temp_dir().join(format!("multus-ledger-{}", std::process::id()));
        let (plugin, container) = (Records::at(&cni_dir), ContainerId::new("a").unwrap());
        let text = r#"{"container":"a","ifname":"eth0","state":"added","attachments":[]}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        Records::open(&cni_dir).unwrap().save(&record).unwrap();
        let (ledger, _torn) = Ledger::open(Records::open(&cni_dir).unwrap(), Duration::ZERO).unwrap();
        let changed = |since| Record { since, ..record.clone() };
        assert!(ledger.amend(&changed(1)).unwrap());
        assert_eq!(plugin.load(&container).unwrap(), Some(changed(1)));
        // A DEL is under way.
        let held = plugin.hold(&container).unwrap().unwrap();
        assert!(!ledger.amend(&changed(2)).unwrap());
        assert_eq!(plugin.load(&container).unwrap(), Some(changed(1)));
        // It could not undo everything, and says so.
        plugin.save(&Record { state: State::Undo, ..changed(1) }).unwrap();
        drop(held);
        assert!(!ledger.amend(&changed(2)).unwrap());
        assert_eq!(ledger.get(&container).map(|record| record.state), Some(State::Undo));
        // Another one has.
        plugin.forget(&changed(1)).unwrap();
        assert!(!ledger.amend(&changed(2)).unwrap());
        assert_eq!((plugin.load(&container).unwrap(), ledger.get(&container)), (None, None));
        std::fs::remove_dir_all(cni_dir).unwrap();
    }
}
