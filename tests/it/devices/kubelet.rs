//! What a kubelet tells about the devices of its pods: a double of its podresources service, and of its checkpoint file.
//!
//! It speaks through another implementation of gRPC than the agent, has messages of its own with every field of the real
//! ones, and answers as the real one does: `Get` may be missing or switched off, and too many calls are refused.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::{Lab, Pod};
use prost::Message;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tonic::server::{Grpc, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

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
    containers: Vec<ContainerResources>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerResources {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    devices: Vec<ContainerDevices>,
    #[prost(int64, repeated, tag = "3")]
    cpu_ids: Vec<i64>,
    #[prost(message, repeated, tag = "4")]
    memory: Vec<ContainerMemory>,
    #[prost(message, repeated, tag = "5")]
    dynamic_resources: Vec<DynamicResource>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerDevices {
    #[prost(string, tag = "1")]
    resource_name: String,
    #[prost(string, repeated, tag = "2")]
    device_ids: Vec<String>,
    #[prost(message, optional, tag = "3")]
    topology: Option<TopologyInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMemory {
    #[prost(string, tag = "1")]
    memory_type: String,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(message, optional, tag = "3")]
    topology: Option<TopologyInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct TopologyInfo {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<NumaNode>,
}

#[derive(Clone, PartialEq, Message)]
struct NumaNode {
    #[prost(int64, tag = "1")]
    id: i64,
}

#[derive(Clone, PartialEq, Message)]
struct DynamicResource {
    #[prost(string, tag = "2")]
    claim_name: String,
    #[prost(string, tag = "3")]
    claim_namespace: String,
}

/// What becomes of `Get`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Get {
    /// It answers; a pod that is not there is an error of code `Unknown`, as the kubelet's Go code makes it.
    Answers,
    /// The method is older than the kubelet.
    Missing,
    /// The feature gate is off.
    SwitchedOff,
}

struct State {
    pods: Vec<PodResources>,
    get: Get,
    latency: Duration,
    /// Calls that are refused because there were too many before.
    too_many: usize,
    calls: Vec<&'static str>,
}

/// A kubelet's device side; ends when dropped.
pub(crate) struct Kubelet {
    state: Arc<Mutex<State>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Where the kubelet of a lab's node lives: what the lab's configuration says.
pub(super) fn folder(lab: &Lab) -> PathBuf {
    lab.dir.join("kubelet")
}

/// The path of the podresources socket, its folder made.
pub(super) fn socket(lab: &Lab) -> PathBuf {
    let folder = folder(lab).join("pod-resources");
    fs::create_dir_all(&folder).expect("make the folder of the kubelet's socket");
    folder.join("kubelet.sock")
}

impl Kubelet {
    /// Serves on the node of `lab`, with a busy neighbour on it.
    pub(crate) fn start(lab: &Lab) -> Self {
        let neighbour = resources("kube-system", "neighbour", "vendor.com/vf", &["0000:ff:00.0"]);
        let state =
            State { pods: vec![neighbour], get: Get::Answers, latency: Duration::ZERO, too_many: 0, calls: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (end, ended) = oneshot::channel();
        let (socket, shared) = (socket(lab), Arc::clone(&state));
        let (bound, is_bound) = std::sync::mpsc::channel();
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = UnixListener::bind(&socket).expect("bind the kubelet's socket");
                bound.send(()).expect("somebody waits");
                tokio::select! {
                    () = accept(listener, shared) => {},
                    _ = ended => {},
                }
            });
        };
        let thread = std::thread::Builder::new().name("kubelet".into()).spawn(run).expect("start the double");
        is_bound.recv_timeout(Duration::from_secs(5)).expect("the double is up");
        Self { state, end: Some(end), thread: Some(thread) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `pod` these devices, beside those it has.
    pub(super) fn give(&self, pod: &Pod, resource: &str, ids: &[&str]) {
        self.lock().pods.push(resources(&pod.namespace, &pod.name, resource, ids));
    }

    /// Says that `pod` has a resource claim.
    pub(super) fn claim(&self, pod: &Pod, claim: &str) {
        let mut of_pod = resources(&pod.namespace, &pod.name, "", &[]);
        of_pod.containers[0].dynamic_resources =
            vec![DynamicResource { claim_name: claim.into(), claim_namespace: pod.namespace.clone() }];
        self.lock().pods.push(of_pod);
    }

    /// What becomes of `Get` from now on.
    pub(super) fn set_get(&self, get: Get) {
        self.lock().get = get;
    }

    /// Every answer takes this long from now on.
    pub(super) fn set_latency(&self, latency: Duration) {
        self.lock().latency = latency;
    }

    /// The next `calls` are refused, as there were too many.
    pub(super) fn refuse(&self, calls: usize) {
        self.lock().too_many = calls;
    }

    /// The calls so far.
    pub(super) fn calls(&self) -> Vec<&'static str> {
        self.lock().calls.clone()
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn resources(namespace: &str, name: &str, resource: &str, ids: &[&str]) -> PodResources {
    let near = |node| Some(TopologyInfo { nodes: vec![NumaNode { id: node }] });
    // A real kubelet lists devices by NUMA node, a resource more than once.
    let devices = |(node, id): (usize, &&str)| ContainerDevices {
        resource_name: resource.into(),
        device_ids: vec![(*id).to_owned()],
        topology: near(i64::try_from(node).unwrap_or(0)),
    };
    let container = ContainerResources {
        name: "app".into(),
        devices: ids.iter().enumerate().map(devices).collect(),
        cpu_ids: vec![1, 3],
        memory: vec![ContainerMemory { memory_type: "memory".into(), size: 1 << 30, topology: near(0) }],
        dynamic_resources: Vec::new(),
    };
    PodResources { name: name.into(), namespace: namespace.into(), containers: vec![container] }
}

async fn accept(listener: UnixListener, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, Arc::clone(&state)));
    }
}

async fn serve(stream: UnixStream, state: Arc<Mutex<State>>) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (service, path) = (Service(Arc::clone(&state)), request.uri().path().to_owned());
        async move {
            let answer = match path.as_str() {
                "/v1.PodResourcesLister/Get" if !service.is_missing() => {
                    Grpc::new(ProstCodec::default()).unary(GetService(service), request).await
                }
                "/v1.PodResourcesLister/List" => {
                    Grpc::new(ProstCodec::default()).unary(ListService(service), request).await
                }
                _ => Status::unimplemented("unknown method").into_http(),
            };
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    drop(
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

type Answering<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

struct GetService(Service);
struct ListService(Service);

impl Service {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_missing(&self) -> bool {
        let mut state = self.lock();
        if state.get == Get::Missing {
            state.calls.push("Get");
        }
        state.get == Get::Missing
    }

    /// What happens to every call: it is counted, may be one too many, and takes its time.
    async fn begin(&self, method: &'static str) -> Result<(), Status> {
        let latency = {
            let mut state = self.lock();
            state.calls.push(method);
            if state.too_many > 0 {
                state.too_many -= 1;
                return Err(Status::new(Code::ResourceExhausted, "rejected by rate limit"));
            }
            state.latency
        };
        tokio::time::sleep(latency).await;
        Ok(())
    }
}

impl UnaryService<GetRequest> for GetService {
    type Response = GetResponse;
    type Future = Answering<GetResponse>;

    fn call(&mut self, request: Request<GetRequest>) -> Self::Future {
        let (service, asked) = (self.0.clone(), request.into_inner());
        Box::pin(async move {
            service.begin("Get").await?;
            let state = service.lock();
            if state.get == Get::SwitchedOff {
                return Err(Status::new(Code::Unknown, "PodResources API Get method disabled"));
            }
            let is_it = |of: &&PodResources| of.name == asked.pod_name && of.namespace == asked.pod_namespace;
            let containers: Vec<_> =
                state.pods.iter().filter(is_it).flat_map(|of| of.containers.iter().cloned()).collect();
            if containers.is_empty() {
                let text = format!("pod {} in namespace {} not found", asked.pod_name, asked.pod_namespace);
                return Err(Status::new(Code::Unknown, text));
            }
            let found = PodResources { name: asked.pod_name, namespace: asked.pod_namespace, containers };
            Ok(Response::new(GetResponse { pod_resources: Some(found) }))
        })
    }
}

impl UnaryService<ListRequest> for ListService {
    type Response = ListResponse;
    type Future = Answering<ListResponse>;

    fn call(&mut self, _: Request<ListRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move {
            service.begin("List").await?;
            let pods = service.lock().pods.clone();
            Ok(Response::new(ListResponse { pod_resources: pods }))
        })
    }
}

/// Writes the device manager's checkpoint: for each pod UID its devices of `resource` by NUMA node, as JSON.
pub(super) fn write_checkpoint(lab: &Lab, resource: &str, pods: &[(&str, Value)]) {
    let folder = folder(lab).join("device-plugins");
    fs::create_dir_all(&folder).expect("make the folder of the checkpoint");
    let entry = |(uid, ids): &(&str, Value)| json!({"PodUID": uid, "ContainerName": "app", "ResourceName": resource, "DeviceIDs": ids, "AllocResp": "CgA="});
    let entries: Vec<_> = pods.iter().map(entry).collect();
    let text = json!({"Data": {"PodDeviceEntries": entries, "RegisteredDevices": {}}, "Checksum": 42}).to_string();
    fs::write(folder.join("kubelet_internal_checkpoint"), text).expect("write the checkpoint");
}
