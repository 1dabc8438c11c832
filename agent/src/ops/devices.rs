//! Which devices a pod was given: what the kubelet says, and the pod's resource claims where that is not all.
//!
//! Asked only for pods with a network that is tied to a resource, once in an ADD; which network gets which device is
//! `plan`'s business.

use crate::fault::CniError;
use crate::kubelet::{KubeletError, Said};
use crate::objects::Allocated;
use crate::ops::context::Context;
use crate::ops::invocation::Invocation;
use crate::ops::pods::Facts;
use crate::plan::Demand;

/// The devices of `pod`, if a network of its takes any. The API server is read only for a pod that the kubelet says has
/// claims, or that has too few devices without them.
///
/// # Errors
/// Code 11 when the kubelet or the API server could not be asked, 105 for a claim that cannot be used.
pub async fn allocated(
    context: &Context,
    call: &Invocation,
    pod: &Facts,
    demand: &Demand,
) -> Result<Allocated, CniError> {
    let Some(id) = pod.id.as_ref().filter(|_| !demand.is_empty()) else { return Ok(Allocated::new()) };
    let (said, absent) = match context.kubelet.devices(id, call.work_until).await {
        Ok(said) => (said, None),
        // A pod of DRA alone can do without it.
        Err(absent @ KubeletError::Absent { .. }) => (Said::default(), Some(absent)),
        Err(error) => return Err(error.into()),
    };
    let (mut devices, mut unlisted) = (said.devices, None);
    if said.has_claims || demand.lacks(&devices) {
        let claimed = context.cluster.claimed_devices(id, call.work_until).await?;
        for (resource, id) in claimed.devices {
            devices.entry(resource).or_default().insert(id);
        }
        unlisted = claimed.unlisted.into_iter().next();
    }
    match (unlisted, absent) {
        _ if !demand.lacks(&devices) => Ok(devices),
        (Some(unlisted), _) => Err(unlisted.into()),
        (None, Some(absent)) => Err(absent.into()),
        // Planning refuses it, by the network's name.
        (None, None) => Ok(devices),
    }
}
