//! Which devices a pod was given by dynamic resource allocation: the pod's claims, and what drivers say of the devices.
//!
//! (`resource.k8s.io/v1`, Kubernetes 1.34.) Reads the API server when it is asked to and never otherwise; watches nothing,
//! keeps nothing.

mod allocation;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::kube::Api;
use ::kube::api::ListParams;
use ::kube::core::{ApiResource, GroupVersionKind, Object, ObjectList};

use self::allocation::{Claim, ClaimStatus, Given, Nothing, PodSpec, PodStatus, SliceSpec, found};
use super::client::{Ask, CallError, Server};
use super::{Cluster, ClusterError, Source};
use crate::fault::quote;
use crate::names::{DeviceId, ObjectName, PodRef};

/// The longest everything here takes together; the request's deadline may be shorter.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between attempts of one read.
const PAUSE: Duration = Duration::from_millis(200);
/// Most claims of one pod that are read; each costs a request.
const MOST_CLAIMS: usize = 64;
/// Objects of one page of a list, and most pages: a node with 16 000 slices is a mistake.
const PAGE: (u32, usize) = (500, 32);

type PodObject = Object<PodSpec, PodStatus>;
type ClaimObject = Object<Nothing, ClaimStatus>;
type SliceObject = Object<SliceSpec, Nothing>;

/// What the claims of a pod come to.
#[derive(Debug, Default)]
pub struct Claimed {
    /// Devices that are a network's business, each with the resource a network knows it by.
    pub devices: Vec<(String, DeviceId)>,
    /// [`ClusterError::Claim`] for each device that no ResourceSlice of the node tells of: no harm, unless one is missed.
    pub unlisted: Vec<ClusterError>,
}

impl Cluster {
    /// The devices that the claims of `pod` were given. Those that are no network's business (a GPU beside a network
    /// card) are left out. None without an API server.
    ///
    /// # Errors
    /// [`ClusterError::Claim`] for a claim that cannot be used, and what [`Cluster::pod`] says.
    pub async fn claimed_devices(&self, pod: &PodRef, deadline: Instant) -> Result<Claimed, ClusterError> {
        let (Source::Api { .. }, Some(server)) = (&self.0.settings.source, &self.0.server) else {
            return Ok(Claimed::default());
        };
        let reader = Reader { cluster: self, server, deadline: deadline.min(Instant::now() + PATIENCE) };
        let object = reader.pod(pod).await?;
        let claims = reader.claims(pod, &object.status.unwrap_or_default()).await?;
        let node = object.spec.node_name.or_else(|| self.0.settings.node_name.clone());
        let mut slices: BTreeMap<&str, Vec<SliceSpec>> = BTreeMap::new();
        for driver in claims.iter().flat_map(|claim| &claim.given).map(|given| given.driver.as_str()) {
            if !slices.contains_key(driver) {
                slices.insert(driver, reader.slices(node.as_deref().unwrap_or_default(), driver).await?);
            }
        }
        let all = slices.into_values().flatten().collect::<Vec<_>>();
        let mut claimed = Claimed::default();
        for claim in &claims {
            let of_claim = found(claim, &all).map_err(|reason| refused(pod, &claim.name, reason))?;
            claimed.devices.extend(of_claim.devices);
            claimed.unlisted.extend(of_claim.unlisted.into_iter().map(|text| refused(pod, &claim.name, text)));
        }
        Ok(claimed)
    }
}

/// One look-up, as long as it takes.
struct Reader<'a> {
    cluster: &'a Cluster,
    server: &'a Server,
    deadline: Instant,
}

