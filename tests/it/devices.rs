//! Which device a pod's network gets, who is asked for it, and what the plugin and the pod are told of it.

mod claims;
mod files;
pub(crate) mod kubelet;

use std::io::Write;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{World, plugins};
use serde_json::{Value, json};

use self::kubelet::{Get, Kubelet};

/// The annotation that ties a network to a device resource.
pub(crate) const RESOURCE_NAME: &str = "k8s.v1.cni.cncf.io/resourceName";
/// The resource of the tests' networks.
pub(crate) const VF: &str = "vendor.com/vf";

/// A plugin as SR-IOV's is: it makes a link, and wants to know its device.
fn sriov(builder: &Builder) -> Value {
    let mut conf = plugins::conf(&builder.lab, "fake-sriov", &json!({"*": {"link": true}}));
    conf["capabilities"] = json!({"deviceID": true, "CNIDeviceInfoFile": true});
    conf
}

/// A node with the network `vf`, tied to [`VF`], and the plain network `plain`.
fn builder(name: &str) -> Builder {
    let builder = Builder::new(name);
    builder.lab.network("default", "vf", &sriov(&builder), &json!({RESOURCE_NAME: VF}));
    let plain = plugins::conf(&builder.lab, "plain", &json!({"*": {"link": true}}));
    builder.network("plain", &plain)
}

/// What the calls with `verb` said: `deviceID`, `pciBusID` and the capability, for each interface.
fn told(world: &World, verb: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let of_call = |call: &plugins::Entry| {
        let conf = call.conf();
        let capability = text(&conf["runtimeConfig"]["deviceID"]);
        format!("{} {} {} {capability}", call.env("CNI_IFNAME"), text(&conf["deviceID"]), text(&conf["pciBusID"]))
    };
    plugins::journal(&world.lab, "fake-sriov").iter().filter(|call| call.verb() == verb).map(of_call).collect()
}

/// What [`told`] says of an interface with this device.
fn has(ifname: &str, id: &str) -> String {
    format!("{ifname} {id} {id} {id}")
}

const A: &str = "0000:03:02.1";
const B: &str = "0000:03:02.2";

#[test]
fn each_network_gets_a_device_of_its_own_in_order() {
    needs_programs!();
    let world = builder("dev-get").start();
    let kubelet = Kubelet::start(&world.lab);
    let pod = world.lab.pod("cam").networks("vf,plain,vf");
    // In no order, and one of them twice, as of a device that is near two NUMA nodes.
    kubelet.give(&pod, VF, &[B, A, B]);
    kubelet.give(&pod, "vendor.com/gpu", &["g"]);
    world.add(&pod).expect_ok();
    assert_eq!(told(&world, "ADD"), [has("net1", A), has("net3", B)]);
    assert_eq!(kubelet.calls(), ["Get"], "asked once, and for this pod alone");
    let plain = plugins::journal(&world.lab, "plain");
    assert!(plain[0].conf().get("deviceID").is_none(), "a network without a resource got a device");

    world.check(&pod).expect_ok();
    drop(kubelet);
    world.del(&pod).expect_ok();
    assert_eq!(told(&world, "DEL"), [has("net3", B), has("net1", A)], "DEL needs nobody to ask");
}

#[test]
fn pods_without_such_a_network_ask_nobody() {
    needs_programs!();
    let world = builder("dev-none").start();
    let kubelet = Kubelet::start(&world.lab);
    world.attached("cam", "plain");
    assert_eq!(kubelet.calls(), [""; 0]);
}

#[test]
fn the_default_network_takes_a_device_like_any_other() {
    needs_programs!();
    let builder = builder("dev-default");
    builder.lab.network("kube-system", "fast", &sriov(&builder), &json!({RESOURCE_NAME: VF}));
    let world = builder.start();
    let kubelet = Kubelet::start(&world.lab);
    let pod = world.lab.pod("cam").networks("vf").annotate("v1.multus-cni.io/default-network", "fast");
    kubelet.give(&pod, VF, &[A, B]);
    world.add(&pod).expect_ok();
    assert_eq!(told(&world, "ADD"), [has("eth0", A), has("net1", B)], "no device is handed out twice");
}

#[test]
fn where_there_is_no_get_the_list_is_asked() {
    needs_programs!();
    let world = builder("dev-list").start();
    let kubelet = Kubelet::start(&world.lab);
    for (name, get) in [("old", Get::Missing), ("off", Get::SwitchedOff)] {
        kubelet.set_get(get);
        let (before, pod) = (kubelet.calls().len(), world.lab.pod(name).networks("vf"));
        kubelet.give(&pod, VF, &[A]);
        world.add(&pod).expect_ok();
        assert_eq!(kubelet.calls()[before..], ["Get", "List"], "{name}");
        assert_eq!(told(&world, "ADD").last(), Some(&has("net1", A)), "{name}");
    }
}

#[test]
fn without_a_socket_the_checkpoint_is_read() {
    needs_programs!();
    let world = builder("dev-file").start();
    let pod = world.lab.pod("cam").networks("vf,vf");
    let (other, nodes) = (json!({"0": ["0000:00:00.0"]}), json!({"1": [B], "-1": [A]}));
    kubelet::write_checkpoint(&world.lab, VF, &[("another", other), (&pod.uid, nodes)]);
    world.add(&pod).expect_ok();
    assert_eq!(told(&world, "ADD"), [has("net1", A), has("net2", B)]);
}

