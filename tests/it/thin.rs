//! Thin mode: the agent's program as a one-shot CNI plugin under the name `multus`, and no daemon anywhere.

use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use lab::apiserver::{ApiServer, EVENTS, PODS};
use lab::pod::NETWORK_STATUS;
use lab::world::Builder;
use lab::{Lab, NodeState, Pod, Runtime, agent, plugins, process, wait_until};
use multus_agent::records::{Records, State};
use serde_json::{Value, json};

/// A node whose runtime calls `multus` with this configuration; the default network is embedded.
fn thin(name: &str, more: &Value) -> (Lab, Runtime) {
    let lab = Lab::new(name);
    let runtime = runtime(&lab, more);
    (lab, runtime)
}

fn runtime(lab: &Lab, more: &Value) -> Runtime {
    let program = lab.dir.join("multus");
    symlink(agent::program("multus-agent"), &program).expect("install multus");
    let mut plugin = json!({
        "type": "multus", "cniDir": lab.cni_dir, "binDir": lab.bin_dir, "confDir": lab.conf_dir,
        "requestTimeout": "20s", "delegates": [lab.bridge()]
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        plugin[key] = value.clone();
    }
    let mut runtime = Runtime::new(lab);
    (runtime.program, runtime.plugin, runtime.gives_annotations) = (program, plugin, false);
    runtime
}

/// What the node is like after one pod came and went.
fn baseline(lab: &Lab, runtime: &Runtime) -> NodeState {
    let first = lab.pod("first");
    runtime.add(lab, &first).expect_ok();
    runtime.del(lab, &first).expect_ok();
    NodeState::capture(lab, &[])
}

fn records(lab: &Lab) -> Vec<String> {
    NodeState::capture(lab, &[]).facts(".record")
}

/// An API server with the network `default/lan` and a pod that selects it, twice.
fn cluster(lab: &Lab) -> (ApiServer, Value) {
    let api = lab.node.enter(ApiServer::start).expect("start the API-server double");
    api.put_network("default", "lan", &lab.macvlan("bridge").to_string());
    let kubeconfig = api.write_kubeconfig(&lab.dir).expect("write a kubeconfig");
    (api, json!({ "kubeconfig": kubeconfig }))
}

fn pod_of(api: &ApiServer, lab: &Lab, name: &str, networks: &str) -> Pod {
    let pod = lab.pod(name).networks(networks);
    api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
    pod
}

fn status(api: &ApiServer, pod: &Pod) -> Value {
    let object = api.get(PODS, &pod.namespace, &pod.name).expect("the pod");
    let text = object["metadata"]["annotations"][NETWORK_STATUS].as_str().unwrap_or("null").to_owned();
    serde_json::from_str(&text).expect("network-status is JSON")
}

#[test]
fn without_kubernetes_the_embedded_delegates_are_attached() {
    needs_programs!();
    let (lab, mut runtime) = thin("thin", &json!({}));
    let extra = {
        let mut lan = lab.macvlan("bridge");
        lan["name"] = "lan".into();
        lan
    };
    runtime.plugin["delegates"] = json!([lab.bridge(), extra]);
    let before = baseline(&lab, &runtime);
    for version in ["0.3.1", "1.0.0", "1.1.0"] {
        version.clone_into(&mut runtime.version);
        let pod = lab.pod("cam");
        let result = runtime.add(&lab, &pod).result();
        assert_eq!((&result["cniVersion"], &result["interfaces"][2]["name"]), (&json!(version), &json!("eth0")));
        assert_eq!(pod.netns.link_names(), ["eth0", "net1"]);
        assert_eq!(records(&lab).len(), 1);
        if version != "0.3.1" {
            runtime.check(&lab, &pod).expect_ok();
        }
        let again = runtime.call("ADD", Some(&pod)).run(&lab.node).expect_error(4);
        assert!(again.contains("attached already"), "{again}");
        runtime.del(&lab, &pod).expect_ok();
        runtime.del(&lab, &pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0]);
        before.assert_restored(&lab, &[], "ADD and DEL in thin mode");
    }
    runtime.status(&lab).expect_ok();
}

