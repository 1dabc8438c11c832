//! What a process that answers one request does without watches: single reads, and waiting for its own last words.
//!
//! Keeps nothing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::kube::Api;

use super::client::{CallError, Server};
use super::networks::NetworkAttachmentDefinition;
use super::{Cluster, ClusterError};
use crate::names::NadRef;
use crate::objects::Network;

/// Longest single read, all attempts together; the request's deadline may be shorter.
const READ: Duration = Duration::from_secs(10);
/// Pause between attempts.
const READ_PAUSE: Duration = Duration::from_millis(200);
/// How often somebody looks whether everything is said.
const LOOK: Duration = Duration::from_millis(5);

impl Cluster {
    /// One GET of a network; more only while the API server does not answer and the deadline allows.
    pub(super) async fn read_network(
        &self,
        server: &Server,
        id: &NadRef,
        deadline: Instant,
    ) -> Result<Arc<Network>, ClusterError> {
        const KIND: &str = "NetworkAttachmentDefinition";
        let deadline = deadline.min(Instant::now() + READ);
        let not_found = || ClusterError::NotFound { kind: KIND, id: id.to_string(), sourced: true };
        let api: Api<NetworkAttachmentDefinition> = Api::namespaced(server.client(), id.namespace.as_str());
        loop {
            let limit = deadline.saturating_duration_since(Instant::now());
            let error =
                match server.call(("get", "network-attachment-definitions"), limit, api.get(id.name.as_str())).await {
                    Ok(object) => return object.trimmed().map(Arc::new).ok_or_else(not_found),
                    Err(CallError::Refused(404, _)) => return Err(not_found()),
                    Err(error) => error,
                };
            if !error.may_pass() || deadline.saturating_duration_since(Instant::now()) <= READ_PAUSE {
                return Err(ClusterError::Unavailable {
                    action: format!("find {KIND} \"{id}\""),
                    reason: error.text(),
                });
            }
            tokio::time::sleep(READ_PAUSE).await;
        }
    }

    /// Waits until every network-status is written or given up, at most `patience`; false: some are not.
    pub async fn reports_are_written(&self, patience: Duration) -> bool {
        until(patience, || self.0.reports.pending() == 0).await
    }

    /// The same for events.
    pub async fn events_are_posted(&self, patience: Duration) -> bool {
        until(patience, || self.0.events.waiting() == 0).await
    }
}

async fn until(patience: Duration, is_done: impl Fn() -> bool) -> bool {
    let looking = async {
        while !is_done() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(patience, looking).await.is_ok()
}