impl Reader<'_> {
    async fn pod(&self, pod: &PodRef) -> Result<PodObject, ClusterError> {
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("", "v1", "Pod"), "pods");
        let api = Api::namespaced_with(self.server.client(), pod.namespace.as_str(), &kind);
        let gets = &self.cluster.0.gets;
        gets.fetch_add(1, Ordering::Relaxed);
        let object: Result<PodObject, _> = self.read(("get", "pods"), || api.get(pod.name.as_str())).await;
        match object {
            Ok(object) => checked(pod, object),
            Err(CallError::Refused(404, _)) => Err(super::pods::not_found(pod, true)),
            Err(error) => Err(unavailable(format!("read pod \"{pod}\""), &error)),
        }
    }

    async fn claims(&self, pod: &PodRef, status: &PodStatus) -> Result<Vec<Claim>, ClusterError> {
        let named = status.resource_claim_statuses.iter().flatten();
        let named = named.filter_map(|claim| claim.resource_claim_name.clone()).map(|name| (name, None));
        let extended = status.extended_resource_claim_status.iter();
        let extended = extended
            .map(|claim| (claim.resource_claim_name.clone(), Some(claim.request_mappings.clone().unwrap_or_default())));
        let all: Vec<_> = named.chain(extended).collect();
        if all.len() > MOST_CLAIMS {
            let action = format!("read the {} ResourceClaims of pod \"{pod}\"", all.len());
            return Err(ClusterError::Unavailable { action, reason: format!("at most {MOST_CLAIMS} are read") });
        }
        let mut claims = Vec::new();
        for (name, mappings) in all {
            let given = self.given(pod, &name).await?;
            claims.push(Claim { name, given, mappings });
        }
        Ok(claims)
    }

    async fn given(&self, pod: &PodRef, name: &str) -> Result<Vec<Given>, ClusterError> {
        // A name goes into a path.
        let name = ObjectName::new(name).map_err(|bad| refused(pod, name, bad.to_string()))?;
        let kind = resource("ResourceClaim", "resourceclaims");
        let api = Api::namespaced_with(self.server.client(), pod.namespace.as_str(), &kind);
        let object: Result<ClaimObject, _> = self.read(("get", "resourceclaims"), || api.get(name.as_str())).await;
        let object = object.map_err(|error| match error {
            CallError::Refused(404, _) => {
                let reason = "the API server does not have it; it has to serve resource.k8s.io/v1 (Kubernetes 1.34)";
                refused(pod, name.as_str(), reason.to_owned())
            }
            error => unavailable(format!("read ResourceClaim {} of pod \"{pod}\"", quote(name.as_str())), &error),
        })?;
        let allocation = object.status.and_then(|status| status.allocation);
        let allocation =
            allocation.ok_or_else(|| refused(pod, name.as_str(), "it has no status.allocation".to_owned()))?;
        Ok(allocation.devices.and_then(|devices| devices.results).unwrap_or_default())
    }

    /// What `driver` offers on `node`.
    async fn slices(&self, node: &str, driver: &str) -> Result<Vec<SliceSpec>, ClusterError> {
        let action = || format!("list ResourceSlices of node {} and driver {}", quote(node), quote(driver));
        // Both are DNS names; anything else would change the selector's meaning.
        for part in [node, driver] {
            ObjectName::new(part)
                .map_err(|bad| ClusterError::Unavailable { action: action(), reason: bad.to_string() })?;
        }
        let api: Api<SliceObject> = Api::all_with(self.server.client(), &resource("ResourceSlice", "resourceslices"));
        let mut page =
            ListParams::default().fields(&format!("spec.nodeName={node},spec.driver={driver}")).limit(PAGE.0);
        let mut slices = Vec::new();
        for _ in 0..PAGE.1 {
            let read: Result<ObjectList<SliceObject>, _> =
                self.read(("list", "resourceslices"), || api.list(&page)).await;
            let list = read.map_err(|error| unavailable(action(), &error))?;
            slices.extend(list.items.into_iter().map(|slice| slice.spec));
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => break,
            }
        }
        Ok(slices)
    }

    /// One read; again only while the API server does not answer and there is time.
    async fn read<T, F: Future<Output = ::kube::Result<T>>>(
        &self,
        ask: Ask,
        call: impl Fn() -> F,
    ) -> Result<T, CallError> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let error = match self.server.call(ask, left, call()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // Missing rights do not come by waiting, unlike after a start, when pods are read.
            let is_final = !error.may_pass() || matches!(error, CallError::Refused(403, _));
            if is_final || self.deadline.saturating_duration_since(Instant::now()) <= PAUSE {
                return Err(error);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The pod the runtime means, not another one of its name.
fn checked(pod: &PodRef, object: PodObject) -> Result<PodObject, ClusterError> {
    match super::pods::trimmed(object.metadata.clone()) {
        Some(found) => super::pods::checked(found, pod).map(|_| object),
        None => Err(super::pods::not_found(pod, true)),
    }
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("resource.k8s.io", "v1", kind), plural)
}

fn unavailable(action: String, error: &CallError) -> ClusterError {
    let mut reason = error.text();
    if matches!(error, CallError::Refused(403, _)) {
        reason.push_str("; let the agent's role get pods and resourceclaims and list resourceslices");
    }
    ClusterError::Unavailable { action, reason }
}

fn refused(pod: &PodRef, claim: &str, reason: String) -> ClusterError {
    ClusterError::Claim { pod: pod.to_string(), claim: quote(claim), reason }
}