#[test]
fn with_a_kubeconfig_pods_and_networks_are_read_one_by_one() {
    needs_programs!();
    let lab = Lab::new("thin-api");
    let (api, more) = cluster(&lab);
    let runtime = runtime(&lab, &more);
    let pod = pod_of(&api, &lab, "cam", "lan,lan@data");
    runtime.add(&lab, &pod).expect_ok();
    assert_eq!(pod.netns.link_names(), ["eth0", "net1", "data"]);
    let names: Vec<_> = status(&api, &pod).as_array().unwrap().iter().map(|entry| entry["interface"].clone()).collect();
    assert_eq!(names, ["eth0", "net1", "data"], "network-status is there when the plugin ends");
    assert_eq!(api.all(EVENTS).len(), 3);
    let said: Vec<_> = api.seen().iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect();
    let reads: Vec<_> = said.iter().filter(|line| line.starts_with("GET")).map(String::as_str).collect();
    let network = "GET /apis/k8s.cni.cncf.io/v1/namespaces/default/network-attachment-definitions/lan";
    assert_eq!(reads, ["GET /api/v1/namespaces/default/pods/cam", network], "{said:?}");
    assert!(!api.seen().iter().any(lab::apiserver::Seen::is_watch), "nothing is watched");

    let known = api.seen().len();
    api.set_down(true);
    runtime.check(&lab, &pod).expect_ok();
    runtime.del(&lab, &pod).expect_ok();
    assert_eq!(api.seen().len(), known, "CHECK and DEL ask nobody");
    assert!(pod.netns.link_names().is_empty() && records(&lab).is_empty());
    assert!(plugins::allocations(&lab.ipam_dir).is_empty(), "{:?}", plugins::allocations(&lab.ipam_dir));
}

#[test]
fn a_slow_api_server_delays_and_does_not_fail() {
    needs_programs!();
    let lab = Lab::new("thin-slow");
    let (api, more) = cluster(&lab);
    let runtime = runtime(&lab, &more);
    let pod = pod_of(&api, &lab, "cam", "lan");
    api.set_latency(Duration::from_secs(1));
    api.fail("PATCH", "/status", 1, 500);
    runtime.add(&lab, &pod).expect_ok();
    assert_eq!(status(&api, &pod).as_array().map(Vec::len), Some(2), "written although it was slow and failed once");
    runtime.del(&lab, &pod).expect_ok();
}

