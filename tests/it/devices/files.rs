//! Where device-info files come from, who sees them, and when they go.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use lab::{Lab, Pod, World, plugins, wait_until};
use serde_json::{Value, json};

use super::kubelet::Kubelet;
use super::{A, RESOURCE_NAME, VF, builder};

const INFO: &str = r#"{"type":"pci","version":"1.1.0","pci":{"pci-address":"0000:03:02.1","rdma-device":"mlx5_0"}}"#;

/// A node whose device plugin wrote `info` about device [`A`], which `cam` has.
fn world(name: &str, info: Option<&str>) -> (World, Kubelet, Pod) {
    let world = builder(name).start();
    if let Some(info) = info {
        fs::create_dir_all(folder(&world.lab, "dp")).expect("make the device plugin's folder");
        fs::write(folder(&world.lab, "dp").join("vendor.com-vf-0000:03:02.1-device.json"), info).expect("write");
    }
    let kubelet = Kubelet::start(&world.lab);
    let pod = world.lab.pod("cam").networks("vf");
    kubelet.give(&pod, VF, &[A]);
    (world, kubelet, pod)
}

fn folder(lab: &Lab, part: &str) -> PathBuf {
    lab.dir.join("devinfo").join(part)
}

/// Where the specification says that the file of `pod` is.
fn file(world: &World, pod: &Pod) -> PathBuf {
    folder(&world.lab, "cni").join(format!("vf-{}_net1", pod.id))
}

/// `device-info` in the pod's network-status, for `net1`.
fn in_status(world: &World) -> Value {
    let done = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]);
    let document: Value = serde_json::from_str(&done.out()).expect("a document");
    let items = document["items"].as_array().expect("items").clone();
    let status = items.iter().find_map(|item| item["networkStatus"].as_array()).expect("a status");
    status.iter().find(|entry| entry["interface"] == "net1").expect("net1")["device-info"].clone()
}

#[test]
fn the_delegate_finds_the_file_the_status_shows_it_and_del_removes_it() {
    needs_programs!();
    let (world, _kubelet, pod) = world("dev-info", Some(INFO));
    world.add(&pod).expect_ok();
    let path = file(&world, &pod);
    for call in plugins::journal(&world.lab, "fake-sriov") {
        assert_eq!(call.conf()["runtimeConfig"]["CNIDeviceInfoFile"], json!(path), "{}", call.verb());
    }
    assert_eq!(fs::read_to_string(&path).expect("the delegate's file"), INFO);
    assert_eq!(in_status(&world), serde_json::from_str::<Value>(INFO).expect("JSON"));
    world.del(&pod).expect_ok();
    assert!(!path.exists(), "the file outlived its attachment");
    assert!(folder(&world.lab, "dp").join("vendor.com-vf-0000:03:02.1-device.json").exists(), "that is not ours");
    let del = plugins::journal(&world.lab, "fake-sriov").pop().expect("a call");
    assert_eq!((del.verb(), &del.conf()["runtimeConfig"]["CNIDeviceInfoFile"]), ("DEL", &json!(path)));
}

#[test]
fn without_the_device_plugins_file_nothing_is_missing() {
    needs_programs!();
    let (world, _kubelet, pod) = world("dev-noinfo", None);
    world.add(&pod).expect_ok();
    assert_eq!(in_status(&world), Value::Null);
    assert!(!file(&world, &pod).exists());
    // A delegate may write it by itself; then it goes with the attachment all the same.
    fs::write(file(&world, &pod), INFO).expect("write");
    world.del(&pod).expect_ok();
    assert!(!file(&world, &pod).exists());
}

#[test]
fn a_file_of_another_shape_is_left_out_of_the_status() {
    needs_programs!();
    let deep = format!("{}1{}", r#"{"type":"#.repeat(5_000), "}".repeat(5_000));
    let long = format!(r#"{{"type":"pci","version":"{}","pci":{{}}}}"#, "x".repeat(70_000));
    for (name, info) in
        [("text", "garbage"), ("list", "[]"), ("kind", r#"{"type":"usb"}"#), ("deep", &deep), ("long", &long)]
    {
        let (world, _kubelet, pod) = world(&format!("dev-odd-{name}"), Some(info));
        world.add(&pod).expect_ok();
        assert_eq!(in_status(&world), Value::Null, "{name}");
        world.del(&pod).expect_ok();
        assert!(!file(&world, &pod).exists(), "{name}");
    }
}

#[test]
fn a_failed_add_takes_the_file_with_it() {
    needs_programs!();
    let builder = builder("dev-failed");
    let mut conf = plugins::conf(&builder.lab, "broken", &json!({"ADD": {"exit": 1}}));
    conf["capabilities"] = json!({"CNIDeviceInfoFile": true});
    builder.lab.network("default", "broken", &conf, &json!({RESOURCE_NAME: VF}));
    let world = builder.start();
    fs::create_dir_all(folder(&world.lab, "dp")).expect("make the device plugin's folder");
    fs::write(folder(&world.lab, "dp").join("vendor.com-vf-0000:03:02.1-device.json"), INFO).expect("write");
    let kubelet = Kubelet::start(&world.lab);
    let pod = world.lab.pod("cam").networks("vf,broken");
    kubelet.give(&pod, VF, &[A, "0000:03:02.2"]);
    world.add(&pod).expect_error(103);
    let left: Vec<_> = fs::read_dir(folder(&world.lab, "cni")).expect("the folder").flatten().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn a_del_without_the_agent_leaves_the_file_to_the_next_one() {
    needs_programs!();
    let (mut world, _kubelet, pod) = world("dev-offline", Some(INFO));
    world.add(&pod).expect_ok();
    let path = file(&world, &pod);
    assert!(path.exists());
    world.agent.kill9();
    world.del(&pod).expect_ok();
    world.agent.start_again(&world.lab);
    assert!(wait_until(Duration::from_secs(5), || !path.exists()), "the file is still there");
}

#[test]
fn ids_from_outside_lead_nowhere_else() {
    needs_programs!();
    let builder = builder("dev-paths");
    let world = builder.start();
    let kubelet = Kubelet::start(&world.lab);
    let pod = world.lab.pod("cam").networks("vf");
    // Where the name would lead if its slashes stayed: `dp/vendor.com/vf-/../../../secret-device.json`.
    fs::create_dir_all(folder(&world.lab, "dp/vendor.com/vf-")).expect("make a folder");
    fs::write(world.lab.dir.join("devinfo/secret-device.json"), INFO).expect("write");
    kubelet.give(&pod, VF, &["/../../../secret"]);
    world.add(&pod).expect_ok();
    assert_eq!(in_status(&world), Value::Null, "a file outside its folder was read");
    world.del(&pod).expect_ok();
    let odd = world.lab.pod("odd").networks("vf");
    kubelet.give(&odd, VF, &["white space"]);
    world.add(&odd).expect_error(105);
}
