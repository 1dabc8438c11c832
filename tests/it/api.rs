//! What the agent asks of the Kubernetes API, and what it writes there: as little as possible, and exactly right.

use std::time::{Duration, Instant};

use lab::apiserver::{ApiServer, EVENTS, PODS, Seen};
use lab::netns::print_mac;
use lab::pod::NETWORK_STATUS;
use lab::world::Builder;
use lab::{NodeState, Pod, World, wait_until};
use serde_json::{Value, json};

/// A world that lives from an API server with the network `default/lan`.
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) api: ApiServer,
}

impl Cluster {
    pub(crate) fn new(name: &str) -> Self {
        Self::over(Builder::new(name))
    }

    /// The same with a changed configuration.
    pub(crate) fn over(builder: Builder) -> Self {
        let api = builder.lab.node.enter(ApiServer::start).expect("start the API-server double");
        api.put_network("default", "lan", &builder.lab.macvlan("bridge").to_string());
        let kubeconfig = api.write_kubeconfig(&builder.lab.dir).expect("write a kubeconfig");
        let builder = builder.configure(|config, _| {
            config.as_object_mut().expect("an object").remove("objects");
            config["kubeconfig"] = json!(kubeconfig);
        });
        let cluster = Self { world: builder.start(), api };
        let listed = || cluster.api.count_watches("network-attachment-definitions") > 0;
        assert!(wait_until(Duration::from_secs(5), listed), "the agent does not watch networks");
        cluster
    }

    /// A pod that the API server knows.
    pub(crate) fn pod(&self, name: &str) -> Pod {
        let pod = self.world.lab.pod(name).networks("lan");
        self.api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
        pod
    }

    pub(crate) fn status(&self, pod: &Pod) -> Option<String> {
        let object = self.api.get(PODS, &pod.namespace, &pod.name)?;
        object["metadata"]["annotations"][NETWORK_STATUS].as_str().map(str::to_owned)
    }

    pub(crate) fn wait_status(&self, pod: &Pod) -> String {
        let written = lab::wait_for(Duration::from_secs(12), || self.status(pod));
        written
            .unwrap_or_else(|| panic!("no network-status for {} after 12 s; requests: {:#?}", pod.name, self.said(0)))
    }

    /// Requests after the first `known`, as `METHOD path`, watches apart.
    pub(crate) fn said(&self, known: usize) -> Vec<String> {
        let all = self.api.seen();
        all.iter().skip(known).filter(|seen| !seen.is_watch()).map(|s| format!("{} {}", s.method, s.path)).collect()
    }
}

#[test]
fn with_annotations_from_the_runtime_an_add_reads_nothing() {
    needs_programs!();
    let cluster = Cluster::new("api-none");
    let pod = cluster.pod("cam");
    let known = cluster.api.seen().len();
    cluster.world.add(&pod).expect_ok();
    cluster.wait_status(&pod);
    let events = || cluster.api.all(EVENTS).len() >= 2;
    assert!(wait_until(Duration::from_secs(5), events), "events: {:#?}", cluster.api.all(EVENTS));
    let said = cluster.said(known);
    let reads: Vec<_> = said.iter().filter(|line| line.starts_with("GET")).collect();
    assert!(reads.is_empty(), "the ADD read: {reads:?}");
    let writes = |what: &str| said.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!((writes("PATCH"), writes("PUT"), writes("POST")), (1, 0, 2), "one status write, two events: {said:?}");

    let known = cluster.api.seen().len();
    cluster.world.check(&pod).expect_ok();
    cluster.world.del(&pod).expect_ok();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(cluster.said(known), [""; 0], "requests of CHECK and DEL");
}

#[test]
fn without_them_at_most_the_watch_is_asked() {
    needs_programs!();
    let mut cluster = Cluster::new("api-watch");
    cluster.world.runtime.gives_annotations = false;
    // The first pod makes the agent start its watch; from then on pods are known before they are asked for.
    let first = cluster.pod("first");
    cluster.world.add(&first).expect_ok();
    assert!(first.netns.link("net1").is_some(), "the annotation from the API was not honoured");
    let watching = || cluster.api.count_watches("/pods") > 0;
    assert!(wait_until(Duration::from_secs(5), watching), "no watch of pods: {:?}", cluster.said(0));
    for name in ["a", "b", "c"] {
        let pod = cluster.pod(name);
        std::thread::sleep(Duration::from_millis(200));
        let known = cluster.api.seen().len();
        cluster.world.add(&pod).expect_ok();
        let gets: Vec<_> = cluster.said(known).into_iter().filter(|line| line.starts_with("GET")).collect();
        assert!(gets.is_empty(), "{name}: the watch knew the pod, and yet: {gets:?}");
        assert!(pod.netns.link("net1").is_some());
        cluster.world.del(&pod).expect_ok();
    }
    cluster.world.del(&first).expect_ok();
}

#[test]
fn a_lagging_watch_costs_one_get() {
    needs_programs!();
    let mut cluster = Cluster::new("api-lag");
    cluster.world.runtime.gives_annotations = false;
    let first = cluster.pod("first");
    cluster.world.add(&first).expect_ok();
    cluster.api.stall_watches(true);
    let pod = cluster.pod("late");
    let known = cluster.api.seen().len();
    cluster.world.add(&pod).expect_ok();
    assert!(pod.netns.link("net1").is_some());
    let gets =
        cluster.said(known).into_iter().filter(|line| line == "GET /api/v1/namespaces/default/pods/late").count();
    assert_eq!(gets, 1, "single GETs: {:?}", cluster.said(known));
}