#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    needs_programs!();
    let lab = Lab::new("thin-no");
    let (api, more) = cluster(&lab);
    let mut runtime = runtime(&lab, &more);
    let before = baseline(&lab, &runtime);
    let pod = pod_of(&api, &lab, "cam", "nonesuch");
    let said = runtime.add(&lab, &pod).expect_error(101);
    assert!(said.contains("(nonesuch)") && said.contains("(default)"), "{said}");
    let event = api.all(EVENTS).into_iter().find(|event| event["reason"] == "NoNetworkFound");
    assert!(event.is_some(), "{:#?}", api.all(EVENTS));

    // A pod that is gone is upstream's empty success; one of another UID is refused.
    let gone = lab.pod("gone");
    let result = runtime.add(&lab, &gone).result();
    assert_eq!(result["ips"][0]["address"], "0.0.0.0/0", "{result:#}");
    let pod = pod_of(&api, &lab, "cam", "lan");
    let mut other = lab.pod("cam");
    other.uid = "11111111-2222-4333-8444-555555555555".into();
    assert!(!runtime.add(&lab, &other).ok());

    api.set_down(true);
    let began = Instant::now();
    let short = runtime.call("ADD", Some(&pod)).conf(|conf| conf["requestTimeout"] = "2s".into());
    let said = short.run(&lab.node).error()["msg"].to_string();
    assert!(said.contains("pod") && began.elapsed() < Duration::from_secs(6), "{said} after {:?}", began.elapsed());
    for (change, code, words) in [
        (json!({"delegates": null}), 7, "clusterNetwork"),
        (json!({"delegates": [{"type": "multus"}]}), 7, "multus"),
        (json!({"kubeconfig": "/nonexistent"}), 0, "/nonexistent"),
        (json!({"cniVersion": "9.9.9"}), 1, "9.9.9"),
        (json!({"namespaceIsolation": "yes"}), 7, "namespaceIsolation"),
    ] {
        if change.get("delegates").is_some() {
            runtime.plugin.as_object_mut().unwrap().remove("kubeconfig");
        }
        let call = runtime.call("ADD", Some(&pod)).conf(|conf| {
            for (key, value) in change.as_object().unwrap() {
                conf[key] = value.clone();
            }
        });
        let error = call.run(&lab.node).error();
        assert!(code == 0 || error["code"] == code, "{change}: {error:#}");
        assert!(error.to_string().contains(words), "{change}: no {words:?} in {error:#}");
    }
    let call = runtime.call("ADD", Some(&pod));
    for (stdin, code) in [("", 6), ("[]", 7), ("{", 6)] {
        let garbage = lab::Call { stdin: stdin.into(), ..call.clone() };
        garbage.run(&lab.node).expect_error(code);
    }
    let unnamed = call.without("CNI_CONTAINERID").run(&lab.node).expect_error(4);
    assert!(unnamed.contains("CNI_CONTAINERID"), "{unnamed}");
    assert_eq!(pod.netns.link_names(), [""; 0]);
    before.assert_restored(&lab, &[], "what was refused");
}

#[test]
fn a_del_needs_no_more_than_where_the_records_are() {
    needs_programs!();
    let (lab, runtime) = thin("thin-del", &json!({}));
    let before = baseline(&lab, &runtime);
    for (key, value) in
        [("namespaceIsolation", json!("yes")), ("cniVersion", json!("9.9.9")), ("logFile", json!("/dev"))]
    {
        let pod = lab.pod("cam");
        runtime.add(&lab, &pod).expect_ok();
        runtime.call("DEL", Some(&pod)).conf(|conf| conf[key] = value).run(&lab.node).expect_ok();
        before.assert_restored(&lab, &[], key);
    }
}

#[test]
fn a_cluster_network_by_path_and_by_name_and_default_networks() {
    needs_programs!();
    let lab = Lab::new("thin-cluster");
    let (api, mut more) = cluster(&lab);
    let file = lab.conf_dir.join("10-default.conflist");
    std::fs::write(&file, lab.bridge().to_string()).unwrap();
    api.put_network("kube-system", "everyone", &lab.macvlan("private").to_string());
    more["defaultNetworks"] = json!(["everyone"]);
    for network in [json!(file), json!("lab-default")] {
        more["clusterNetwork"] = network;
        let _ = std::fs::remove_file(lab.dir.join("multus"));
        let runtime = runtime(&lab, &more);
        let pod = pod_of(&api, &lab, "cam", "lan");
        runtime.add(&lab, &pod).expect_ok();
        assert_eq!(pod.netns.link_names(), ["eth0", "net1", "net2"]);
        assert_eq!(status(&api, &pod)[1]["name"], "kube-system/everyone");
        let call = runtime.call("STATUS", None).conf(|conf| conf["cniVersion"] = "1.1.0".into());
        call.run(&lab.node).expect_ok();
        runtime.del(&lab, &pod).expect_ok();
    }
}

