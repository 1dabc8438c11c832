//! The pod of a request: its annotations from the runtime where it gives them, else from the cluster.

use std::collections::BTreeMap;

use crate::fault::CniError;
use crate::kube::{ClusterError, EventKind};
use crate::names::PodRef;
use crate::ops::context::Context;
use crate::ops::invocation::Invocation;

/// What planning needs to know of a pod.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Which pod, where the runtime named one.
    pub id: Option<PodRef>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

/// Is there such a pod?
#[derive(Debug)]
pub enum Found {
    /// Yes, or nobody can tell and it does not matter.
    Known(Facts),
    /// It is gone, deleted while it was being added.
    Gone,
}

/// Looks up the pod of `call`.
///
/// # Errors
/// The cluster could not be asked, or the pod is another one by now.
pub async fn find(context: &Context, call: &Invocation) -> Result<Found, CniError> {
    let Some(id) = &call.request.pod else { return Ok(Found::Known(Facts::default())) };
    if let Some(annotations) = &call.annotations {
        return Ok(Found::Known(Facts { id: Some(id.clone()), annotations: annotations.clone() }));
    }
    match context.cluster.pod(id, call.deadline).await {
        Ok(pod) => Ok(Found::Known(Facts { id: Some(id.clone()), annotations: pod.annotations })),
        // Without a cluster, or with a folder that does not list it, a pod has no annotations.
        Err(ClusterError::NotFound { .. }) if context.cluster.health().source != "api" => {
            Ok(Found::Known(Facts { id: Some(id.clone()), annotations: BTreeMap::new() }))
        }
        Err(ClusterError::NotFound { .. }) => Ok(Found::Gone),
        Err(error) => Err(error.into()),
    }
}

/// The answer for a pod that is gone: upstream's empty success, in the version that was asked in. Nothing was done, and
/// the runtime's DEL, which follows, finds nothing to do.
///
/// # Errors
/// The version cannot say it.
pub fn nothing_attached(call: &Invocation) -> Result<String, CniError> {
    let text = serde_json::json!({
        "cniVersion": "1.0.0",
        "interfaces": [{
            "name": call.request.ifname.as_ref().map(ToString::to_string),
            "sandbox": call.request.netns.as_ref().map(ToString::to_string),
        }],
        "ips": [{ "address": "0.0.0.0/0", "gateway": "0.0.0.0" }],
    });
    crate::cni::CniResult::parse(text.to_string().as_bytes())?.print(call.version)
}

/// Posts an event about the pod of `call`, if it has one.
pub fn event(context: &Context, call: &Invocation, kind: EventKind, reason: &str, message: &str) {
    if let Some(pod) = &call.request.pod {
        context.cluster.event(pod, kind, reason, message);
    }
}
