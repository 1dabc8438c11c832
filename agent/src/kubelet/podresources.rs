//! What the kubelet's podresources service answers about one pod: `Get`, and `List` where there is no `Get`.
//!
//! One connection for each look-up. Never asks for what is allocatable, and keeps no answer.

use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;

use super::grpc::{CallError, Channel};
use super::{Said, note};
use crate::names::PodRef;

/// Alpha in Kubernetes 1.27, on since 1.34.
const GET: &str = "/v1.PodResourcesLister/Get";
const LIST: &str = "/v1.PodResourcesLister/List";
/// Between two calls when the kubelet says that there are too many (it takes a hundred a second).
const PAUSE: Duration = Duration::from_millis(100);

/// The messages of `podresources/v1/api.proto`, without the fields nobody here reads.
#[derive(Clone, PartialEq, Message)]
struct GetRequest {
    #[prost(string, tag = "1")]
    pod_name: String,
    #[prost(string, tag = "2")]
    pod_namespace: String,
}

#[derive(Clone, PartialEq, Message)]
struct GetResponse {
    #[prost(message, optional, tag = "1")]
    pod_resources: Option<PodResources>,
}

#[derive(Clone, PartialEq, Message)]
struct ListRequest {}

#[derive(Clone, PartialEq, Message)]
struct ListResponse {
    #[prost(message, repeated, tag = "1")]
    pod_resources: Vec<PodResources>,
}

#[derive(Clone, PartialEq, Message)]
struct PodResources {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(message, repeated, tag = "3")]
    containers: Vec<Container>,
}

#[derive(Clone, PartialEq, Message)]
struct Container {
    #[prost(message, repeated, tag = "2")]
    devices: Vec<Devices>,
    #[prost(message, repeated, tag = "5")]
    dynamic_resources: Vec<DynamicResource>,
}

#[derive(Clone, PartialEq, Message)]
struct Devices {
    #[prost(string, tag = "1")]
    resource_name: String,
    #[prost(string, repeated, tag = "2")]
    device_ids: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct DynamicResource {
    #[prost(string, tag = "2")]
    claim_name: String,
}

/// Asks about `pod` until `deadline`.
///
/// # Errors
/// A sentence that says what came instead of an answer.
pub(super) async fn ask(socket: &Path, pod: &PodRef, deadline: Instant) -> Result<Said, String> {
    let patience = deadline.saturating_duration_since(Instant::now());
    let asked = async {
        let mut channel = Channel::open(socket).await?;
        match get(&mut channel, pod, deadline).await {
            // A kubelet without the method, or with it switched off, says so with various codes, as for a pod it does
            // not know; the list settles which.
            Err(CallError::Status(..)) => list(&mut channel, pod, deadline).await,
            other => other,
        }
    };
    let said = tokio::time::timeout_at(deadline.into(), asked).await;
    match said {
        Ok(said) => said.map_err(|error| error.text()),
        Err(_) => Err(format!("no answer within {} ms", patience.as_millis())),
    }
}

async fn get(channel: &mut Channel, pod: &PodRef, deadline: Instant) -> Result<Said, CallError> {
    let question = GetRequest { pod_name: pod.name.to_string(), pod_namespace: pod.namespace.to_string() };
    let answer: GetResponse = call(channel, GET, &question, deadline).await?;
    Ok(summed_up(&answer.pod_resources.map(|of| of.containers).unwrap_or_default()))
}

async fn list(channel: &mut Channel, pod: &PodRef, deadline: Instant) -> Result<Said, CallError> {
    let answer: ListResponse = call(channel, LIST, &ListRequest {}, deadline).await?;
    let is_it = |of: &PodResources| of.name == pod.name.as_str() && of.namespace == pod.namespace.as_str();
    let containers: Vec<_> = answer.pod_resources.into_iter().filter(is_it).flat_map(|of| of.containers).collect();
    Ok(summed_up(&containers))
}

/// One call, again as long as the kubelet only says that there are too many.
async fn call<Q: Message, A: Message + Default>(
    channel: &mut Channel,
    method: &'static str,
    question: &Q,
    deadline: Instant,
) -> Result<A, CallError> {
    loop {
        match channel.call(method, question).await {
            Err(CallError::Status(CallError::EXHAUSTED, _)) if Instant::now() + PAUSE * 2 < deadline => {
                tokio::time::sleep(PAUSE).await;
            }
            other => return other,
        }
    }
}

fn summed_up(containers: &[Container]) -> Said {
    let mut said = Said::default();
    for container in containers {
        said.has_claims |= !container.dynamic_resources.is_empty();
        for devices in &container.devices {
            for id in &devices.device_ids {
                note(&mut said.devices, &devices.resource_name, id);
            }
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_containers_have_counts_each_device_once() {
        let devices = |resource: &str, ids: &[&str]| Devices {
            resource_name: resource.into(),
            device_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        };
        let container = |devices, claims: &[&str]| Container {
            devices,
            dynamic_resources: claims.iter().map(|name| DynamicResource { claim_name: (*name).into() }).collect(),
        };
        let containers = [
            container(vec![devices("v/f", &["b", "a"]), devices("v/g", &["x"])], &[]),
            // The same device again, as the kubelet lists one that is near two NUMA nodes.
            container(vec![devices("v/f", &["b"]), devices("", &["y"]), devices("v/f", &["white space", ""])], &["c"]),
        ];
        let said = summed_up(&containers);
        let shown: Vec<String> =
            said.devices.iter().map(|(resource, ids)| format!("{resource} {}", ids.len())).collect();
        assert_eq!((shown, said.has_claims), (vec!["v/f 2".to_owned(), "v/g 1".to_owned()], true));
        assert_eq!(summed_up(&[]), Said::default());
    }

    /// Bytes as Go's protobuf writes them, fields that are not ours among them.
    #[test]
    fn the_wire_format_is_the_kubelets() {
        let field = |number: u8, value: &[u8]| [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat();
        let topology = field(3, &field(1, &[8, 1]));
        let device = [field(1, b"v/f"), field(2, b"b"), field(2, b"a"), topology].concat();
        let claim = field(5, &[field(2, b"claim"), field(3, b"x")].concat());
        let container = [field(1, b"app"), field(2, &device), field(3, &[1, 2]), claim].concat();
        let pod = [field(1, b"cam"), field(2, b"home"), field(3, &container)].concat();
        let answer = GetResponse::decode(field(1, &pod).as_slice()).unwrap();
        let found = answer.pod_resources.as_ref().unwrap();
        assert_eq!((found.name.as_str(), found.namespace.as_str()), ("cam", "home"));
        let said = summed_up(&found.containers);
        assert_eq!((said.devices["v/f"].len(), said.has_claims), (2, true));
        let question = GetRequest { pod_name: "cam".into(), pod_namespace: "home".into() };
        assert_eq!(question.encode_to_vec(), [field(1, b"cam"), field(2, b"home")].concat());
    }
}