#[test]
fn the_readiness_file_is_waited_for() {
    needs_programs!();
    let (lab, mut runtime) = thin("thin-ready", &json!({}));
    let file = lab.dir.join("ready");
    runtime.plugin["readinessindicatorfile"] = json!(file);
    runtime.version = "1.1.0".into();
    let said = runtime.status(&lab).expect_error(50);
    assert!(said.contains("readinessindicatorfile"), "{said}");
    let pod = lab.pod("cam");
    let add = runtime.call("ADD", Some(&pod)).start(&lab.node);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(pod.netns.link_names(), [""; 0]);
    std::fs::write(&file, "").unwrap();
    let done = add.wait(Duration::from_secs(10));
    assert!(done.success(), "{}", done.out());
    runtime.status(&lab).expect_ok();
    std::fs::remove_file(&file).unwrap();
    runtime.del(&lab, &pod).expect_ok();
}

#[test]
fn a_half_add_is_undone_by_the_next_one_and_by_gc() {
    needs_programs!();
    let (lab, mut runtime) = thin("thin-half", &json!({}));
    let mut slow = plugins::conf(
        &lab,
        "slow",
        &json!({"ADD": {"hang": true, "link": true, "until": lab.dir.join("go")}, "DEL": {"link": true}}),
    );
    slow["name"] = "slow".into();
    let plain = runtime.plugin["delegates"].clone();
    let before = baseline(&lab, &runtime);
    runtime.plugin["delegates"] = json!([lab.bridge(), slow]);
    let began = |count: usize| {
        plugins::verbs(&plugins::journal(&lab, "slow")).iter().filter(|verb| **verb == "ADD").count() >= count
    };
    let pod = lab.pod("cam");
    for round in 1..=2 {
        let mut add = runtime.call("ADD", Some(&pod)).start(&lab.node);
        assert!(wait_until(Duration::from_secs(5), || began(round)), "no ADD of the slow plugin");
        add.kill();
        drop(add.wait(Duration::from_secs(2)));
        assert_eq!(pod.netns.link_names(), ["eth0"], "the killed ADD left half of it");
        if round == 1 {
            runtime.plugin["delegates"] = plain.clone();
            runtime.add(&lab, &pod).expect_ok();
            runtime.del(&lab, &pod).expect_ok();
            runtime.plugin["delegates"] = json!([lab.bridge(), slow]);
        }
    }
    runtime.version = "1.1.0".into();
    runtime.plugin["delegates"] = plain;
    let kept = lab.pod("kept");
    runtime.add(&lab, &kept).expect_ok();
    runtime.gc(&lab, &[&kept]).expect_ok();
    assert_eq!((pod.netns.link_names().len(), kept.netns.link_names().len()), (0, 1));
    runtime.del(&lab, &kept).expect_ok();
    before.assert_restored(&lab, &[], "ADDs that were killed, and GC");
}

#[test]
fn a_half_add_of_an_old_record_is_undone_in_the_namespace_of_the_next_one() {
    needs_programs!();
    let (lab, runtime) = thin("thin-old", &json!({}));
    let before = baseline(&lab, &runtime);
    let pod = lab.pod("cam");
    let mut sleep = pod.netns.command("sleep").arg("60").spawn().expect("a process inside");
    let path = format!("/proc/{}/ns/net", sleep.id());
    let call = |verb| runtime.call(verb, Some(&pod)).var("CNI_NETNS", &path).run(&lab.node);
    call("ADD").expect_ok();
    let records = Records::at(&lab.cni_dir);
    let mut record = records.all().expect("records").0.remove(0);
    // Before the last step, by a release that did not look which namespace it was.
    (record.netns_id, record.state) = (None, State::Adding);
    records.save(&record).expect("write the record");
    call("ADD").expect_ok();
    assert_eq!(pod.netns.link_names(), ["eth0"]);
    call("DEL").expect_ok();
    sleep.kill().and_then(|()| sleep.wait()).expect("end the process");
    before.assert_restored(&lab, &[], "a half ADD, an ADD and its DEL");
}

