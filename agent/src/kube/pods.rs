//! What a pod's annotations are, when the runtime did not pass them: a metadata-only watch of this node, else one GET.
//!
//! Never reads a pod's spec, and never a pod of another node through the watch.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::kube::Api;
use ::kube::core::{ObjectMeta, PartialObjectMeta};
use ::kube::runtime::watcher::{self, Event};
use k8s_openapi::api::core::v1;

use super::client::{CallError, Server};
use super::follow::follow;
use super::{Cluster, ClusterError, Inner, PodKey, Source, bad_object, is_static, kept};
use crate::names::{ObjectName, PodRef};
use crate::objects::Pod;

/// How long the watch may lag behind the kubelet before the pod is read by itself.
const LAG: Duration = Duration::from_millis(50);
/// Longest time the watch gets for its first list before the pod is read by itself.
const FIRST_LIST: Duration = Duration::from_millis(250);
/// Longest single read, all attempts together; the request's deadline may be shorter.
const READ: Duration = Duration::from_secs(10);
/// Pause between attempts of a single read.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// Most pods of one node in memory (the kubelet's default limit is 110).
const MOST_PODS: usize = 4096;

impl Cluster {
    /// The pod as the cluster has it now, with the UID that `pod` names, if it names one.
    ///
    /// # Errors
    /// [`ClusterError::NotFound`], [`ClusterError::OtherPod`] for another UID (static pods apart, whose UID the kubelet
    /// makes up), [`ClusterError::Unavailable`] when nobody could be asked before `deadline`.
    pub async fn pod(&self, pod: &PodRef, deadline: Instant) -> Result<Pod, ClusterError> {
        match (&self.0.settings.source, &self.0.server) {
            (Source::Folder(_), _) => self.pod_of_folder(pod, deadline).await,
            (_, Some(server)) => self.pod_of_server(server, pod, deadline).await,
            _ => Err(not_found(pod, false)),
        }
    }

    /// The pod, if it is known now and is the one that is meant. Asks nobody.
    pub fn known_pod(&self, pod: &PodRef) -> Option<Pod> {
        let found = self.0.pods.get(&super::key(pod))?;
        checked((*found).clone(), pod).ok()
    }

    /// The pod as it can be found without following anything from then on: in memory, else one GET.
    ///
    /// # Errors
    /// As [`Cluster::pod`].
    pub async fn peek_pod(&self, pod: &PodRef, deadline: Instant) -> Result<Pod, ClusterError> {
        match (self.known_pod(pod), &self.0.settings.source, &self.0.server) {
            (_, Source::Folder(_), _) => self.pod_of_folder(pod, deadline).await,
            (Some(known), ..) => Ok(known),
            (None, _, Some(server)) => self.read_pod(server, pod, deadline).await,
            _ => Err(not_found(pod, false)),
        }
    }

    async fn pod_of_folder(&self, pod: &PodRef, deadline: Instant) -> Result<Pod, ClusterError> {
        let key = super::key(pod);
        // Not there, or another one of the name: its file may have been written since the last look.
        if self.0.pods.get(&key).is_none_or(|known| !is_meant(&known, pod)) {
            self.look_again(deadline).await;
        }
        match self.0.pods.get(&key) {
            Some(found) => checked((*found).clone(), pod),
            None => Err(not_found(pod, true)),
        }
    }

    async fn pod_of_server(&self, server: &Server, pod: &PodRef, deadline: Instant) -> Result<Pod, ClusterError> {
        let key = super::key(pod);
        if self.watch_pods() {
            let first_list = deadline.min(Instant::now() + FIRST_LIST).into();
            let current = |known: &super::Known<PodKey, Pod>| known.get(&key).filter(|found| is_meant(found, pod));
            if let Some(found) = self.0.pods.wait(LAG, first_list, current).await {
                return Ok((*found).clone());
            }
        }
        let found = self.read_pod(server, pod, deadline).await?;
        checked(found, pod)
    }

