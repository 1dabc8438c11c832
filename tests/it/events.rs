//! What a pod is told: warnings that say what to do, and a status that is there whatever happened to the agent.

use std::time::Duration;

use lab::apiserver::{EVENTS, PODS};
use lab::pod::NETWORK_STATUS;
use lab::world::Builder;
use lab::{Pod, plugins, wait_until};
use serde_json::{Value, json};

use crate::api::Cluster;

impl Cluster {
    /// A pod of namespace `default` with this networks annotation, known to the API server.
    fn pod_on(&self, name: &str, networks: &str) -> Pod {
        let pod = self.world.lab.pod(name).networks(networks);
        self.api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
        pod
    }

    /// The warnings about a pod as (reason, message, count).
    fn warnings(&self, pod: &Pod) -> Vec<(String, String, i64)> {
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let about = |event: &&Value| event["involvedObject"]["uid"] == pod.uid.as_str() && event["type"] == "Warning";
        let all = self.api.all(EVENTS);
        let told = all.iter().filter(about);
        told.map(|e| (text(e, "reason"), text(e, "message"), e["count"].as_i64().unwrap_or_default())).collect()
    }

    fn wait_warning(&self, pod: &Pod) -> (String, String) {
        assert!(wait_until(Duration::from_secs(8), || !self.warnings(pod).is_empty()), "no warning about {}", pod.name);
        let (reason, message, _) = self.warnings(pod).remove(0);
        (reason, message)
    }
}

#[test]
fn whatever_is_refused_or_fails_is_told_with_a_remedy() {
    needs_programs!();
    let builder = Builder::new("event-refused");
    let busy = json!({"ADD": {"error": {"code": 11, "msg": "the switch is busy"}}});
    let fails = plugins::conf(&builder.lab, "busy", &busy);
    let cluster = Cluster::over(builder);
    cluster.api.put_network("default", "busy", &fails.to_string());
    cluster.api.put_network("default", "broken", r#"{"plugins": []}"#);
    cluster.api.put_network("default", "elsewhere", r#"{"cniVersion":"1.0.0","type":"macvlan","master":"absent0"}"#);
    std::thread::sleep(Duration::from_millis(200));
    // (networks, reason, what is said, what to do)
    let table = [
        (
            "nowhere",
            "NoNetworkFound",
            "cannot find a network-attachment-definition (nowhere) in namespace (default): ",
            "create it",
        ),
        ("lan,,lan", "RefusedNetworks", "annotation k8s.v1.cni.cncf.io/networks: item 2: field \"name\"", "correct"),
        ("[null]", "RefusedNetworks", "item 1: \"null\" is not an object", "write a JSON"),
        (
            "broken",
            "RefusedNetworks",
            "network-attachment-definition default/broken: spec.config: ",
            "write one plugin",
        ),
        ("lan@eth0", "RefusedNetworks", "both ask for interface \"eth0\"", "give one of them another"),
        ("elsewhere", "RefusedNetworks", "master \"absent0\" of its macvlan plugin", "name a link"),
        ("busy", "FailedAttaching", "error adding container to network \"busy\"", ""),
    ];
    for (number, (networks, reason, said, remedy)) in table.into_iter().enumerate() {
        let pod = cluster.pod_on(&format!("cam{number}"), networks);
        assert!(!cluster.world.add(&pod).ok(), "{networks} was attached");
        let (told, message) = cluster.wait_warning(&pod);
        assert_eq!(told, reason, "{networks}: {message}");
        assert!(message.contains(said) && message.contains(remedy), "{networks}: {message}");
        assert_eq!(pod.netns.link_names(), [""; 0], "{networks} left something");
        cluster.world.del(&pod).expect_ok();
    }
}

#[test]
fn a_wish_that_no_plugin_can_hear_is_told_and_stops_nothing() {
    needs_programs!();
    let cluster = Cluster::new("event-deaf");
    let pod = cluster.pod_on("cam", r#"[{"name": "lan", "mac": "02:00:00:00:00:17", "nmae": 1, "colour": 2}]"#);
    cluster.world.add(&pod).expect_ok();
    assert!(pod.netns.link("net1").is_some());
    assert!(wait_until(Duration::from_secs(8), || cluster.warnings(&pod).len() == 2), "{:?}", cluster.warnings(&pod));
    let warnings = cluster.warnings(&pod);
    let message = |reason: &str| {
        let found = warnings.iter().find(|(told, ..)| told == reason);
        found.unwrap_or_else(|| panic!("no {reason}: {warnings:?}")).1.clone()
    };
    let undeclared = message("CapabilityNotDeclared");
    assert!(undeclared.contains("default/lan") && undeclared.contains("\"mac\""), "{undeclared}");
    let unknown = message("UnknownField");
    assert!(unknown.contains("\"nmae\", \"colour\"") && unknown.contains("default/lan"), "{unknown}");
}

#[test]
fn a_refusal_that_repeats_is_one_event_with_a_count() {
    needs_programs!();
    let cluster = Cluster::new("event-again");
    let pod = cluster.pod_on("cam", "nowhere");
    let refused = || assert!(!cluster.world.add(&pod).ok());
    refused();
    cluster.wait_warning(&pod);
    (0..3).for_each(|_| refused());
    std::thread::sleep(Duration::from_secs(21));
    refused();
    let counted = || cluster.warnings(&pod).iter().map(|(.., count)| *count).max() == Some(5);
    assert!(wait_until(Duration::from_secs(8), counted), "{:?}", cluster.warnings(&pod));
    assert_eq!(cluster.warnings(&pod).len(), 1, "{:?}", cluster.warnings(&pod));
}

#[test]
fn a_restarted_agent_writes_the_statuses_that_are_missing_and_no_other() {
    needs_programs!();
    let mut cluster = Cluster::new("status-again");
    let (lost, more, other) = (cluster.pod("lost"), cluster.pod("more"), cluster.pod("other"));
    for pod in [&lost, &more, &other] {
        cluster.world.add(pod).expect_ok();
    }
    let status = cluster.wait_status(&lost);
    let theirs = cluster.wait_status(&more);
    cluster.wait_status(&other);
    cluster.world.agent.kill9();
    // One lost its text, one got a further entry by somebody else, one is another pod of that name by now.
    cluster.api.put_pod(&lost.namespace, &lost.name, &lost.uid, "lab-node", &json!(lost.annotations));
    let longer = format!("{},{{\"name\": \"default/later\"}}]", theirs.trim_end_matches(']'));
    cluster.api.put_pod(&more.namespace, &more.name, &more.uid, "lab-node", &json!({NETWORK_STATUS: longer}));
    cluster.api.delete(PODS, &other.namespace, &other.name);
    cluster.api.put_pod(&other.namespace, &other.name, "another-uid", "lab-node", &json!({}));
    let known = cluster.api.seen().len();
    cluster.world.agent.start_again(&cluster.world.lab);
    assert_eq!(cluster.wait_status(&lost), status);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cluster.status(&more).as_deref(), Some(longer.as_str()));
    assert_eq!(cluster.status(&other), None);
    let said = cluster.said(known);
    let count = |what: &str| said.iter().filter(|line| line.starts_with(what)).count();
    assert_eq!((count("GET /api/v1/pods"), count("PATCH")), (1, 1), "one list and one write: {said:?}");
}
