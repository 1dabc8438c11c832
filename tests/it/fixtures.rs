//! Whether the manifests of the guides attach as they are written, or are refused with what the node lacks.
//!
//! Changed at loading: where host-local keeps its files, and where the DHCP daemon listens (its default is global to the
//! machine). The parents `eth0` and `eth1` are the lab's own.

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use lab::netns::print_mac;
use lab::world::Builder;
use lab::{Answer, Pod, World, plugins, wait_until};
use serde_json::{Value, json};

use crate::devices::kubelet::Kubelet;

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

/// A node with two uplinks that knows every network and pod of the guides.
fn node(name: &str, change: impl FnOnce(&mut Value)) -> World {
    let mut builder = Builder::new(name);
    builder.lab.add_lan("eth1", 51);
    let lab = &builder.lab;
    let networks = fixture("nads.yaml")
        .replace(r#""type": "host-local""#, &format!(r#""type": "host-local", "dataDir": {}"#, json!(lab.ipam_dir)))
        .replace(
            r#"{"type": "dhcp"}"#,
            &json!({"type": "dhcp", "daemonSocketPath": lab.dir.join("dhcp.sock")}).to_string(),
        );
    assert_eq!((networks.matches("dataDir").count(), networks.matches("dhcp.sock").count()), (10, 1));
    fs::write(lab.objects_dir.join("nads.yaml"), networks).expect("write the networks");
    fs::write(lab.objects_dir.join("pods.yaml"), fixture("pods.yaml")).expect("write the pods");
    let mut world = builder.configure(|config, _| change(config)).start();
    // Pods are found in the folder, as they stand there.
    world.runtime.gives_annotations = false;
    world
}

fn pod(world: &World, namespace: &str, name: &str) -> Pod {
    world.lab.pod(name).in_namespace(namespace)
}

/// A pod that is not in the guides, on `networks`.
fn further(world: &World, namespace: &str, name: &str, networks: &str) -> Pod {
    let pod = pod(world, namespace, name).networks(networks);
    world.lab.pod_object(&pod);
    pod
}

fn links(pod: &Pod) -> Vec<String> {
    let mut names = pod.netns.link_names();
    names.sort();
    names
}

fn attach(world: &World, pod: &Pod, wanted: &[&str]) {
    world.add(pod).expect_ok();
    assert_eq!(links(pod), wanted, "links of {}/{}", pod.namespace, pod.name);
}

fn refused(world: &World, pod: &Pod, parts: &[&str]) -> Answer {
    let add = world.add(pod);
    let error = add.error();
    let text =
        format!("{} {}", error["msg"].as_str().unwrap_or_default(), error["details"].as_str().unwrap_or_default());
    for part in parts {
        assert!(text.contains(part), "{}/{}: no \"{part}\" in: {text}", pod.namespace, pod.name);
    }
    assert_eq!(pod.netns.link_names(), [""; 0], "a refused pod has links");
    add
}

#[test]
fn pods_of_the_guides_attach_as_they_expect() {
    needs_programs!();
    let world = node("guides", |_| {});
    let mine = pod(&world, "default", "my-pod");
    attach(&world, &mine, &["eth0", "net1"]);
    assert_eq!(mine.netns.addresses("net1"), ["192.168.31.233/24"]);
    assert_eq!(print_mac(mine.netns.mac("net1")), "16:3c:13:e1:c9:02");
    let home = pod(&world, "home", "home-assistant");
    attach(&world, &home, &["eth0", "net1"]);
    assert!(home.netns.addresses("net1")[0].starts_with("192.168.1.20"), "{:?}", home.netns.addresses("net1"));
    let spaced = pod(&world, "default", "two-spaced");
    attach(&world, &spaced, &["eth0", "net1", "net2"]);
    let named = pod(&world, "default", "named-interfaces");
    attach(&world, &named, &["data1", "eth0", "mgmt0"]);
    assert!(named.netns.addresses("mgmt0")[0].starts_with("10.244."), "{:?}", named.netns.addresses("mgmt0"));
    let foreign = pod(&world, "tenant-a", "foreign");
    attach(&world, &foreign, &["eth0", "net1"]);
    assert!(foreign.netns.addresses("net1")[0].starts_with("10.200."));
    let other = pod(&world, "default", "other-default");
    attach(&world, &other, &["eth0"]);
    assert!(other.netns.addresses("eth0")[0].starts_with("10.245."), "{:?}", other.netns.addresses("eth0"));
    for pod in [&mine, &home, &spaced, &named, &foreign, &other] {
        world.check(pod).expect_ok();
        world.del(pod).expect_ok();
        assert_eq!(links(pod), [""; 0]);
    }
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}

#[test]
fn every_network_of_the_guides_attaches() {
    needs_programs!();
    let world = node("networks", |_| {});
    for (namespace, network, subnet) in [
        ("default", "macvlan-conf", "192.168.1."),
        ("default", "bridge-bare", "10.10."),
        ("default", "bridge-conf", "10.244."),
        ("default", "data-network", "10.10."),
        ("tenant-a", "tenant-a-net", "10.100."),
        ("tenant-b", "tenant-b-net", "10.200."),
        ("kube-system", "bridge-default", "10.245."),
    ] {
        let pod = further(&world, namespace, &format!("on-{network}"), network);
        attach(&world, &pod, &["eth0", "net1"]);
        let addresses = pod.netns.addresses("net1");
        assert!(addresses.len() == 1 && addresses[0].starts_with(subnet), "{network}: {addresses:?}");
        world.del(&pod).expect_ok();
    }
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}

#[test]
fn what_the_node_lacks_is_said() {
    needs_programs!();
    let world = node("lacks", |_| {});
    refused(&world, &pod(&world, "home", "two-short"), &["macvlan", "ipvlan", "\"eth0\""]);
    // A kubelet that gave the pod nothing.
    let kubelet = Kubelet::start(&world.lab);
    refused(&world, &pod(&world, "default", "vf"), &["default/sriov-net", "vendor.example/vf"]);
    drop(kubelet);
    refused(
        &world,
        &further(&world, "default", "w", "whereabouts-net"),
        &["default/whereabouts-net", "\"whereabouts\""],
    );
    let ipvlan = further(&world, "home", "i", "ipvlan-conf");
    if world.add(&ipvlan).ok() {
        world.del(&ipvlan).expect_ok();
    } else {
        refused(&world, &ipvlan, &["home/ipvlan-conf"]);
    }
    let unserved = pod(&world, "default", "samplepod");
    refused(&world, &unserved, &["default/macvlan-dhcp", "dhcp"]);
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}

#[test]
fn tenants_are_kept_apart_where_isolation_is_on() {
    needs_programs!();
    let world = node("tenants", |config| config["namespaceIsolation"] = true.into());
    refused(&world, &pod(&world, "tenant-a", "foreign"), &["namespace tenant-a", "tenant-b to globalNamespaces"]);
    refused(
        &world,
        &further(&world, "tenant-b", "b", "tenant-a/tenant-a-net"),
        &["namespace tenant-b", "tenant-a to globalNamespaces"],
    );
    for (namespace, networks) in
        [("tenant-a", "tenant-a-net"), ("tenant-b", "tenant-b/tenant-b-net"), ("tenant-a", "default/bridge-bare")]
    {
        let own = further(&world, namespace, "own", networks);
        attach(&world, &own, &["eth0", "net1"]);
        world.del(&own).expect_ok();
    }
    // The pod of the guide that names its own namespace.
    let home = pod(&world, "home", "home-assistant");
    attach(&world, &home, &["eth0", "net1"]);
    world.del(&home).expect_ok();
}

/// Ends a program when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The LAN's router hands out addresses, and the node runs the reference DHCP daemon.
fn serve_dhcp(world: &World) -> [Ended; 2] {
    let (lan, dir) = (world.lab.lan(), &world.lab.dir);
    let mut router = lan.netns.command("dnsmasq");
    router.args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--no-ping"]);
    router.args(["--dhcp-authoritative", "--bind-interfaces", "--dhcp-range=192.168.50.200,192.168.50.220,1h"]);
    router.arg(format!("--interface={}", lan.ifname)).arg(format!("--pid-file={}", dir.join("dnsmasq.pid").display()));
    router.arg(format!("--dhcp-leasefile={}", dir.join("leases").display()));
    let router = Ended(router.spawn().expect("start dnsmasq"));
    let socket = dir.join("dhcp.sock");
    let mut daemon = world.lab.node.command(Path::new(plugins::SYSTEM).join("dhcp"));
    let daemon = daemon.arg("daemon").arg("-socketpath").arg(&socket);
    let daemon = Ended(
        daemon.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().expect("start dhcp"),
    );
    assert!(wait_until(Duration::from_secs(5), || socket.exists()), "the DHCP daemon does not listen");
    [router, daemon]
}

#[test]
fn leases_come_from_the_lans_router_and_a_fixed_mac_keeps_its_own() {
    needs_programs!();
    let world = node("dhcp", |_| {});
    let _served = serve_dhcp(&world);
    let any = pod(&world, "default", "samplepod");
    attach(&world, &any, &["eth0", "net1"]);
    let lease = any.netns.addresses("net1");
    assert!(lease.len() == 1 && lease[0].starts_with("192.168.50.2"), "{lease:?}");
    let mut leases = Vec::new();
    for life in 0..3 {
        // A restarted pod has a new sandbox, with a new id and a new namespace.
        let fixed = pod(&world, "default", "samplepod-fixed-mac");
        attach(&world, &fixed, &["eth0", "net1"]);
        assert_eq!(print_mac(fixed.netns.mac("net1")), "02:42:ac:11:00:07", "life {life}");
        leases.push(fixed.netns.addresses("net1"));
        world.del(&fixed).expect_ok();
    }
    assert!(leases.iter().all(|lease| lease == &leases[0] && lease.len() == 1), "{leases:?}");
    assert_ne!(leases[0], lease);
    world.del(&any).expect_ok();
}

#[test]
fn daemon_settings_of_the_guides_are_taken_as_they_stand() {
    needs_programs!();
    for (name, warning) in [("daemon-k3s.json", None), ("daemon-talos-cilium.json", Some("cniVersion \"1.2.0\""))] {
        let written: Value = serde_json::from_str(&fixture(name)).expect("JSON");
        let builder = Builder::new("settings").configure(|config, lab| {
            // What the guide says stays, but for the folders, which are the lab's.
            let own = std::mem::replace(config, written.clone());
            for (key, value) in own.as_object().expect("an object") {
                let is_path = value.as_str().is_some_and(|text| text.starts_with('/'));
                if key == "binDir" && written["binDir"].is_null() {
                    config["cniBinDir"] = value.clone();
                } else if is_path || written[key].is_null() {
                    config[key] = value.clone();
                }
            }
            assert_eq!(config["cniVersion"], written["cniVersion"]);
            assert_eq!(config["chrootDir"], written["chrootDir"]);
            assert_eq!(config["socketDir"], json!(lab.socket_dir));
        });
        let lan = builder.lab.macvlan("bridge");
        let world = builder.network("lan", &lan).start();
        let pod = world.attached("cam", "lan");
        assert!(pod.netns.link("net1").is_some(), "{name}");
        world.del(&pod).expect_ok();
        let text = world.agent.log_text();
        let warnings: Vec<_> = text.lines().filter(|line| line.contains("configuration: ")).collect();
        match warning {
            Some(part) => assert!(warnings.len() == 1 && warnings[0].contains(part), "{name}: {warnings:?}"),
            None => assert_eq!(warnings, [""; 0], "{name}"),
        }
    }
}
