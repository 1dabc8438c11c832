//! Which network-status the pods of this node have: one list of their metadata, when an agent starts.
//!
//! Never asked while a request waits.

use std::collections::HashMap;
use std::time::Duration;

use ::kube::Api;
use ::kube::api::ListParams;
use k8s_openapi::api::core::v1;

use super::client::CallError;
use super::{Cluster, ClusterError, PodKey, is_static};
use crate::names::{ObjectName, PodRef};
use crate::objects::annotation;

/// Longest wait for one page.
const PAGE_TIME: Duration = Duration::from_secs(30);
/// Pods of one page.
const PAGE: u32 = 250;
/// Most pages; the kubelet's default limit is 110 pods.
const MOST_PAGES: usize = 16;

/// What a pod of this node has.
#[derive(Debug, Clone)]
struct Written {
    uid: Option<String>,
    is_static: bool,
    status: Option<String>,
}

/// The network-status of every pod of this node.
#[derive(Debug, Default)]
pub struct WrittenStatuses(HashMap<PodKey, Written>);

impl WrittenStatuses {
    /// The text that the pod has; the inner `None` is a pod without one, the outer no such pod.
    pub fn of(&self, pod: &PodRef) -> Option<Option<&str>> {
        let written = self.0.get(&super::key(pod))?;
        let is_it = written.is_static || pod.uid.is_none() || written.uid.is_none() || pod.uid == written.uid;
        is_it.then_some(written.status.as_deref())
    }
}

impl Cluster {
    /// Lists them. `None` where it cannot be known: without an API server, or without this node's name.
    ///
    /// # Errors
    /// [`ClusterError::Unavailable`]; asking again may help.
    pub async fn written_statuses(&self) -> Result<Option<WrittenStatuses>, ClusterError> {
        let node = self.0.settings.node_name.as_deref().map(ObjectName::new);
        let (Some(server), Some(Ok(node))) = (&self.0.server, node) else { return Ok(None) };
        let api: Api<v1::Pod> = Api::all(server.client());
        let mut params = ListParams::default().fields(&format!("spec.nodeName={node}")).limit(PAGE);
        let mut written = WrittenStatuses::default();
        for _ in 0..MOST_PAGES {
            let page = server
                .call(("list", "pods"), PAGE_TIME, api.list_metadata(&params))
                .await
                .map_err(|error| unavailable(&error))?;
            for pod in page.items {
                let annotations = pod.metadata.annotations.unwrap_or_default();
                let is_static = is_static(&annotations);
                let status = annotations.get(annotation::NETWORK_STATUS).filter(|text| !text.is_empty()).cloned();
                let name = |text: Option<String>| ObjectName::new(text.unwrap_or_default());
                if let (Ok(namespace), Ok(name)) = (name(pod.metadata.namespace), name(pod.metadata.name)) {
                    let one = Written { uid: pod.metadata.uid, is_static, status };
                    written.0.insert((namespace, name), one);
                }
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => break,
            }
        }
        Ok(Some(written))
    }
}

fn unavailable(error: &CallError) -> ClusterError {
    ClusterError::Unavailable { action: "list the pods of this node".to_owned(), reason: error.text() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_uid_unless_it_is_static() {
        let name = |text: &str| ObjectName::new(text).unwrap();
        let pod = |uid: Option<&str>| PodRef { namespace: name("x"), name: name("a"), uid: uid.map(str::to_owned) };
        let with = |is_static, status: Option<&str>| {
            let one = Written { uid: Some("1".into()), is_static, status: status.map(str::to_owned) };
            WrittenStatuses(HashMap::from([((name("x"), name("a")), one)]))
        };
        assert_eq!(with(false, Some("[]")).of(&pod(Some("1"))), Some(Some("[]")));
        assert_eq!(with(false, None).of(&pod(None)), Some(None));
        assert_eq!(with(false, None).of(&pod(Some("2"))), None, "another pod");
        assert_eq!(with(true, None).of(&pod(Some("hash"))), Some(None));
        assert_eq!(WrittenStatuses::default().of(&pod(None)), None);
    }
}