#[test]
fn network_status_is_compatible_byte_for_byte() {
    needs_programs!();
    let cluster = Cluster::new("api-status");
    let pod = cluster.pod("cam");
    cluster.world.add(&pod).expect_ok();
    let status = cluster.wait_status(&pod);
    let (mac0, mac1) = (print_mac(pod.netns.mac("eth0")), print_mac(pod.netns.mac("net1")));
    let bare = |ifname: &str, n: usize| pod.netns.addresses(ifname)[n].split('/').next().unwrap_or_default().to_owned();
    let wanted = format!(
        r#"[{{
    "name": "lab-default",
    "interface": "eth0",
    "ips": [
        "{}"
    ],
    "mac": "{mac0}",
    "default": true,
    "dns": {{}},
    "gateway": [
        "10.77.0.1"
    ]
}},{{
    "name": "default/lan",
    "interface": "net1",
    "ips": [
        "{}",
        "{}"
    ],
    "mac": "{mac1}",
    "dns": {{}}
}}]"#,
        bare("eth0", 0),
        bare("net1", 0),
        bare("net1", 1)
    );
    assert_eq!(status, wanted);
}

#[test]
fn added_interfaces_are_told_as_events() {
    needs_programs!();
    let cluster = Cluster::new("api-events");
    let pod = cluster.pod("cam");
    cluster.world.add(&pod).expect_ok();
    assert!(wait_until(Duration::from_secs(5), || cluster.api.all(EVENTS).len() >= 2));
    let events = cluster.api.all(EVENTS);
    let message = |event: &Value| event["message"].as_str().or(event["note"].as_str()).unwrap_or_default().to_owned();
    let mut told: Vec<_> = events.iter().map(message).collect();
    told.sort();
    let of = |ifname: &str| pod.netns.addresses(ifname).join(" ");
    let wanted =
        [format!("Add eth0 [{}] from lab-default", of("eth0")), format!("Add net1 [{}] from default/lan", of("net1"))];
    assert_eq!(told, wanted);
    for event in &events {
        assert_eq!((&event["reason"], &event["type"]), (&json!("AddedInterface"), &json!("Normal")), "{event:#}");
    }
}

#[test]
fn a_dead_api_server_keeps_no_pod_waiting_and_gets_its_status_later() {
    needs_programs!();
    let mut cluster = Cluster::new("api-down");
    let baseline = cluster.world.baseline();
    // Even a restarted agent knows its networks, from disk.
    cluster.api.set_down(true);
    cluster.world.agent.kill9();
    cluster.world.agent.start_again(&cluster.world.lab);
    let pod = cluster.world.lab.pod("cam").networks("lan");
    let began = Instant::now();
    cluster.world.add(&pod).expect_ok();
    assert!(began.elapsed() < Duration::from_secs(3), "ADD took {:?} without an API server", began.elapsed());
    assert!(pod.netns.link("net1").is_some());
    cluster.api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
    cluster.api.set_down(false);
    cluster.wait_status(&pod);
    cluster.api.set_down(true);
    let began = Instant::now();
    cluster.world.del(&pod).expect_ok();
    assert!(began.elapsed() < Duration::from_secs(3), "DEL took {:?} without an API server", began.elapsed());
    baseline.assert_restored(&cluster.world.lab, &[], "DEL with the API server down");
}

#[test]
fn a_slow_api_server_slows_no_add() {
    needs_programs!();
    let cluster = Cluster::new("api-slow");
    let pod = cluster.pod("cam");
    cluster.api.set_latency(Duration::from_secs(3));
    let began = Instant::now();
    cluster.world.add(&pod).expect_ok();
    assert!(began.elapsed() < Duration::from_secs(2), "ADD took {:?}", began.elapsed());
    let before = NodeState::capture(&cluster.world.lab, &[&pod]);
    assert!(!before.facts("link net1").is_empty());
}

#[test]
fn refused_status_writes_are_tried_again() {
    needs_programs!();
    let cluster = Cluster::new("api-retry");
    for (n, status) in [409, 500, 429].into_iter().enumerate() {
        let pod = cluster.pod(&format!("cam{n}"));
        cluster.api.fail("PATCH", "/status", 1, status);
        cluster.world.add(&pod).expect_ok();
        cluster.wait_status(&pod);
        cluster.world.del(&pod).expect_ok();
    }
}

#[test]
fn a_pod_recreated_under_the_same_name_is_never_written_to() {
    needs_programs!();
    let cluster = Cluster::new("api-uid");
    let pod = cluster.pod("cam");
    let successor = "11111111-2222-4333-8444-555555555555";
    cluster.api.delete(PODS, "default", "cam");
    cluster.api.put_pod("default", "cam", successor, "lab-node", &json!({}));
    let known = cluster.api.seen().len();
    cluster.world.add(&pod).expect_ok();
    let tried = |seen: &Seen| seen.method == "PATCH" && seen.path.contains("/pods/cam");
    assert!(wait_until(Duration::from_secs(5), || cluster.api.seen().iter().skip(known).any(tried)), "never tried");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cluster.status(&pod), None, "the successor got its predecessor's status");
}

#[test]
fn a_pod_that_is_gone_is_a_success_of_nothing_in_every_version() {
    needs_programs!();
    let mut cluster = Cluster::new("api-gone");
    cluster.world.runtime.gives_annotations = false;
    for version in ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        version.clone_into(&mut cluster.world.runtime.version);
        let pod = cluster.world.lab.pod("ghost").networks("lan");
        let result = cluster.world.add(&pod).result();
        assert_eq!((&result["cniVersion"], &result["interfaces"][0]["name"]), (&json!(version), &json!("eth0")));
        assert_eq!(pod.netns.link_names(), [""; 0], "{version}");
        cluster.world.del(&pod).expect_ok();
    }
}