#[test]
fn too_few_devices_are_a_refusal_that_changes_nothing() {
    needs_programs!();
    let world = builder("dev-few").start();
    let kubelet = Kubelet::start(&world.lab);
    let pod = world.lab.pod("cam").networks("vf,vf");
    kubelet.give(&pod, VF, &[A]);
    let text = world.add(&pod).expect_error(105);
    for part in ["\"default/vf\"", RESOURCE_NAME, "\"vendor.com/vf\"", "has 1", "request the resource"] {
        assert!(text.contains(part), "the refusal lacks {part}: {text}");
    }
    assert_eq!(pod.netns.link_names(), [""; 0]);
    assert_eq!(told(&world, "ADD"), [""; 0], "a plugin ran");

    let stranger = world.lab.pod("stranger").networks("vf");
    let text = world.add(&stranger).expect_error(105);
    assert!(text.contains("has none"), "{text}");
    // What the neighbour on the node has is not the stranger's.
    kubelet.give(&pod, VF, &[B]);
    world.add(&pod).expect_ok();
    assert_eq!(told(&world, "ADD"), [has("net1", A), has("net2", B)]);
}

#[test]
fn a_device_the_pod_names_counts_where_the_kubelet_has_none() {
    needs_programs!();
    let world = builder("dev-asked").start();
    let kubelet = Kubelet::start(&world.lab);
    let asked = r#"[{"name": "vf", "deviceID": "0000:09:09.9"}]"#;
    let without = world.lab.pod("without").networks(asked);
    world.add(&without).expect_ok();
    assert_eq!(told(&world, "ADD"), ["net1 - - 0000:09:09.9"]);
    let with = world.lab.pod("with").networks(asked);
    kubelet.give(&with, VF, &[A]);
    world.add(&with).expect_ok();
    assert_eq!(told(&world, "ADD")[1], has("net1", A));
}

#[test]
fn a_kubelet_with_too_many_calls_is_asked_again() {
    needs_programs!();
    let world = builder("dev-busy").start();
    let kubelet = Kubelet::start(&world.lab);
    let pod = world.lab.pod("cam").networks("vf");
    kubelet.give(&pod, VF, &[A]);
    kubelet.refuse(3);
    world.add(&pod).expect_ok();
    assert_eq!(kubelet.calls(), ["Get"; 4]);
}

#[test]
fn a_slow_kubelet_is_not_waited_for_beyond_the_deadline() {
    needs_programs!();
    let world = builder("dev-slow").configure(|config, _| config["requestTimeout"] = "4s".into()).start();
    let kubelet = Kubelet::start(&world.lab);
    let pod = world.lab.pod("cam").networks("vf");
    kubelet.give(&pod, VF, &[A]);
    kubelet.set_latency(Duration::from_millis(700));
    world.add(&pod).expect_ok();
    world.del(&pod).expect_ok();
    kubelet.set_latency(Duration::from_mins(1));
    let began = Instant::now();
    let text = world.add(&pod).expect_error(11);
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(text.contains("no answer within") && text.contains("kubelet.sock"), "{text}");
}

#[test]
fn what_is_no_kubelet_is_said_to_be_none() {
    needs_programs!();
    let world = builder("dev-garbage").configure(|config, _| config["requestTimeout"] = "4s".into()).start();
    let pod = world.lab.pod("cam").networks("vf");
    let path = kubelet::socket(&world.lab);
    let refused = |why: &str, parts: &[&str]| {
        let began = Instant::now();
        let text = world.add(&pod).expect_error(11);
        assert!(began.elapsed() < Duration::from_secs(6), "{why}: {:?}", began.elapsed());
        for part in parts.iter().copied().chain(["default/cam"]) {
            assert!(text.contains(part), "{why}: the sentence lacks {part}: {text}");
        }
        assert!(!text.contains('\u{1b}') && text.len() < 1_000, "{why}: {text}");
    };
    refused("nothing there", &["kubelet.sock", "kubelet_internal_checkpoint", "kubeletDir"]);

    let answers: [(&str, &[u8]); 4] = [
        ("closes at once", b""),
        ("another protocol", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("garbage", &[0x1b; 4096]),
        ("a frame too large", &[0xff; 64]),
    ];
    for (why, answer) in answers {
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("bind");
        let talk = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let _ = stream.write_all(answer);
            std::thread::sleep(Duration::from_millis(if answer.is_empty() { 0 } else { 300 }));
        });
        refused(why, &["kubelet.sock", "see whether the kubelet runs"]);
        talk.join().expect("the talker");
    }
    // The socket is there, and nobody listens any more.
    refused("refuses connections", &["kubelet.sock", "connect"]);

    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("bind");
    refused("says nothing", &["no answer within"]);
    drop(listener);

    std::fs::remove_file(&path).expect("remove the socket");
    kubelet::write_checkpoint(&world.lab, VF, &[]);
    let checkpoint = kubelet::folder(&world.lab).join("device-plugins/kubelet_internal_checkpoint");
    std::fs::write(&checkpoint, "garbage \u{1b}").expect("write");
    refused("a broken checkpoint", &["kubelet_internal_checkpoint"]);
}
