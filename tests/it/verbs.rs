//! ADD, CHECK, STATUS, GC and VERSION with the reference plugins: what the pod gets and what the runtime is told.

use std::time::Duration;

use lab::runtime::Runtime;
use lab::world::Builder;
use lab::{Lab, NodeState, World, agent, plugins};
use serde_json::{Value, json};

#[test]
fn add_gives_net1_and_the_result_in_every_version() {
    needs_programs!();
    let mut world = World::new("versions");
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        version.clone_into(&mut world.runtime.version);
        let pod = world.lab.pod("cam").networks("lan");
        let result = world.add(&pod).result();
        assert_eq!(result["cniVersion"], version, "{result:#}");
        let interfaces =
            result["interfaces"].as_array().unwrap_or_else(|| panic!("{version}: no interfaces: {result:#}"));
        let inside = interfaces.iter().find(|i| i["sandbox"] == pod.netns.path().display().to_string());
        assert_eq!(inside.map(|i| &i["name"]), Some(&json!("eth0")), "{version}: {result:#}");
        let ip = &result["ips"][0];
        assert_eq!(ip["interface"], 2, "{version}: the address is the pod's: {result:#}");
        let family = if version.starts_with('0') { json!("4") } else { Value::Null };
        assert_eq!(ip["version"], family, "{version}: {result:#}");
        let eth0 = pod.netns.addresses("eth0");
        assert_eq!(json!(eth0[0]), ip["address"], "{version}: the result tells the truth");
        let net1 = pod.netns.addresses("net1");
        assert!(net1.len() == 2 && net1[0].starts_with("192.168.50.") && net1[1].starts_with("fd00:50::"), "{net1:?}");
        world.check_unless_too_old(version, &pod);
        world.del(&pod).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0], "{version}: links after DEL");
    }
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}

trait CheckUnlessTooOld {
    fn check_unless_too_old(&self, version: &str, pod: &lab::Pod);
}

impl CheckUnlessTooOld for World {
    /// CHECK exists from 0.4.0 on; before, asking for it is a version error.
    fn check_unless_too_old(&self, version: &str, pod: &lab::Pod) {
        let answer = self.check(pod);
        if version == "0.3.1" {
            answer.expect_error(1);
        } else {
            answer.expect_ok();
        }
    }
}

#[test]
fn check_notices_what_is_gone() {
    needs_programs!();
    let world = World::new("check");
    let pod = world.attached("cam", "lan");
    world.check(&pod).expect_ok();
    pod.netns.ip("link del net1");
    let answer = world.check(&pod);
    let error = answer.error();
    assert!(error.to_string().contains("net1"), "CHECK names the interface that is gone: {error}");
    world.del(&pod).expect_ok();

    let pod = world.attached("cam2", "lan");
    pod.netns.ip("address flush dev net1");
    assert!(!world.check(&pod).ok(), "CHECK does not notice that net1 lost its addresses");
}