    /// One GET; more only while the API server does not answer and the deadline allows.
    async fn read_pod(&self, server: &Server, pod: &PodRef, deadline: Instant) -> Result<Pod, ClusterError> {
        let deadline = deadline.min(Instant::now() + READ);
        loop {
            let api: Api<PartialObjectMeta<v1::Pod>> = Api::namespaced(server.client(), pod.namespace.as_str());
            self.0.gets.fetch_add(1, Ordering::Relaxed);
            let limit = deadline.saturating_duration_since(Instant::now());
            let error = match server.call(("get", "pods"), limit, api.get(pod.name.as_str())).await {
                Ok(object) => return trimmed(object.metadata).ok_or_else(|| not_found(pod, true)),
                Err(CallError::Refused(404, _)) => return Err(not_found(pod, true)),
                Err(error) => error,
            };
            if !error.may_pass() || deadline.saturating_duration_since(Instant::now()) <= READ_PAUSE {
                return Err(ClusterError::Unavailable { action: format!("read pod \"{pod}\""), reason: error.text() });
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
    }

    /// Starts the watch of this node's pods, once; false when the node's name is not known.
    pub(super) fn watch_pods(&self) -> bool {
        let inner = Arc::clone(&self.0);
        let (Some(server), Some(node)) = (inner.server.clone(), inner.settings.node_name.as_deref()) else {
            return false;
        };
        // A node's name is a DNS name; anything else would change the selector's meaning.
        let Ok(node) = ObjectName::new(node).inspect_err(|bad| bad_object("the node's name", bad)) else {
            return false;
        };
        if !inner.pods_watched.swap(true, Ordering::AcqRel) {
            tokio::spawn(async move {
                let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
                let mut listed = HashSet::new();
                let see = |event| see(&inner, &mut listed, event);
                follow(("pods", Api::<PartialObjectMeta<v1::Pod>>::all), config, &server, inner.stop.clone(), see)
                    .await;
            });
        }
        true
    }
}

fn see(inner: &Inner, listed: &mut HashSet<PodKey>, event: Event<PartialObjectMeta<v1::Pod>>) {
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(object) => {
            if let Some(pod) = trimmed(object.metadata) {
                listed.insert(super::key(&pod.id));
                put(inner, pod);
            }
        }
        Event::InitDone => inner.pods.listed(&std::mem::take(listed)),
        Event::Apply(object) => {
            if let Some(pod) = trimmed(object.metadata) {
                put(inner, pod);
            }
        }
        Event::Delete(object) => {
            if let Some(pod) = trimmed(object.metadata) {
                inner.pods.remove(&super::key(&pod.id));
            }
        }
    }
}

fn put(inner: &Inner, pod: Pod) {
    let key = super::key(&pod.id);
    if inner.pods.len() < MOST_PODS || inner.pods.get(&key).is_some() {
        inner.pods.put(key, pod);
    }
}

pub(super) fn trimmed(metadata: ObjectMeta) -> Option<Pod> {
    let name =
        |text: Option<String>| ObjectName::new(text.unwrap_or_default()).inspect_err(|bad| bad_object("pod", bad)).ok();
    let annotations = metadata.annotations.unwrap_or_default();
    Some(Pod {
        id: PodRef { namespace: name(metadata.namespace)?, name: name(metadata.name)?, uid: metadata.uid },
        is_static: is_static(&annotations),
        annotations: kept(annotations),
    })
}

/// The pod the runtime means: it names no UID, the same UID, or the pod is static.
fn is_meant(found: &Pod, meant: &PodRef) -> bool {
    match (&meant.uid, &found.id.uid) {
        (Some(expected), Some(uid)) => expected == uid || found.is_static,
        _ => true,
    }
}

pub(super) fn checked(found: Pod, meant: &PodRef) -> Result<Pod, ClusterError> {
    if is_meant(&found, meant) {
        return Ok(found);
    }
    let expected = meant.uid.clone().unwrap_or_default();
    Err(ClusterError::OtherPod { pod: meant.clone(), expected, found: found.id.uid.unwrap_or_default() })
}

pub(super) fn not_found(pod: &PodRef, sourced: bool) -> ClusterError {
    ClusterError::NotFound { kind: "pod", id: pod.to_string(), sourced }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: Option<&str>, is_static: bool) -> Pod {
        let name = |text| ObjectName::new(text).unwrap();
        let id = PodRef { namespace: name("x"), name: name("a"), uid: uid.map(str::to_owned) };
        Pod { id, is_static, annotations: [].into() }
    }

    #[test]
    fn the_uid_decides_except_for_static_pods() {
        for (meant, found, is_static, expected) in [
            (None, Some("1"), false, true),
            (Some("1"), Some("1"), false, true),
            (Some("1"), Some("2"), false, false),
            (Some("1"), Some("2"), true, true),
            (Some("1"), None, false, true),
        ] {
            assert_eq!(is_meant(&pod(found, is_static), &pod(meant, false).id), expected, "{meant:?} {found:?}");
        }
    }
}
