//! How the folder of manifests becomes what is known: a look now, and one whenever it may have changed.
//!
//! Decides nothing about a manifest; what was refused is repeated in the health report until it is mended.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::documents::Manifest;
use super::folder::Folder;
use super::{Cluster, key, stopped};
use crate::fault::quote;

/// How often the folder is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Most refusals of manifests that the health report repeats.
const MOST_REFUSALS: usize = 32;

impl Cluster {
    /// Reads the folder once now, and from then on whenever it changes.
    pub(super) async fn follow_folder(&self, folder: Folder) {
        let mut folder = self.look_into(folder).await;
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let cluster = Self(inner);
            let mut stop = cluster.0.stop.clone();
            while let Some(known) = folder {
                tokio::select! {
                    () = stopped(&mut stop) => return,
                    () = cluster.0.look.notified() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
                folder = cluster.look_into(known).await;
            }
        });
    }

    /// One look, off the executor; `None` only when the runtime is going down.
    async fn look_into(&self, mut folder: Folder) -> Option<Folder> {
        self.0.looks.send_modify(|looks| looks.begun += 1);
        let looked = tokio::task::spawn_blocking(move || (folder.look(), folder)).await;
        let (changed, folder) = looked.ok()?;
        if changed {
            self.adopt(&folder);
        }
        self.0.looks.send_modify(|looks| looks.done = looks.begun);
        Some(folder)
    }

    /// Returns when the folder was read by a look that began after this call: what is not known then is not there. At
    /// `deadline` at the latest.
    pub(super) async fn look_again(&self, deadline: Instant) {
        let mut looks = self.0.looks.subscribe();
        let next = looks.borrow().begun + 1;
        self.0.look.notify_one();
        drop(tokio::time::timeout_at(deadline.into(), looks.wait_for(|looks| looks.done >= next)).await);
    }

    /// What is wrong is told first: whoever then sees an object also sees what was said of its neighbours.
    fn adopt(&self, folder: &Folder) {
        let mut refusals = folder.refusals();
        let (mut networks, mut pods) = (HashMap::new(), HashMap::new());
        for (path, manifest) in folder.manifests() {
            let path = quote(&path.to_string_lossy());
            let mut refuse =
                |what: &str| refusals.push(format!("{path}: {what} is already defined by an earlier document"));
            match manifest {
                Manifest::Network(network) => match networks.entry(network.id.clone()) {
                    Entry::Vacant(free) => drop(free.insert(network)),
                    Entry::Occupied(_) => refuse(&format!("NetworkAttachmentDefinition \"{}\"", network.id)),
                },
                Manifest::Pod(pod) => match pods.entry(key(&pod.id)) {
                    Entry::Vacant(free) => drop(free.insert(pod)),
                    Entry::Occupied(_) => refuse(&format!("pod \"{}\"", pod.id)),
                },
            }
        }
        self.tell_refusals(refusals);
        self.0.contact.folder(folder.unreadable());
        let (listed_networks, listed_pods) = (networks.keys().cloned().collect(), pods.keys().cloned().collect());
        for (id, network) in networks {
            self.0.networks.put(id, network.clone());
        }
        for (id, pod) in pods {
            self.0.pods.put(id, pod.clone());
        }
        self.0.networks.listed(&listed_networks);
        self.0.pods.listed(&listed_pods);
    }

    /// Each is logged when it is new, and repeated by the health report as long as it holds.
    fn tell_refusals(&self, mut refusals: Vec<String>) {
        refusals.truncate(MOST_REFUSALS);
        let mut said = self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        for refusal in refusals.iter().filter(|refusal| !said.contains(refusal)) {
            tracing::warn!("manifest not used: {refusal}");
        }
        *said = refusals;
    }
}
