//! What a manifest may say and what becomes of it: empty specs, the default-network annotation, codes of plugins.

use std::fs;

use lab::plugins;
use lab::world::Builder;
use serde_json::{Value, json};

const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";

#[test]
fn an_empty_spec_is_read_from_conf_dir_past_what_is_broken() {
    needs_programs!();
    let builder = Builder::new("empty-spec");
    let lab = &builder.lab;
    let first = plugins::conf(lab, "first", &json!({"ADD": {"link": true}, "DEL": {"link": true}}));
    let second = plugins::conf(lab, "second", &json!({}));
    let conf_dir = &lab.conf_dir;
    fs::write(conf_dir.join("00-broken.conf"), "{\"name\": \"cams\"").unwrap();
    fs::create_dir(conf_dir.join("01-folder.conf")).unwrap();
    let list = json!({"cniVersion": "1.0.0", "name": "cams", "plugins": [first]});
    fs::write(conf_dir.join("50-cams.conflist"), list.to_string()).unwrap();
    let later = json!({"cniVersion": "1.0.0", "name": "cams", "type": "macvlan", "master": "absent0"});
    fs::write(conf_dir.join("90-cams.conf"), later.to_string()).unwrap();
    fs::create_dir(conf_dir.join("cams")).unwrap();
    fs::write(conf_dir.join("cams/further.conf"), second.to_string()).unwrap();
    for name in ["cams", "none"] {
        let manifest = json!({"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
            "metadata": {"name": name, "namespace": "default"}, "spec": {}});
        lab.object(&format!("nad-{name}"), &manifest);
    }
    let world = builder.start();
    let pod = world.attached("cam", "cams");
    assert!(pod.netns.link("net1").is_some());
    world.del(&pod).expect_ok();
    for plugin in ["first", "second"] {
        assert_eq!(plugins::verbs(&plugins::journal(&world.lab, plugin)), ["ADD", "DEL"], "{plugin}");
    }
    let log = world.agent.log_text();
    assert!(log.contains("passed over") && log.contains("00-broken.conf") && log.contains("01-folder.conf"), "{log}");
    let error = world.add(&world.lab.pod("none").networks("none")).expect_error(101);
    let folder = world.lab.conf_dir.display().to_string();
    let cut: String = folder.chars().take(40).collect();
    assert!(error.contains("default/none: spec.config is empty") && error.contains(&cut), "{error}");
}

#[test]
fn keys_of_plugins_match_in_any_case() {
    needs_programs!();
    let builder = Builder::new("any-case");
    let mut conf = plugins::conf(&builder.lab, "odd", &json!({"ADD": {"link": true}, "DEL": {"link": true}}));
    let map = conf.as_object_mut().expect("an object");
    for (from, to) in [("type", "Type"), ("cniVersion", "CniVersion")] {
        let value = map.remove(from).expect("a key");
        map.insert(to.to_owned(), value);
    }
    map.insert("Capabilities".into(), json!({"portMappings": true}));
    let world = builder.network("odd", &conf).start();
    let pod = world.attached("cam", r#"[{"Name": "odd", "PORTMAPPINGS": [{"HostPort": 80, "containerport": 8080}]}]"#);
    let conf = plugins::journal(&world.lab, "odd")[0].conf();
    assert_eq!(conf["cniVersion"], "1.0.0", "{conf:#}");
    assert_eq!(conf["runtimeConfig"]["portMappings"], json!([{"hostPort": 80, "containerPort": 8080}]), "{conf:#}");
    world.del(&pod).expect_ok();
}

#[test]
fn the_default_network_annotation_is_isolated_and_heard() {
    needs_programs!();
    let builder = Builder::new("default-network").configure(|config, _| config["NamespaceIsolation"] = json!(true));
    let conf = json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "eth0", "mode": "bridge",
        "capabilities": {"ips": true, "mac": true}, "ipam": {"type": "static"}});
    for namespace in ["kube-system", "tenant"] {
        builder.lab.network(namespace, "own", &conf, &json!({}));
    }
    let world = builder.start();
    let item = |namespace: &str| {
        json!([{"name": "own", "namespace": namespace, "ips": ["192.168.50.240/24"], "mac": "02:00:00:00:00:21",
                "ipam-claim-reference": "vm1.own"}])
        .to_string()
    };
    let pod = world.lab.pod("cam").annotate(DEFAULT_NETWORK, item("kube-system"));
    let result = world.add(&pod).result();
    assert_eq!(pod.netns.link_names(), ["eth0"]);
    assert_eq!(pod.netns.addresses("eth0"), ["192.168.50.240/24"]);
    assert_eq!(lab::netns::print_mac(pod.netns.mac("eth0")), "02:00:00:00:00:21");
    assert_eq!(result["ips"][0]["address"], "192.168.50.240/24", "{result:#}");
    world.del(&pod).expect_ok();
    let stranger = world.lab.pod("thief").annotate(DEFAULT_NETWORK, item("tenant"));
    let error = world.add(&stranger).expect_error(102);
    assert!(error.contains("pod is in namespace default but refers to target namespace tenant"), "{error}");
    assert_eq!(stranger.netns.link_names(), [""; 0]);
}