#[test]
fn many_at_once_and_one_container_at_a_time() {
    needs_programs!();
    let (lab, runtime) = thin("thin-many", &json!({}));
    let before = baseline(&lab, &runtime);
    let pods: Vec<Pod> = (0..8).map(|n| lab.pod(&format!("p{n}"))).collect();
    let all = |verb: &str| {
        let running: Vec<_> = pods.iter().map(|pod| runtime.call(verb, Some(pod)).start(&lab.node)).collect();
        for one in running {
            let done = one.wait(Duration::from_secs(30));
            assert!(done.success(), "{verb}: {}", done.out());
        }
    };
    all("ADD");
    assert_eq!(records(&lab).len(), pods.len());
    all("DEL");
    before.assert_restored(&lab, &[], "eight at once");
    // A DEL beside the ADD of the same container waits its turn.
    let mut slow = plugins::conf(&lab, "slow", &json!({"ADD": {"sleep_ms": 700, "link": true}, "DEL": {"link": true}}));
    slow["name"] = "slow".into();
    let both = lab.pod("both");
    let call = |verb| runtime.call(verb, Some(&both)).conf(|conf| conf["delegates"] = json!([slow]));
    let add = call("ADD").start(&lab.node);
    let verbs = || plugins::journal(&lab, "slow").iter().map(|entry| entry.verb().to_owned()).collect::<Vec<_>>();
    assert!(wait_until(Duration::from_secs(5), || verbs() == ["ADD"]), "{:?}", verbs());
    let del = call("DEL").run(&lab.node);
    assert!(del.done.took > Duration::from_millis(300), "DEL took {:?}", del.done.took);
    del.expect_ok();
    assert!(add.wait(Duration::from_secs(20)).success());
    assert_eq!(verbs(), ["ADD", "DEL"]);
    before.assert_restored(&lab, &[], "ADD and DEL of one container at once");
}

#[test]
fn a_node_has_a_daemon_or_thin_plugins_not_both() {
    needs_programs!();
    let builder = Builder::new("thin-daemon").on_host();
    let runtime = runtime(&builder.lab, &json!({}));
    let early = builder.lab.pod("early");
    let late = builder.lab.pod("late");
    for pod in [&early, &late] {
        runtime.add(&builder.lab, pod).expect_ok();
    }
    let world = builder.start();
    let pod = world.lab.pod("cam");
    for verb in ["ADD", "CHECK"] {
        let said = runtime.call(verb, Some(&pod)).run(&world.lab.node).expect_error(11);
        assert!(said.contains("daemon") && said.contains("cniDir") && said.contains("multus-shim"), "{said}");
    }
    assert_eq!(pod.netns.link_names(), [""; 0]);
    // What thin plugins attached, the daemon takes over; and a DEL that still comes to them does not fail.
    for early in [&early, &late] {
        world.check(early).expect_ok();
    }
    world.del(&early).expect_ok();
    runtime.call("DEL", Some(&late)).run(&world.lab.node).expect_ok();
    runtime.call("DEL", Some(&pod)).run(&world.lab.node).expect_ok();
    assert!(early.netns.link_names().is_empty());
    assert!(
        wait_until(Duration::from_secs(25), || late.netns.link_names().is_empty() && records(&world.lab).is_empty()),
        "the daemon does what was asked of a thin plugin: {:?}",
        records(&world.lab)
    );
}

#[test]
fn started_otherwise_it_is_the_operators_program() {
    needs_programs!();
    let (lab, runtime) = thin("thin-name", &json!({}));
    let version = runtime.call("VERSION", None).run(&lab.node);
    let said: Value = serde_json::from_slice(&version.done.stdout).unwrap();
    assert_eq!(said["supportedVersions"].as_array().map(Vec::len), Some(7), "{said:#}");
    assert!(version.done.took < Duration::from_millis(500), "VERSION took {:?}", version.done.took);
    let mut cli = lab.node.command(&runtime.program);
    cli.env("CNI_COMMAND", "ADD").arg("--version");
    let done = process::run(&mut cli, b"", Duration::from_secs(5));
    assert!(done.success() && done.out().starts_with("multus-agent "), "{}{}", done.out(), done.err());
}
