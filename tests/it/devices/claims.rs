//! Which devices come from a pod's resource claims (DRA), and what that costs the API server.

use lab::apiserver::{ApiServer, CLAIMS, PODS, SLICES};
use lab::world::Builder;
use lab::{Pod, World, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

use super::kubelet::Kubelet;
use super::{A, B, RESOURCE_NAME, VF, has, sriov, told};

const C: &str = "0000:03:02.3";

/// A node that lives from an API server with the network `default/vf`, tied to [`VF`].
struct Cluster {
    world: World,
    api: ApiServer,
    kubelet: Kubelet,
}

impl Cluster {
    fn new(name: &str) -> Self {
        let builder = Builder::new(name);
        let api = builder.lab.node.enter(ApiServer::start).expect("start the API-server double");
        let metadata = json!({"namespace": "default", "name": "vf", "annotations": {RESOURCE_NAME: VF}});
        let spec = json!({"config": sriov(&builder).to_string()});
        api.put(lab::apiserver::NETWORKS, json!({"metadata": metadata, "spec": spec}));
        let kubeconfig = api.write_kubeconfig(&builder.lab.dir).expect("write a kubeconfig");
        let world = builder
            .configure(|config, _| {
                config.as_object_mut().expect("an object").remove("objects");
                config["kubeconfig"] = json!(kubeconfig);
                config["requestTimeout"] = "6s".into();
            })
            .start();
        let kubelet = Kubelet::start(&world.lab);
        let listed = || api.count_watches("network-attachment-definitions") > 0;
        assert!(wait_until(Duration::from_secs(5), listed), "the agent does not watch networks");
        Self { world, api, kubelet }
    }

    /// A pod on `networks` whose status says `status`.
    fn pod(&self, name: &str, networks: &str, status: &Value) -> Pod {
        let pod = self.world.lab.pod(name).networks(networks);
        let mut object = pod.manifest();
        object["status"] = status.clone();
        self.api.put(PODS, object);
        pod
    }

    /// The claim `name`, which was given `devices` of pool `node` and driver `nic.example`, as (request, device).
    fn claim(&self, name: &str, devices: &[(&str, &str)]) {
        let results: Vec<_> = devices
            .iter()
            .map(|(request, device)| json!({"request": request, "driver": "nic.example", "pool": "node", "device": device}))
            .collect();
        let status = json!({"allocation": {"devices": {"results": results}}});
        self.api.put(CLAIMS, json!({"metadata": {"namespace": "default", "name": name}, "spec": {}, "status": status}));
    }

    /// A slice of `node` with these devices, as (name, attributes).
    fn slice(&self, name: &str, node: &str, driver: &str, devices: &[(&str, Value)]) {
        let devices: Vec<_> =
            devices.iter().map(|(name, attributes)| json!({"name": name, "attributes": attributes})).collect();
        let pool = json!({"name": "node", "generation": 1, "resourceSliceCount": 1});
        let spec = json!({"driver": driver, "nodeName": node, "pool": pool, "devices": devices});
        self.api.put(SLICES, json!({"metadata": {"name": name}, "spec": spec}));
    }

    /// Reads of the API server after the first `known` requests, watches apart.
    fn reads(&self, known: usize) -> Vec<String> {
        let all = self.api.seen();
        let new = all.iter().skip(known).filter(|seen| seen.method == "GET" && !seen.is_watch());
        new.map(|seen| seen.path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
    }
}

fn vf(id: &str) -> Value {
    json!({"k8s.cni.cncf.io/deviceID": {"string": id}, "k8s.cni.cncf.io/resourceName": {"string": VF}})
}

fn claims(names: &[&str]) -> Value {
    let all: Vec<_> = names.iter().map(|name| json!({"name": name, "resourceClaimName": name})).collect();
    json!({ "resourceClaimStatuses": all })
}

#[test]
fn claimed_devices_are_found_and_merged_with_the_kubelets() {
    needs_programs!();
    let cluster = Cluster::new("dra");
    let gpu = json!({"model": {"string": "x"}});
    cluster.slice("mine", "lab-node", "nic.example", &[("vf-a", vf(A)), ("vf-b", vf(B)), ("gpu", gpu)]);
    cluster.slice("other-node", "elsewhere", "nic.example", &[("vf-a", vf("0000:00:00.0"))]);
    cluster.slice("other-driver", "lab-node", "gpu.example", &[("vf-a", vf("0000:00:00.1"))]);
    // A device without the attributes, and one that is not on the node, are no network's business.
    cluster.claim("one", &[("r", "vf-b"), ("r", "gpu"), ("r", "in-the-fabric")]);
    cluster.claim("two", &[("r", "vf-a")]);
    let mut status = claims(&["one", "two"]);
    status["resourceClaimStatuses"].as_array_mut().expect("a list").push(json!({"name": "not-needed"}));
    let pod = cluster.pod("cam", "vf,vf", &status);
    let known = cluster.api.seen().len();
    cluster.world.add(&pod).expect_ok();
    assert_eq!(told(&cluster.world, "ADD"), [has("net1", A), has("net2", B)]);
    assert_eq!(cluster.reads(known), ["cam", "one", "two", "resourceslices"], "each thing is read once");

    // One from the kubelet, which also says that there is a claim; one from the claim.
    let mixed = cluster.pod("mixed", "vf,vf", &claims(&["two"]));
    cluster.kubelet.give(&mixed, VF, &[C]);
    cluster.kubelet.claim(&mixed, "two");
    cluster.world.add(&mixed).expect_ok();
    assert_eq!(told(&cluster.world, "ADD")[2..], [has("net1", A), has("net2", C)]);
    // Where the kubelet's would do, a claim's device counts all the same: all are sorted together.
    let either = cluster.pod("either", "vf", &claims(&["two"]));
    cluster.kubelet.give(&either, VF, &[C]);
    cluster.kubelet.claim(&either, "two");
    cluster.world.add(&either).expect_ok();
    assert_eq!(told(&cluster.world, "ADD")[4..], [has("net1", A)]);
    let known = cluster.api.seen().len();
    cluster.world.del(&mixed).expect_ok();
    assert_eq!(cluster.reads(known), [""; 0], "DEL reads nothing");
}

#[test]
fn pods_without_claims_read_nothing() {
    needs_programs!();
    let cluster = Cluster::new("dra-none");
    let pod = cluster.pod("cam", "vf", &json!({}));
    cluster.kubelet.give(&pod, VF, &[A]);
    let known = cluster.api.seen().len();
    cluster.world.add(&pod).expect_ok();
    assert_eq!(cluster.reads(known), [""; 0]);
    assert_eq!(told(&cluster.world, "ADD"), [has("net1", A)]);
}

#[test]
fn a_pod_of_claims_alone_needs_no_kubelet() {
    needs_programs!();
    let mut cluster = Cluster::new("dra-alone");
    std::fs::remove_file(super::kubelet::socket(&cluster.world.lab)).expect("remove the kubelet's socket");
    cluster.world.runtime.gives_annotations = false;
    cluster.slice("mine", "lab-node", "nic.example", &[("vf-a", vf(A))]);
    cluster.claim("one", &[("r", "vf-a")]);
    let pod = cluster.pod("cam", "vf", &claims(&["one"]));
    cluster.world.add(&pod).expect_ok();
    assert_eq!(told(&cluster.world, "ADD"), [has("net1", A)]);
}

#[test]
fn extended_resources_are_held_to_what_was_requested() {
    needs_programs!();
    let cluster = Cluster::new("dra-extended");
    cluster.slice("mine", "lab-node", "nic.example", &[("vf-a", vf(A))]);
    cluster.claim("made", &[("container-0-request-0", "vf-a")]);
    let status = |resource: &str| {
        let mapping = json!({"containerName": "app", "resourceName": resource, "requestName": "container-0-request-0"});
        json!({"extendedResourceClaimStatus": {"resourceClaimName": "made", "requestMappings": [mapping]}})
    };
    let pod = cluster.pod("cam", "vf", &status(VF));
    cluster.world.add(&pod).expect_ok();
    assert_eq!(told(&cluster.world, "ADD"), [has("net1", A)]);
    let odd = cluster.pod("odd", "vf", &status("vendor.com/other"));
    let text = cluster.world.add(&odd).expect_error(105);
    assert!(text.contains("\"made\"") && text.contains(VF) && text.contains("vendor.com/other"), "{text}");
}

#[test]
fn a_claim_that_tells_nothing_is_a_refusal_that_names_it() {
    needs_programs!();
    let cluster = Cluster::new("dra-refused");
    cluster.api.put(CLAIMS, json!({"metadata": {"namespace": "default", "name": "pending"}, "spec": {}, "status": {}}));
    cluster.claim("astray", &[("r", "nowhere")]);
    let table = [
        ("pending", "\"pending\"", "status.allocation"),
        ("absent", "\"absent\"", "resource.k8s.io/v1"),
        ("astray", "\"astray\"", "\"nowhere\""),
        ("../nodes", "\"../nodes\"", "not valid"),
    ];
    for (claim, name, says) in table {
        let pod = cluster.pod("cam", "vf", &claims(&[claim]));
        let text = cluster.world.add(&pod).expect_error(105);
        assert!(text.contains(name) && text.contains(says), "{claim}: {text}");
        assert_eq!(pod.netns.link_names(), [""; 0], "{claim}");
    }
    // No claims, and no devices: one look, and a refusal.
    let pod = cluster.pod("bare", "vf", &json!({}));
    let known = cluster.api.seen().len();
    let text = cluster.world.add(&pod).expect_error(105);
    assert!(text.contains("has none"), "{text}");
    assert_eq!(cluster.reads(known), ["bare"]);
}

#[test]
fn an_api_server_that_fails_is_asked_again_or_named() {
    needs_programs!();
    let cluster = Cluster::new("dra-faults");
    cluster.slice("mine", "lab-node", "nic.example", &[("vf-a", vf(A))]);
    cluster.claim("one", &[("r", "vf-a")]);
    let pod = cluster.pod("cam", "vf", &claims(&["one"]));
    cluster.api.fail("GET", "resourceclaims", 2, 500);
    cluster.api.fail("GET", "resourceslices", 1, 429);
    cluster.world.add(&pod).expect_ok();
    assert_eq!(told(&cluster.world, "ADD"), [has("net1", A)]);

    cluster.api.fail("GET", "resourceclaims", 1, 403);
    let denied = cluster.pod("denied", "vf", &claims(&["one"]));
    let text = cluster.world.add(&denied).expect_error(11);
    assert!(text.contains("\"one\"") && text.contains("403") && text.contains("role"), "{text}");
    cluster.api.set_down(true);
    let began = std::time::Instant::now();
    let text = cluster.world.add(&denied).expect_error(11);
    assert!(began.elapsed() < Duration::from_secs(9) && text.contains("denied"), "{:?}: {text}", began.elapsed());
}

#[test]
fn another_pod_of_the_same_name_lends_no_devices() {
    needs_programs!();
    let cluster = Cluster::new("dra-other");
    cluster.slice("mine", "lab-node", "nic.example", &[("vf-a", vf(A))]);
    cluster.claim("one", &[("r", "vf-a")]);
    let mut pod = cluster.pod("cam", "vf", &claims(&["one"]));
    pod.uid = "00000000-0000-4000-8000-000000000000".into();
    let text = cluster.world.add(&pod).expect_error(3);
    assert!(text.contains("default/cam"), "{text}");
    assert_eq!(told(&cluster.world, "ADD"), [""; 0]);
}
