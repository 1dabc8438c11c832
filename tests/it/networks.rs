//! Which networks a pod gets and what their plugins are told: selection, capabilities, chains, default routes.

use lab::world::Builder;
use lab::{World, plugins};
use serde_json::{Value, json};

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
    let result = json!({"interfaces": [{"name": "net1", "sandbox": "/x"}], "dns": {"domain": "lab.example"}});
    let (mut first, mut second) = (
        plugins::conf(lab, "one", &json!({"ADD": {"link": true, "result": result}})),
        plugins::conf(lab, "two", &json!({})),
    );
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
        assert_eq!(conf["prevResult"]["dns"]["domain"], "lab.example", "{}: {conf:#}", call.verb());
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
fn a_network_may_sit_on_the_bridge_of_the_one_before_it() {
    needs_programs!();
    let builder = Builder::new("on-bridge");
    let bridge = json!({"cniVersion": "1.0.0", "type": "bridge", "bridge": "lab-made"});
    let on_it = json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "lab-made"});
    let world = builder.network("br", &bridge).network("on-it", &on_it).start();
    let early = world.lab.pod("early").networks("on-it,br");
    let refused = world.add(&early).expect_error(7);
    assert!(refused.contains("lab-made"), "{refused}");
    let pod = world.attached("cam", "br,on-it");
    assert!(pod.netns.link("net2").is_some(), "nobody else makes the bridge");
    world.del(&pod).expect_ok();
}
