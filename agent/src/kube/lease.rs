//! A Lease of the API server (coordination.k8s.io/v1), read and written. Whose turn it is, others decide.

use std::time::Duration;

use ::kube::Api;
use ::kube::api::PostParams;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use super::client::{CallError, Server};
use super::{Cluster, ClusterError};
use crate::names::ObjectName;

/// Longest single call.
const CALL: Duration = Duration::from_secs(3);

/// Which lease.
#[derive(Debug, Clone)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: ObjectName,
    /// Its name.
    pub name: ObjectName,
}

/// A lease as the API server has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseFacts {
    /// Who has it; empty: nobody.
    pub holder: String,
    /// Its resourceVersion.
    pub version: String,
}

impl Cluster {
    /// Is there an API server that leases could be at?
    pub fn has_leases(&self) -> bool {
        self.0.server.is_some()
    }

    /// The lease; `None`: there is none.
    ///
    /// # Errors
    /// The API server did not answer, or refused.
    pub async fn lease(&self, id: &LeaseName) -> Result<Option<LeaseFacts>, ClusterError> {
        let (server, api) = self.leases(id)?;
        match server.call(("get", "leases"), CALL, api.get(id.name.as_str())).await {
            Ok(lease) => Ok(Some(LeaseFacts {
                holder: lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default(),
                version: lease.metadata.resource_version.unwrap_or_default(),
            })),
            Err(CallError::Refused(404, _)) => Ok(None),
            Err(error) => Err(unavailable("read", id, &error)),
        }
    }

    /// Writes the lease with this holder, if it is as it was read; `before`: its version, `None` where there was none.
    /// False: somebody else was faster.
    ///
    /// # Errors
    /// As [`Cluster::lease`].
    pub async fn write_lease(
        &self,
        id: &LeaseName,
        holder: &str,
        duration: Duration,
        before: Option<String>,
    ) -> Result<bool, ClusterError> {
        let (server, api) = self.leases(id)?;
        let name = id.name.as_str();
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(id.namespace.to_string()),
                resource_version: before.clone(),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: i32::try_from(duration.as_secs()).ok(),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        let params = PostParams::default();
        let written = match before {
            Some(_) => server.call(("update", "leases"), CALL, api.replace(name, &params, &lease)).await,
            None => server.call(("create", "leases"), CALL, api.create(&params, &lease)).await,
        };
        match written {
            Ok(_) => Ok(true),
            // 404: it was deleted meanwhile.
            Err(CallError::Refused(404 | 409, _)) => Ok(false),
            Err(error) => Err(unavailable("write", id, &error)),
        }
    }

    fn leases(&self, id: &LeaseName) -> Result<(&Server, Api<Lease>), ClusterError> {
        let server = self.0.server.as_ref().ok_or_else(|| ClusterError::Unavailable {
            action: format!("find Lease \"{}/{}\"", id.namespace, id.name),
            reason: "there is no API server".to_owned(),
        })?;
        Ok((server, Api::namespaced(server.client(), id.namespace.as_str())))
    }
}

fn unavailable(what: &str, id: &LeaseName, error: &CallError) -> ClusterError {
    ClusterError::Unavailable { action: format!("{what} Lease \"{}/{}\"", id.namespace, id.name), reason: error.text() }
}
