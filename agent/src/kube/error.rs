//! What can go wrong between us and the cluster, and which CNI error that is.
//!
//! Says what failed and for which object; quotes nothing but names.

use crate::fault::{CniError, code};
use crate::names::PodRef;

/// What can go wrong between us and the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The settings cannot work; nothing was started.
    #[error("{0}")]
    Settings(String),
    /// A complete view of the cluster does not have the object.
    #[error("{kind} \"{id}\" does not exist{}", if *.sourced { "" } else { ": neither an API server nor a folder of objects is configured" })]
    NotFound {
        /// `NetworkAttachmentDefinition` or `pod`.
        kind: &'static str,
        /// `namespace/name`.
        id: String,
        /// False when there is no source at all.
        sourced: bool,
    },
    /// The pod is another one of the same name than the runtime means.
    #[error("pod \"{pod}\" has UID \"{found}\", the runtime means \"{expected}\": it was deleted and created again")]
    OtherPod {
        /// Which pod.
        pod: PodRef,
        /// The runtime's UID.
        expected: String,
        /// The cluster's UID.
        found: String,
    },
    /// A resource claim of the pod that tells no devices.
    #[error("ResourceClaim {claim} of pod \"{pod}\": {reason}")]
    Claim {
        /// Whose claim, `namespace/name`.
        pod: String,
        /// Its name, quoted.
        claim: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The cluster could not be asked; the object may exist.
    #[error("{action}: {reason}")]
    Unavailable {
        /// What was attempted, with the object.
        action: String,
        /// Why it failed.
        reason: String,
    },
}

impl From<ClusterError> for CniError {
    fn from(error: ClusterError) -> Self {
        let text = error.to_string();
        match error {
            ClusterError::Settings(_) => CniError::new(code::INVALID_CONFIG, text),
            ClusterError::NotFound { kind: "pod", .. } => {
                CniError::new(code::UNKNOWN_CONTAINER, text).remedy("the runtime retries; a deleted pod needs nothing")
            }
            ClusterError::NotFound { .. } => {
                CniError::new(code::UNKNOWN_NETWORK, text).remedy("create it, or correct the pod's networks annotation")
            }
            ClusterError::OtherPod { .. } => CniError::new(code::UNKNOWN_CONTAINER, text),
            ClusterError::Claim { .. } => {
                CniError::new(code::LIMIT, text).remedy("see the claim's status and the ResourceSlices of its driver")
            }
            ClusterError::Unavailable { .. } => {
                CniError::new(code::TRY_LATER, text).remedy("the runtime retries; see multus-agent status")
            }
        }
    }
}
