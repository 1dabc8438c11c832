//! Which devices a pod was given by dynamic resource allocation: the pod's claims, and what drivers say of the devices.
//!
//! (`resource.k8s.io/v1`, Kubernetes 1.34.) Reads the API server when it is asked to and never otherwise; watches nothing,
//! keeps nothing.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use ::kube::Api;
use ::kube::api::ListParams;
use ::kube::core::{ApiResource, GroupVersionKind, Object, ObjectList};
use serde::Deserialize;

use super::client::{CallError, Server};
use super::{Cluster, ClusterError, Source};
use crate::fault::quote;
use crate::names::{DeviceId, ObjectName, PodRef};

/// The longest everything here takes together; the request's deadline may be shorter.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between attempts of one read.
const PAUSE: Duration = Duration::from_millis(200);
/// Most claims of one pod that are read (a pod may have 32, and one made for it).
const MOST_CLAIMS: usize = 64;
/// Objects of one page of a list, and most pages: a node with 16 000 slices is a mistake.
const PAGE: (u32, usize) = (500, 32);

/// Attributes by which a driver ties a device to a network (multi-network DRA integration).
const DEVICE_ID: &str = "k8s.cni.cncf.io/deviceID";
const RESOURCE_NAME: &str = "k8s.cni.cncf.io/resourceName";

type PodObject = Object<PodSpec, PodStatus>;
type ClaimObject = Object<Nothing, ClaimStatus>;
type SliceObject = Object<SliceSpec, Nothing>;

/// A part of an object nobody here reads.
#[derive(Debug, Clone, Default, Deserialize)]
struct Nothing {}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    resource_claim_statuses: Option<Vec<PodClaim>>,
    extended_resource_claim_status: Option<ExtendedClaim>,
}

/// A claim of the pod; without a name none was needed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodClaim {
    resource_claim_name: Option<String>,
}

/// The claim that was made for the extended resources a pod requests (KEP 5004).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ExtendedClaim {
    resource_claim_name: String,
    request_mappings: Option<Vec<Mapping>>,
}

/// Which extended resource a request of the claim stands for.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    resource_name: String,
    request_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct ClaimStatus {
    allocation: Option<Allocation>,
}

#[derive(Debug, Clone, Deserialize)]
struct Allocation {
    devices: Option<Results>,
}

#[derive(Debug, Clone, Deserialize)]
struct Results {
    results: Option<Vec<Given>>,
}

/// One device that was allocated.
#[derive(Debug, Clone, Deserialize)]
struct Given {
    request: String,
    driver: String,
    pool: String,
    device: String,
}