#[test]
fn version_lists_what_is_spoken() {
    needs_programs!();
    let lab = Lab::new("version");
    let answer = Runtime::new(&lab).call("VERSION", None).run(&lab.node);
    let reply = answer.result();
    let wanted = json!(["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    assert_eq!((&reply["cniVersion"], &reply["supportedVersions"]), (&json!("1.1.0"), &wanted));
    // Nothing on the node was needed for that: no agent runs in this lab.
}

#[test]
fn status_is_asked_for_at_1_1_0_only() {
    needs_programs!();
    let mut world = World::new("status");
    "1.1.0".clone_into(&mut world.runtime.version);
    world.runtime.status(&world.lab).expect_ok();
    "1.0.0".clone_into(&mut world.runtime.version);
    world.runtime.status(&world.lab).expect_error(1);
}

#[test]
fn gc_frees_what_the_runtime_no_longer_lists() {
    needs_programs!();
    let mut world = World::new("gc");
    "1.1.0".clone_into(&mut world.runtime.version);
    let baseline = world.baseline();
    let gone = world.attached("gone", "lan");
    let stays = world.attached("stays", "lan");
    gone.netns.remove();
    world.runtime.gc(&world.lab, &[&stays]).expect_ok();
    let left = plugins::allocations(&world.lab.ipam_dir);
    assert_eq!(left.len(), 3, "three addresses of the pod that stays: {left:?}");
    world.check(&stays).expect_ok();
    world.del(&stays).expect_ok();
    baseline.assert_restored(&world.lab, &[], "GC of one pod and DEL of the other");
}

#[test]
fn unknown_keys_reach_the_delegate_byte_for_byte() {
    needs_programs!();
    let builder = Builder::new("bytes");
    let conf = plugins::conf(&builder.lab, "fake", &json!({}));
    let odd = r#""zeta": {"b":1.50,"a":[1 , 2,  3],"é":"\u00e9\n"},   "big": 123456789012345678901234567890"#;
    let text = format!("{{ {odd}, \"cniVersion\": \"1.0.0\", \"type\": \"fake\", \"fake\": {} }}", conf["fake"]);
    builder.lab.network("default", "odd", &Value::String(text), &json!({}));
    let world = builder.start();
    let pod = world.attached("cam", "odd");
    world.del(&pod).expect_ok();
    let journal = plugins::journal(&world.lab, "fake");
    assert_eq!(plugins::verbs(&journal), ["ADD", "DEL"]);
    for call in &journal {
        for part in [r#"{"b":1.50,"a":[1 , 2,  3],"é":"\u00e9\n"}"#, "123456789012345678901234567890"] {
            assert!(call.stdin().contains(part), "{} lost {part}:\n{}", call.verb(), call.stdin());
        }
        assert_eq!(call.conf()["name"], "odd", "the NAD's name is the network's when it has none");
    }
}

#[test]
fn a_chain_hands_results_on_and_is_deleted_in_reverse() {
    needs_programs!();
    let builder = Builder::new("chain");
    let lab = &builder.lab;
    let result = json!({"interfaces": [{"name": "net1", "sandbox": "/x", "mac": "02:00:00:00:00:01"}],
        "ips": [{"address": "10.9.0.2/24", "interface": 0}]});
    let (mut first, mut second) =
        (plugins::conf(lab, "one", &json!({"ADD": {"result": result}})), plugins::conf(lab, "two", &json!({})));
    // Both write into one journal, so that their order shows.
    second["fake"]["journal"] = first["fake"]["journal"].clone();
    for plugin in [&mut first, &mut second] {
        plugin.as_object_mut().expect("an object").remove("cniVersion");
    }
    let list = json!({"cniVersion": "1.0.0", "name": "chained", "plugins": [first, second]});
    let world = builder.network("chain", &list).start();
    let pod = world.attached("cam", "chain");
    world.check(&pod).expect_ok();
    world.del(&pod).expect_ok();
    let journal = plugins::journal(&world.lab, "one");
    let calls: Vec<_> =
        journal.iter().map(|c| format!("{} {}", c.verb(), c.conf()["type"].as_str().unwrap_or(""))).collect();
    assert_eq!(calls, ["ADD one", "ADD two", "CHECK one", "CHECK two", "DEL two", "DEL one"]);
    assert_eq!(journal[0].conf()["prevResult"], Value::Null);
    for call in &journal[1..] {
        let conf = call.conf();
        assert_eq!(conf["prevResult"]["ips"][0]["address"], "10.9.0.2/24", "{}: {conf:#}", call.verb());
        assert_eq!((&conf["name"], &conf["cniVersion"]), (&json!("chained"), &json!("1.0.0")));
        assert_eq!(call.env("CNI_IFNAME"), "net1");
    }
}

#[test]
fn a_pod_asks_for_mac_and_address_and_gets_them() {
    needs_programs!();
    let builder = Builder::new("requests");
    let conf = json!({"cniVersion": "0.3.1", "type": "macvlan", "master": "eth0", "mode": "bridge",
        "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}});
    let world = builder.network("lan-network", &conf).start();
    let pod = world.attached(
        "cam",
        r#"[{"name": "lan-network", "namespace": "default", "mac": "16:3c:13:e1:c9:02", "ips": ["192.168.50.233/24"]}]"#,
    );
    assert_eq!(lab::netns::print_mac(pod.netns.mac("net1")), "16:3c:13:e1:c9:02");
    assert_eq!(pod.netns.addresses("net1"), ["192.168.50.233/24"]);
    world.del(&pod).expect_ok();
}

#[test]
fn capabilities_reach_only_plugins_that_declare_them() {
    needs_programs!();
    let builder = Builder::new("capabilities");
    let mut declared = plugins::conf(&builder.lab, "knows", &json!({}));
    declared["capabilities"] = json!({"portMappings": true, "bandwidth": true, "mac": false});
    let silent = plugins::conf(&builder.lab, "silent", &json!({}));
    let world = builder.network("declared", &declared).network("silent", &silent).start();
    let element = |name: &str| {
        json!({"name": name, "mac": "02:00:00:00:00:07",
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
            "bandwidth": {"ingressRate": 1000, "ingressBurst": 2000, "egressRate": 3000, "egressBurst": 4000},
            "cni-args": {"colour": "blue"}})
    };
    let pod = world.attached("cam", &json!([element("declared"), element("silent")]).to_string());
    let knows = plugins::journal(&world.lab, "knows")[0].conf();
    assert_eq!(knows["runtimeConfig"]["portMappings"][0]["hostPort"], 8080, "{knows:#}");
    assert_eq!(knows["runtimeConfig"]["bandwidth"]["egressRate"], 3000, "{knows:#}");
    assert_eq!(knows["runtimeConfig"]["mac"], Value::Null, "declared false: {knows:#}");
    assert_eq!(knows["args"]["cni"]["colour"], "blue", "{knows:#}");
    let silent = plugins::journal(&world.lab, "silent");
    assert_eq!(silent[0].conf()["runtimeConfig"], Value::Null, "{:#}", silent[0].conf());
    let args = silent[0].env("CNI_ARGS");
    assert!(args.contains("MAC=02:00:00:00:00:07") && args.contains("K8S_POD_NAME=cam"), "{args}");
    world.del(&pod).expect_ok();
}

#[test]
fn networks_are_named_in_both_forms_and_from_other_namespaces() {
    needs_programs!();
    let builder = Builder::new("selection");
    let conf = builder.lab.macvlan("bridge");
    builder.lab.network("infra", "wan", &conf, &json!({}));
    let world = builder.network("lan", &conf).start();
    let short = world.attached("short", "lan@cam0, infra/wan");
    assert_eq!(sorted(short.netns.link_names()), ["cam0", "eth0", "net2"]);
    let json = world.attached("json", r#"[{"name": "wan", "namespace": "infra", "interface": "up"}, {"name": "lan"}]"#);
    assert_eq!(sorted(json.netns.link_names()), ["eth0", "net2", "up"]);
    world.del(&short).expect_ok();
    world.del(&json).expect_ok();
}

fn sorted(mut list: Vec<String>) -> Vec<String> {
    list.sort();
    list
}

#[test]
fn the_first_failure_undoes_everything_and_is_the_answer() {
    needs_programs!();
    let builder = Builder::new("rollback");
    let bad =
        plugins::conf(&builder.lab, "bad", &json!({"ADD": {"error": {"code": 77, "msg": "the camera is on fire"}}}));
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).network("bad", &bad).start();
    let baseline = world.baseline();
    let pod = world.lab.pod("cam").networks("lan,bad");
    let before = NodeState::capture(&world.lab, &[&pod]);
    let answer = world.add(&pod);
    let text = answer.expect_error(77);
    assert!(text.contains("the camera is on fire"), "the delegate's own words: {text}");
    assert!(text.contains("default/bad"), "the network that failed is named: {text}");
    before.assert_restored(&world.lab, &[&pod], "a failed ADD");
    baseline.assert_restored(&world.lab, &[], "a failed ADD");
    let verbs = plugins::journal(&world.lab, "bad");
    assert_eq!(plugins::verbs(&verbs), ["ADD", "DEL"], "the plugin that failed is asked to clean up too");
    world.del(&pod).expect_ok();
}

#[test]
fn a_second_add_of_a_running_pod_harms_nothing() {
    needs_programs!();
    let world = World::new("twice");
    let pod = world.attached("cam", "lan");
    let before = NodeState::capture(&world.lab, &[&pod]);
    let _either_answer_will_do = world.add(&pod);
    let lines = before.difference(&NodeState::capture(&world.lab, &[&pod]));
    let lost: Vec<_> = lines.iter().filter(|line| line.starts_with("gone")).collect();
    assert!(lost.is_empty(), "a second ADD took something from the running pod: {lost:?}");
    world.del(&pod).expect_ok();
}

#[test]
fn ten_pods_at_once_get_an_address_each() {
    needs_programs!();
    let world = World::new("ten");
    let baseline = world.baseline();
    let pods: Vec<_> = (0..10).map(|n| world.lab.pod(&format!("pod{n}")).networks("lan")).collect();
    std::thread::scope(|scope| {
        let adds: Vec<_> = pods.iter().map(|pod| scope.spawn(|| world.add(pod))).collect();
        for add in adds {
            add.join().expect("an ADD").expect_ok();
        }
    });
    let mut addresses: Vec<_> = pods.iter().flat_map(|pod| pod.netns.addresses("net1")).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
    std::thread::scope(|scope| {
        let dels: Vec<_> = pods.iter().map(|pod| scope.spawn(|| world.del(pod))).collect();
        for del in dels {
            del.join().expect("a DEL").expect_ok();
        }
    });
    baseline.assert_restored(&world.lab, &[], "ten pods");
}

#[test]
fn annotations_from_manifests_serve_runtimes_that_pass_none() {
    needs_programs!();
    let mut world = World::new("folder");
    world.runtime.gives_annotations = false;
    let pod = world.lab.pod("cam").networks("lan");
    world.lab.pod_object(&pod);
    world.add(&pod).expect_ok();
    assert!(pod.netns.link("net1").is_some(), "the manifest's annotation was not honoured");
    world.del(&pod).expect_ok();
}

#[test]
fn a_network_made_while_the_agent_runs_is_found() {
    needs_programs!();
    let world = World::new("late");
    world.lab.network("default", "late", &world.lab.macvlan("bridge"), &json!({}));
    let pod = world.attached("cam", "late");
    assert!(pod.netns.link("net1").is_some());
    world.del(&pod).expect_ok();
}

#[test]
fn manifests_as_users_write_them() {
    needs_programs!();
    let mut builder = Builder::new("yaml");
    let text = r#"# two documents in one file
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: lan-network, namespace: default}
spec:
  config: |
    {"cniVersion": "0.3.1", "type": "macvlan", "master": "eth0", "mode": "bridge",
     "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}}
---
apiVersion: v1
kind: Pod
metadata:
  name: my-pod
  annotations:
    k8s.v1.cni.cncf.io/networks: '[
      {
        "name": "lan-network",
        "namespace": "default",
        "mac": "16:3c:13:e1:c9:02",
        "ips": ["192.168.50.233/24"]
      }
    ]'
spec: {containers: [{name: c, image: app}]}
"#;
    std::fs::write(builder.lab.objects_dir.join("all.yaml"), text).expect("write the manifests");
    builder.runtime.gives_annotations = false;
    let world = builder.start();
    let pod = world.lab.pod("my-pod");
    world.add(&pod).expect_ok();
    assert_eq!(pod.netns.addresses("net1"), ["192.168.50.233/24"]);
    assert_eq!(lab::netns::print_mac(pod.netns.mac("net1")), "16:3c:13:e1:c9:02");
    world.del(&pod).expect_ok();
}

/// Default routes of one family in the pod, as `via dev`.
fn default_routes(pod: &lab::Pod, family: &str) -> Vec<String> {
    let routes = pod.netns.ip_json(&format!("{family} route show default"));
    let line = |route: &Value| {
        format!("{} {}", route["gateway"].as_str().unwrap_or("-"), route["dev"].as_str().unwrap_or("-"))
    };
    routes.as_array().into_iter().flatten().map(line).collect()
}

#[test]
fn a_default_route_moves_to_the_network_that_asks_for_it() {
    needs_programs!();
    let world = World::new("route");
    let plain = world.attached("plain", "lan");
    assert_eq!(default_routes(&plain, "-4"), ["10.77.0.1 eth0"]);
    let moved = world.attached("moved", r#"[{"name": "lan", "default-route": ["192.168.50.254"]}]"#);
    assert_eq!(default_routes(&moved, "-4"), ["192.168.50.254 net1"], "one default route, the one asked for");
    world.check(&moved).expect_ok();
    world.del(&plain).expect_ok();
    world.del(&moved).expect_ok();
}

#[test]
fn an_annotation_replaces_the_default_network() {
    needs_programs!();
    let builder = Builder::new("default");
    builder.lab.network("kube-system", "flat", &builder.lab.macvlan("bridge"), &json!({}));
    let world = builder.start();
    let pod = world.lab.pod("cam").annotate("v1.multus-cni.io/default-network", "flat");
    let result = world.add(&pod).result();
    let eth0 = pod.netns.addresses("eth0");
    assert!(eth0.first().is_some_and(|a| a.starts_with("192.168.50.")), "{eth0:?}");
    assert_eq!(result["ips"][0]["address"], json!(eth0[0]), "the result is the default network's");
    world.del(&pod).expect_ok();
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}

#[test]
fn embedded_delegates_serve_as_default_network() {
    needs_programs!();
    let builder = Builder::new("delegates").configure(|config, lab| {
        config.as_object_mut().expect("an object").remove("clusterNetwork");
        config["delegates"] = json!([lab.bridge()]);
    });
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).start();
    let pod = world.attached("cam", "lan");
    assert!(pod.netns.addresses("eth0").first().is_some_and(|a| a.starts_with("10.77.")));
    assert!(pod.netns.link("net1").is_some());
    world.del(&pod).expect_ok();
}

#[test]
fn namespace_isolation_refuses_foreign_networks() {
    needs_programs!();
    let builder = Builder::new("isolation");
    let conf = builder.lab.macvlan("bridge");
    builder.lab.network("infra", "wan", &conf, &json!({}));
    let world = builder.configure(|config, _| config["namespaceIsolation"] = true.into()).start();
    let pod = world.lab.pod("cam").networks("infra/wan").in_namespace("apps");
    let text = world.add(&pod).expect_error(102);
    let wanted = "namespace isolation enabled, annotation violates permission, pod is in namespace apps but refers to target namespace infra";
    assert!(text.contains(wanted), "{text}");
    assert_eq!(pod.netns.link_names(), [""; 0]);
}

#[test]
fn without_ebpf_the_agent_is_still_a_complete_multus() {
    needs_programs!();
    let builder = Builder::new("off");
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).configure(|config, _| config["datapath"]["mode"] = "off".into()).start();
    let baseline = world.baseline();
    let pod = world.attached("cam", "lan");
    world.check(&pod).expect_ok();
    assert_eq!(
        lab::state::files(&world.lab.bpffs),
        [""; 0].map(std::path::PathBuf::from),
        "pins with the datapath off"
    );
    world.del(&pod).expect_ok();
    baseline.assert_restored(&world.lab, &[], "one pod with the datapath off");
}

#[test]
fn the_shim_is_small_and_static() {
    needs_programs!();
    let program = agent::program("multus-shim");
    let bytes = std::fs::read(&program).expect("read the shim");
    assert!(bytes.len() <= 1_572_864, "the shim has {} bytes, 1.5 MiB are allowed", bytes.len());
    // The name of a dynamic loader is in every dynamically linked ELF file (PT_INTERP).
    let loader = bytes.windows(7).any(|w| w == b"/ld-lin");
    assert!(!loader, "{} is dynamically linked", program.display());
    let lab = Lab::new("shim");
    let answer = Runtime::new(&lab).call("VERSION", None).run(&lab.node);
    assert!(answer.done.took < Duration::from_millis(500), "VERSION took {:?}", answer.done.took);
}
