//! Which NetworkAttachmentDefinitions the API server has: one trimmed watch over all namespaces.
//!
//! Nothing here interprets a network's config.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use ::kube::core::NamespaceResourceScope;
use ::kube::core::ObjectMeta;
use ::kube::runtime::watcher::{self, Event};
use ::kube::{Api, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::documents::MOST_CONFIG_BYTES;
use super::follow::follow;
use super::shelf::Shelf;
use super::{Cluster, Inner, bad_object, kept};
use crate::names::NadRef;
use crate::objects::Network;

/// Most networks kept in memory; further ones are said and left out.
const MOST_NETWORKS: usize = 16 << 10;

/// A NetworkAttachmentDefinition as the API server sends it. `spec` may be anything: the CRD's schema is not ours.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct NetworkAttachmentDefinition {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
}

impl Resource for NetworkAttachmentDefinition {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "NetworkAttachmentDefinition".into()
    }
    fn group((): &()) -> Cow<'_, str> {
        "k8s.cni.cncf.io".into()
    }
    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }
    fn plural((): &()) -> Cow<'_, str> {
        "network-attachment-definitions".into()
    }
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl NetworkAttachmentDefinition {
    /// `<namespace>/<name>`, whatever these are.
    pub(super) fn shown(&self) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}/{}", text(&self.metadata.namespace), text(&self.metadata.name))
    }

    fn id(&self) -> Option<NadRef> {
        let namespace = self.metadata.namespace.clone().unwrap_or_default();
        NadRef::new(namespace, self.metadata.name.clone().unwrap_or_default())
            .inspect_err(|bad| bad_object("NetworkAttachmentDefinition", bad))
            .ok()
    }

    pub(super) fn trimmed(self) -> Option<Network> {
        let id = self.id()?;
        let config = match self.spec {
            Value::Object(mut spec) => match spec.remove("config") {
                Some(Value::String(config)) if config.len() <= MOST_CONFIG_BYTES => Some(config),
                None | Some(Value::Null) => None,
                Some(_) => {
                    tracing::warn!(
                        "ignore NetworkAttachmentDefinition \"{id}\": spec.config is not a string that fits"
                    );
                    return None;
                }
            },
            _ => None,
        };
        let annotations = kept(self.metadata.annotations.unwrap_or_default());
        Some(Network { id, config: config.filter(|config| !config.is_empty()), annotations })
    }
}

impl Cluster {
    /// What was kept on disk, into memory.
    pub(super) async fn load_networks(&self) {
        let disk = Shelf::new(self.0.settings.networks_dir.clone());
        let Ok((disk, kept)) = tokio::task::spawn_blocking(move || {
            let kept = disk.load();
            (disk, kept)
        })
        .await
        else {
            return;
        };
        for network in kept {
            self.0.networks.put(network.id.clone(), network);
        }
        tokio::spawn(keep_networks(Arc::clone(&self.0), disk));
    }

    /// Follows the API server's networks from now on.
    pub(super) fn follow_networks(&self) {
        let inner = Arc::clone(&self.0);
        let Some(server) = inner.server.clone() else { return };
        tokio::spawn(async move {
            let mut listed = HashSet::new();
            let see = |event| see(&inner, &mut listed, event);
            let (config, stop) = (watcher::Config::default(), inner.stop.clone());
            follow(
                ("network-attachment-definitions", Api::<NetworkAttachmentDefinition>::all),
                config,
                &server,
                stop,
                see,
            )
            .await;
        });
    }
}

fn see(inner: &Inner, listed: &mut HashSet<NadRef>, event: Event<NetworkAttachmentDefinition>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            if let Some(network) = object.trimmed() {
                listed.insert(network.id.clone());
                put(inner, network);
            }
        }
        Event::InitDone => inner.networks.listed(&std::mem::take(listed)),
        Event::Apply(object) => {
            let id = object.id();
            match (object.trimmed(), id) {
                (Some(network), _) => put(inner, network),
                (None, Some(id)) => inner.networks.remove(&id),
                (None, None) => {}
            }
        }
        Event::Delete(object) => {
            if let Some(id) = object.id() {
                inner.networks.remove(&id);
            }
        }
    }
}

fn put(inner: &Inner, network: Network) {
    if inner.networks.len() >= MOST_NETWORKS && inner.networks.get(&network.id).is_none() {
        inner.contact.noted(&format!("network \"{}\" left out: more than {MOST_NETWORKS} are defined", network.id));
        return;
    }
    inner.networks.put(network.id.clone(), network);
}

/// Brings the disk up to date after every change, off the executor.
async fn keep_networks(inner: Arc<Inner>, mut shelf: Shelf) {
    let mut changes = inner.networks.changes();
    let mut stop = inner.stop.clone();
    loop {
        let (networks, complete) = (inner.networks.all(), inner.networks.is_complete());
        let Ok(kept) = tokio::task::spawn_blocking(move || {
            let faults = shelf.keep(&networks, complete);
            (shelf, faults)
        })
        .await
        else {
            return;
        };
        if let Some(fault) = kept.1 {
            tracing::warn!("{fault}");
            inner.contact.noted(&fault);
        }
        shelf = kept.0;
        tokio::select! {
            () = super::stopped(&mut stop) => return,
            news = changes.changed() => if news.is_err() { return },
        }
    }
}