#[test]
fn a_plugins_code_reaches_the_runtime_at_every_version() {
    needs_programs!();
    let builder = Builder::new("codes");
    let error = json!({"code": 11, "msg": "the switch is busy", "details": "ask again"});
    let busy = plugins::conf(&builder.lab, "busy", &json!({"ADD": {"error": error}}));
    let mut world = builder.network("busy", &busy).start();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        version.clone_into(&mut world.runtime.version);
        let pod = world.lab.pod("cam").networks("busy");
        let answer = world.add(&pod);
        let text = answer.expect_error(11);
        assert!(text.contains("error adding container to network \"busy\"") && text.contains("busy"), "{text}");
        assert!(text.ends_with("ask again"), "{version}: {text}");
        assert_eq!(answer.error()["cniVersion"], version);
        world.del(&pod).expect_ok();
    }
}

#[test]
fn a_del_needs_no_configuration_that_can_be_read() {
    needs_programs!();
    let builder = Builder::new("bare-del");
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).start();
    let baseline = world.baseline();
    let spoilt: [(&str, Value); 4] = [
        ("cniVersion", json!("9.9.9")),
        ("namespaceIsolation", json!("true")),
        ("runtimeConfig", json!({"io.kubernetes.cri.pod-annotations": "none"})),
        ("prevResult", json!([])),
    ];
    for (key, value) in spoilt {
        let pod = world.attached("cam", "lan");
        let call = world.runtime.call("DEL", Some(&pod)).conf(|conf| conf[key] = value);
        call.run(&world.lab.node).expect_ok();
        assert_eq!(pod.netns.link_names(), [""; 0], "{key}");
        drop(pod);
        baseline.assert_restored(&world.lab, &[], key);
    }
}

#[test]
fn a_cni_name_in_the_configuration_names_a_file() {
    needs_programs!();
    let builder = Builder::new("by-name").configure(|config, lab| {
        config["clusterNetwork"] = json!("lab-default");
        config["defaultNetworks"] = json!(["Everyone_1"]);
        let conf = plugins::conf(lab, "everyone", &json!({"ADD": {"link": true}, "DEL": {"link": true}}));
        let list = json!({"cniVersion": "1.0.0", "name": "Everyone_1", "plugins": [conf]});
        fs::write(lab.conf_dir.join("20-everyone.conflist"), list.to_string()).unwrap();
        fs::write(lab.conf_dir.join("00-broken.json"), "no JSON").unwrap();
    });
    let world = builder.start();
    let pod = world.attached("cam", "");
    let names: Vec<Value> = pod.netns.link_names().into_iter().map(Value::String).collect();
    assert!(names.contains(&json!("eth0")) && names.contains(&json!("net1")), "{names:?}");
    world.del(&pod).expect_ok();
    let system = world.lab.pod("sys").in_namespace("kube-system");
    world.add(&system).expect_ok();
    assert_eq!(system.netns.link_names(), ["eth0"], "a system namespace gets no default networks");
    world.del(&system).expect_ok();
}
