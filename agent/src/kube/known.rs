//! What is known of one kind of object right now: the map every watch fills and every request reads.
//!
//! Nothing here knows where the objects come from.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Objects by key. Reads never wait for anything but a short map operation.
#[derive(Debug)]
pub(super) struct Known<K, V> {
    objects: RwLock<HashMap<K, Arc<V>>>,
    complete: AtomicBool,
    change: watch::Sender<u64>,
}

impl<K: Eq + Hash + Clone, V: PartialEq> Known<K, V> {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self { objects: RwLock::default(), complete: AtomicBool::new(false), change: watch::Sender::new(0) }
    }

    /// The object, if known.
    pub(super) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All objects, in no order.
    pub(super) fn all(&self) -> Vec<Arc<V>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.objects.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Keeps `value`; the object when it is new or differs from what was known.
    pub(super) fn put(&self, key: K, value: V) -> Option<Arc<V>> {
        let value = {
            let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
            if objects.get(&key).is_some_and(|old| **old == value) {
                return None;
            }
            let value = Arc::new(value);
            objects.insert(key, Arc::clone(&value));
            value
        };
        self.tell();
        Some(value)
    }

    /// Forgets one object.
    pub(super) fn remove(&self, key: &K) {
        if self.objects.write().unwrap_or_else(PoisonError::into_inner).remove(key).is_some() {
            self.tell();
        }
    }

    /// A full list was seen: whatever is not in `listed` is gone.
    pub(super) fn listed(&self, listed: &HashSet<K>) {
        self.objects.write().unwrap_or_else(PoisonError::into_inner).retain(|key, _| listed.contains(key));
        self.complete.store(true, Ordering::Release);
        self.tell();
    }

    /// True once a full list was seen since the start.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// The first value `pick` finds, waiting for changes: at most `patience` once a full list was seen, else until
    /// `deadline`.
    pub(super) async fn wait<T>(
        &self,
        patience: Duration,
        deadline: Instant,
        mut pick: impl FnMut(&Self) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.change.subscribe();
        let patient_until = deadline.min(Instant::now() + patience);
        loop {
            changes.mark_unchanged();
            if let Some(found) = pick(self) {
                return Some(found);
            }
            let until = if self.is_complete() { patient_until } else { deadline };
            if !matches!(timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
                return pick(self);
            }
        }
    }

    /// Tells of every change from now on.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.change.subscribe()
    }

    fn tell(&self) {
        self.change.send_modify(|version| *version = version.wrapping_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers() -> Known<u8, u8> {
        Known::new()
    }

    #[test]
    fn a_list_proves_what_is_gone() {
        let known = numbers();
        assert!(known.put(1, 1).is_some());
        assert!(known.put(1, 1).is_none(), "the same again is no news");
        known.put(2, 2);
        assert!(!known.is_complete());
        known.listed(&HashSet::from([2]));
        assert!(known.is_complete());
        assert_eq!((known.get(&1), known.len()), (None, 1));
    }

    #[tokio::test]
    async fn waiting_ends_with_the_object_or_the_patience() {
        let known = Arc::new(numbers());
        known.listed(&HashSet::new());
        let deadline = Instant::now() + Duration::from_secs(30);
        assert_eq!(known.wait(Duration::from_millis(5), deadline, |k| k.get(&7)).await, None);
        let later = Arc::clone(&known);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            later.put(7, 70);
        });
        assert_eq!(known.wait(Duration::from_secs(20), deadline, |k| k.get(&7)).await.as_deref(), Some(&70));
    }
}
