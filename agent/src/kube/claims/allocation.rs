//! What the objects of dynamic resource allocation say, trimmed, and which devices follow from them for networks.
//!
//! (`resource.k8s.io/v1`.) Talks to nobody.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::fault::quote;
use crate::names::DeviceId;

/// Attributes by which a driver ties a device to a network (multi-network DRA integration).
const DEVICE_ID: &str = "k8s.cni.cncf.io/deviceID";
const RESOURCE_NAME: &str = "k8s.cni.cncf.io/resourceName";

/// A part of an object nobody here reads.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Nothing {}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) resource_claim_statuses: Option<Vec<PodClaim>>,
    pub(super) extended_resource_claim_status: Option<ExtendedClaim>,
}

/// A claim of the pod; without a name none was needed.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodClaim {
    pub(super) resource_claim_name: Option<String>,
}

/// The claim that was made for the extended resources a pod requests (KEP 5004).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExtendedClaim {
    pub(super) resource_claim_name: String,
    pub(super) request_mappings: Option<Vec<Mapping>>,
}

/// Which extended resource a request of the claim stands for.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mapping {
    resource_name: String,
    request_name: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ClaimStatus {
    pub(super) allocation: Option<Allocation>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Allocation {
    pub(super) devices: Option<Results>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Results {
    pub(super) results: Option<Vec<Given>>,
}

/// One device that was allocated.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Given {
    pub(super) request: String,
    pub(super) driver: String,
    pub(super) pool: String,
    pub(super) device: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct SliceSpec {
    driver: String,
    pool: Pool,
    devices: Option<Vec<Device>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Pool {
    name: String,
    /// Slices of an older generation are on their way out.
    #[serde(default)]
    generation: i64,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Device {
    name: String,
    attributes: Option<BTreeMap<String, Attribute>>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Attribute {
    string: Option<String>,
}

impl Device {
    fn text(&self, attribute: &str) -> Option<&str> {
        self.attributes.as_ref()?.get(attribute)?.string.as_deref().filter(|text| !text.is_empty())
    }
}

/// A claim with what it was given.
pub(super) struct Claim {
    pub(super) name: String,
    pub(super) given: Vec<Given>,
    /// For the claim of extended resources alone.
    pub(super) mappings: Option<Vec<Mapping>>,
}

/// What a claim comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The devices that are a network's business, each with its resource.
    pub(super) devices: Vec<(String, DeviceId)>,
    /// A sentence for each device that no slice of the node tells of: mostly something that is not on the node at all.
    pub(super) unlisted: Vec<String>,
}

/// What `claim` comes to, by what the drivers say in `slices`.
///
/// # Errors
/// A sentence that says what contradicts what.
pub(super) fn found(claim: &Claim, slices: &[SliceSpec]) -> Result<Found, String> {
    let mut found = Found::default();
    for given in &claim.given {
        let name = quote(&given.device);
        let Some(device) = find(given, slices) else {
            let (driver, pool) = (quote(&given.driver), quote(&given.pool));
            let text = format!("no ResourceSlice of this node has device {name} of pool {pool} and driver {driver}");
            tracing::warn!("claim {}: {text}", claim.name);
            found.unlisted.push(text);
            continue;
        };
        let (Some(resource), Some(id)) = (device.text(RESOURCE_NAME), device.text(DEVICE_ID)) else {
            tracing::warn!(
                "claim {}: device {name} lacks {DEVICE_ID} or {RESOURCE_NAME}: no network gets it",
                claim.name
            );
            continue;
        };
        if let Some(mapped) = mapping_of(claim, given)?.filter(|mapped| *mapped != resource) {
            return Err(format!(
                "device {name} is of resource {}, and the pod's request {} is for {}",
                quote(resource),
                quote(&given.request),
                quote(mapped)
            ));
        }
        let id = DeviceId::new(id).map_err(|bad| format!("attribute {DEVICE_ID}: {bad}"))?;
        found.devices.push((resource.to_owned(), id));
    }
    Ok(found)
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
        let found = found(claim, slices)?;
        assert_eq!(found.unlisted, [""; 0]);
        Ok(found.devices.iter().map(|(resource, id)| format!("{resource}={id}")).collect::<Vec<_>>().join(" "))
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
        let found = found(&claim(&[("r", "gone"), ("r", "b")], None), &slices).unwrap();
        assert_eq!(found.devices.len(), 1, "the others count all the same");
        assert!(found.unlisted[0].contains("device \"gone\" of pool \"p\" and driver \"d\""), "{found:?}");
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