#[derive(Debug, Clone, Deserialize)]
struct SliceSpec {
    driver: String,
    pool: Pool,
    devices: Option<Vec<Device>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Pool {
    name: String,
    /// Slices of an older generation are on their way out.
    #[serde(default)]
    generation: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct Device {
    name: String,
    attributes: Option<BTreeMap<String, Attribute>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Attribute {
    string: Option<String>,
}

impl Device {
    fn text(&self, attribute: &str) -> Option<&str> {
        self.attributes.as_ref()?.get(attribute)?.string.as_deref().filter(|text| !text.is_empty())
    }
}

/// A claim with what it was given.
struct Claim {
    name: String,
    given: Vec<Given>,
    /// For the claim of extended resources alone.
    mappings: Option<Vec<Mapping>>,
}

impl Cluster {
    /// The devices that the claims of `pod` were given, each with the resource a network knows it by. Devices that are
    /// no network's business (a GPU beside a network card) are left out. None without an API server.
    ///
    /// # Errors
    /// [`ClusterError::Claim`] for a claim that cannot be used, and what [`Cluster::pod`] says.
    pub async fn claimed_devices(
        &self,
        pod: &PodRef,
        deadline: Instant,
    ) -> Result<Vec<(String, DeviceId)>, ClusterError> {
        let (Source::Api { .. }, Some(server)) = (&self.0.settings.source, &self.0.server) else {
            return Ok(Vec::new());
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
        let mut devices = Vec::new();
        for claim in &claims {
            let of_claim = devices_of(claim, &all);
            devices.extend(of_claim.map_err(|reason| refused(pod, &claim.name, reason))?);
        }
        Ok(devices)
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
        let api = Api::namespaced_with(self.server.client.clone(), pod.namespace.as_str(), &kind);
        let gets = &self.cluster.0.gets;
        gets.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let object: Result<PodObject, _> = self.read(|| api.get(pod.name.as_str())).await;
        match object {
            Ok(object) => self.checked(pod, object),
            Err(CallError::Refused(404, _)) => Err(super::pods::not_found(pod, true)),
            Err(error) => Err(unavailable(format!("read pod \"{pod}\""), &error)),
        }
    }

    /// The pod the runtime means, not another one of its name.
    fn checked(&self, pod: &PodRef, object: PodObject) -> Result<PodObject, ClusterError> {
        match super::pods::trimmed(object.metadata.clone()) {
            Some(found) => super::pods::checked(found, pod).map(|_| object),
            None => Err(super::pods::not_found(pod, true)),
        }
    }

    async fn claims(&self, pod: &PodRef, status: &PodStatus) -> Result<Vec<Claim>, ClusterError> {
        let named = status.resource_claim_statuses.iter().flatten();
        let named = named.filter_map(|claim| claim.resource_claim_name.clone()).map(|name| (name, None));
        let extended = status.extended_resource_claim_status.iter();
        let extended = extended
            .map(|claim| (claim.resource_claim_name.clone(), Some(claim.request_mappings.clone().unwrap_or_default())));
        let mut claims = Vec::new();
        for (name, mappings) in named.chain(extended).take(MOST_CLAIMS) {
            let given = self.given(pod, &name).await?;
            claims.push(Claim { name, given, mappings });
        }
        Ok(claims)
    }

    async fn given(&self, pod: &PodRef, name: &str) -> Result<Vec<Given>, ClusterError> {
        // A name goes into a path.
        let name = ObjectName::new(name).map_err(|bad| refused(pod, name, bad.to_string()))?;
        let kind = resource("ResourceClaim", "resourceclaims");
        let api = Api::namespaced_with(self.server.client.clone(), pod.namespace.as_str(), &kind);
        let object: Result<ClaimObject, _> = self.read(|| api.get(name.as_str())).await;
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
        let api: Api<SliceObject> =
            Api::all_with(self.server.client.clone(), &resource("ResourceSlice", "resourceslices"));
        let mut page =
            ListParams::default().fields(&format!("spec.nodeName={node},spec.driver={driver}")).limit(PAGE.0);
        let mut slices = Vec::new();
        for _ in 0..PAGE.1 {
            let read: Result<ObjectList<SliceObject>, _> = self.read(|| api.list(&page)).await;
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
    async fn read<T, F: Future<Output = ::kube::Result<T>>>(&self, call: impl Fn() -> F) -> Result<T, CallError> {
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let error = match self.server.call(left, call()).await {
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
    ClusterError::Claim { pod: pod.clone(), claim: quote(claim), reason }
}

/// The devices of one claim that are a network's business.
fn devices_of(claim: &Claim, slices: &[SliceSpec]) -> Result<Vec<(String, DeviceId)>, String> {
    let mut devices = Vec::new();
    for given in &claim.given {
        let Some(device) = find(given, slices) else {
            let (driver, pool, name) = (quote(&given.driver), quote(&given.pool), quote(&given.device));
            return Err(format!("no ResourceSlice of this node has device {name} of pool {pool} and driver {driver}"));
        };
        let mapped = mapping_of(claim, given)?;
        let (Some(resource), Some(id)) = (device.text(RESOURCE_NAME), device.text(DEVICE_ID)) else {
            let name = quote(&given.device);
            tracing::warn!(
                "claim {}: device {name} lacks {DEVICE_ID} or {RESOURCE_NAME}: no network gets it",
                claim.name
            );
            continue;
        };
        if let Some(mapped) = mapped.filter(|mapped| *mapped != resource) {
            return Err(format!(
                "device {} is of resource {}, and the pod's request {} is for {}",
                quote(&given.device),
                quote(resource),
                quote(&given.request),
                quote(mapped)
            ));
        }
        let id = DeviceId::new(id).map_err(|bad| format!("attribute {DEVICE_ID}: {bad}"))?;
        devices.push((resource.to_owned(), id));
    }
    Ok(devices)
}

/// The extended resource that the request stands for; `None` for a claim that is not about extended resources.
fn mapping_of<'a>(claim: &'a Claim, given: &Given) -> Result<Option<&'a str>, String> {
    let Some(mappings) = &claim.mappings else { return Ok(None) };
    // A request of alternatives is named `request/alternative` in the result.
    let request = given.request.split('/').next().unwrap_or_default();
    let found =
        mappings.iter().find(|mapping| mapping.request_name == request || mapping.request_name == given.request);
    let missing = || format!("request {} is for none of the pod's extended resources", quote(&given.request));
    found.map(|mapping| Some(mapping.resource_name.as_str())).ok_or_else(missing)
}

/// The device in the newest generation of its pool.
fn find<'a>(given: &Given, slices: &'a [SliceSpec]) -> Option<&'a Device> {
    let of_pool = || slices.iter().filter(|slice| slice.driver == given.driver && slice.pool.name == given.pool);
    let newest = of_pool().map(|slice| slice.pool.generation).max()?;
    let current = of_pool().filter(|slice| slice.pool.generation == newest);
    current.flat_map(|slice| slice.devices.iter().flatten()).find(|device| device.name == given.device)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(driver: &str, pool: &str, generation: i64, devices: &[(&str, &Value)]) -> SliceSpec {
        let devices: Vec<_> =
            devices.iter().map(|(name, attributes)| json!({"name": name, "attributes": attributes})).collect();
        let spec = json!({"driver": driver, "nodeName": "n", "pool": {"name": pool, "generation": generation, "resourceSliceCount": 1},
            "devices": devices});
        serde_json::from_value(spec).unwrap()
    }

    fn vf(id: &str, resource: &str) -> Value {
        json!({DEVICE_ID: {"string": id}, RESOURCE_NAME: {"string": resource}, "numa": {"int": 1}, "ok": {"bool": true}})
    }

    fn claim(given: &[(&str, &str)], mappings: Option<&[(&str, &str)]>) -> Claim {
        let given = given.iter().map(|(request, device)| Given {
            request: (*request).into(),
            driver: "d".into(),
            pool: "p".into(),
            device: (*device).into(),
        });
        let mapping = |(request, resource): &(&str, &str)| Mapping {
            request_name: (*request).into(),
            resource_name: (*resource).into(),
        };
        let mappings = mappings.map(|all| all.iter().map(mapping).collect());
        Claim { name: "c".into(), given: given.collect(), mappings }
    }

    fn shown(claim: &Claim, slices: &[SliceSpec]) -> Result<String, String> {
        let devices = devices_of(claim, slices)?;
        Ok(devices.iter().map(|(resource, id)| format!("{resource}={id}")).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn devices_are_found_by_driver_pool_and_newest_generation() {
        let (old, new, other) = (vf("old", "v/f"), vf("new", "v/f"), vf("other", "v/f"));
        let slices = [
            slice("d", "p", 1, &[("a", &old), ("gone", &old)]),
            slice("d", "p", 2, &[("b", &other)]),
            slice("d", "p", 2, &[("a", &new)]),
            slice("d", "q", 9, &[("a", &other)]),
            slice("e", "p", 9, &[("a", &other)]),
        ];
        assert_eq!(shown(&claim(&[("r", "a"), ("r", "b")], None), &slices).unwrap(), "v/f=new v/f=other");
        let error = shown(&claim(&[("r", "gone")], None), &slices).unwrap_err();
        assert!(error.contains("device \"gone\" of pool \"p\" and driver \"d\""), "{error}");
    }

    #[test]
    fn devices_of_no_network_are_passed_over() {
        let (vf, no_id, no_resource, number) = (
            vf("x", "v/f"),
            json!({RESOURCE_NAME: {"string": "v/f"}}),
            json!({DEVICE_ID: {"string": "x"}}),
            json!({DEVICE_ID: {"int": 5}, RESOURCE_NAME: {"string": "v/f"}}),
        );
        let slices = [slice(
            "d",
            "p",
            1,
            &[("a", &vf), ("b", &no_id), ("c", &no_resource), ("d", &number), ("e", &Value::Null)],
        )];
        let all = claim(&[("r", "b"), ("r", "a"), ("r", "c"), ("r", "d"), ("r", "e")], None);
        assert_eq!(shown(&all, &slices).unwrap(), "v/f=x");
        let bad = self::vf("white space", "v/f");
        assert!(shown(&claim(&[("r", "a")], None), &[slice("d", "p", 1, &[("a", &bad)])]).is_err());
    }

    #[test]
    fn extended_resources_are_held_to_their_mapping() {
        let (a, b) = (vf("x", "v/f"), vf("y", "v/g"));
        let slices = [slice("d", "p", 1, &[("a", &a), ("b", &b)])];
        let both: &[(&str, &str)] = &[("r0", "v/f"), ("r1", "v/g")];
        assert_eq!(shown(&claim(&[("r0", "a"), ("r1", "b")], Some(both)), &slices).unwrap(), "v/f=x v/g=y");
        assert_eq!(shown(&claim(&[("r0/first", "a")], Some(both)), &slices).unwrap(), "v/f=x");
        let error = shown(&claim(&[("r0", "b")], Some(both)), &slices).unwrap_err();
        assert!(error.contains("\"v/g\"") && error.contains("\"v/f\""), "{error}");
        let error = shown(&claim(&[("r2", "a")], Some(both)), &slices).unwrap_err();
        assert!(error.contains("\"r2\""), "{error}");
    }
}
