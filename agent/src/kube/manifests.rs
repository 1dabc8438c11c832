//! How the folder of manifests becomes what is known: a look now, and one whenever it may have changed.
//!
//! Decides nothing about a manifest; what was refused is repeated in the health report until it is mended.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

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
        let looked = tokio::task::spawn_blocking(move || (folder.look(), folder)).await;
        let (changed, folder) = looked.ok()?;
        if changed {
            self.adopt(&folder);
        }
        Some(folder)
    }

    fn adopt(&self, folder: &Folder) {
        let mut refusals = folder.refusals();
        let (mut networks, mut pods) = (HashSet::new(), HashSet::new());
        for (path, manifest) in folder.manifests() {
            let (kind, id, is_first) = match manifest {
                Manifest::Network(network) => {
                    ("NetworkAttachmentDefinition", network.id.to_string(), networks.insert(network.id.clone()))
                }
                Manifest::Pod(pod) => ("pod", pod.id.to_string(), pods.insert(key(&pod.id))),
            };
            if !is_first {
                refusals.push(format!(
                    "{}: {kind} \"{id}\" is already defined by an earlier document",
                    quote(&path.to_string_lossy())
                ));
                continue;
            }
            match manifest.clone() {
                Manifest::Network(network) => drop(self.0.networks.put(network.id.clone(), network)),
                Manifest::Pod(pod) => drop(self.0.pods.put(key(&pod.id), pod)),
            }
        }
        self.0.networks.listed(&networks);
        self.0.pods.listed(&pods);
        self.0.contact.folder(folder.unreadable());
        let mut said = self.0.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        for refusal in refusals.iter().filter(|refusal| !said.contains(refusal)) {
            tracing::warn!("manifest not used: {refusal}");
        }
        refusals.truncate(MOST_REFUSALS);
        *said = refusals;
    }
}
