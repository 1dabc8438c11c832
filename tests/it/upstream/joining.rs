//! Networks that join and leave a running pod, as the dynamic-networks controller asks for it.

use std::time::Duration;

use lab::{NodeState, plugins, upstream, wait_until};
use multus_agent::names::NetnsPath;
use multus_agent::records::Records;
use serde_json::{Value, json};

use super::{attachments, cni, delegate, lan, on_host};

#[test]
fn a_network_joins_a_running_pod_and_goes_with_it() {
    needs_programs!();
    let world = on_host("hot", |builder| builder);
    let first = world.attached("first", "lan");
    world.del(&first).expect_ok();
    let before = NodeState::capture(&world.lab, &[]);
    let pod = world.attached("cam", "lan");
    let wishes = json!({"mac": "02:00:00:00:00:77", "cni-args": {"a": 1}});
    let answer = upstream::delegate(world.agent.socket(), "ADD", &pod, "net2", &lan(&world), &wishes).unwrap();
    let result = &answer["Result"];
    assert_eq!((&result["cniVersion"], &result["interfaces"][0]["name"]), (&json!("1.1.0"), &json!("net2")));
    assert_eq!(pod.netns.mac("net2"), [2, 0, 0, 0, 0, 0x77]);
    assert_eq!(delegate(&world, "CHECK", &pod, "net2", &lan(&world)), Ok(Value::Null));
    world.check(&pod).expect_ok();

    let shown = attachments(&world);
    let of = |ifname: &str| shown.iter().find(|item| item["interface"] == ifname).unwrap_or(&Value::Null);
    assert_eq!((&of("net2")["network"], &of("net2")["state"]), (&json!("default/lan"), &json!("added")), "{shown:#?}");
    assert_eq!(of("net2")["parent"], "eth0", "the datapath follows: {:#}", of("net2"));
    let names: Vec<_> =
        of("eth0")["networkStatus"].as_array().unwrap().iter().map(|entry| entry["interface"].clone()).collect();
    assert_eq!(names, ["eth0", "net1", "net2"]);

    pod.netns.ip("link del net2");
    let missed = world.check(&pod).expect_error(104);
    assert!(missed.contains("net2"), "CHECK of the pod covers it: {missed}");
    assert!(delegate(&world, "CHECK", &pod, "net2", &lan(&world)).unwrap_err().contains("net2"));
    world.del(&pod).expect_ok();
    before.assert_restored(&world.lab, &[], "DEL of a pod with a network that came later");
}

#[test]
fn a_network_leaves_a_running_pod() {
    needs_programs!();
    let world = on_host("unplug", |builder| {
        let bad = plugins::conf(
            &builder.lab,
            "bad",
            &json!({"DEL": {"error": {"code": 99, "msg": "not yet"}, "until": builder.lab.dir.join("now")}}),
        );
        builder.network("bad", &bad)
    });
    let pod = world.attached("cam", "lan");
    let running = NodeState::capture(&world.lab, &[&pod]);
    delegate(&world, "ADD", &pod, "net2", &lan(&world)).unwrap();
    assert_eq!(delegate(&world, "DEL", &pod, "net2", &lan(&world)), Ok(Value::Null));
    running.assert_restored(&world.lab, &[&pod], "a network that came and went");
    let again = delegate(&world, "DEL", &pod, "net2", &lan(&world));
    assert_eq!(again, Ok(Value::Null), "whoever lost our answer asks again");

    // A DEL that fails is reported, and stays recorded.
    let mut bad = plugins::conf(
        &world.lab,
        "bad",
        &json!({"DEL": {"error": {"code": 99, "msg": "not yet"}, "until": world.lab.dir.join("now")}}),
    );
    bad["name"] = "bad".into();
    delegate(&world, "ADD", &pod, "net3", &bad).unwrap();
    let refused = delegate(&world, "DEL", &pod, "net3", &bad).unwrap_err();
    assert!(refused.contains("not yet"), "{refused}");
    assert!(attachments(&world).iter().any(|item| item["interface"] == "net3"));
    std::fs::write(world.lab.dir.join("now"), "").unwrap();
    assert_eq!(delegate(&world, "DEL", &pod, "net3", &bad), Ok(Value::Null));
    running.assert_restored(&world.lab, &[&pod], "a network whose DEL failed once");
    // One that was there from the start may leave, too.
    assert_eq!(delegate(&world, "DEL", &pod, "net1", &lan(&world)), Ok(Value::Null));
    assert_eq!(pod.netns.link_names(), ["eth0"]);
    world.del(&pod).expect_ok();
}

#[test]
fn what_cannot_join_is_refused_and_changes_nothing() {
    needs_programs!();
    let world = on_host("hot-no", |builder| {
        let tied = json!({"cniVersion": "1.0.0", "name": "tied", "type": "macvlan", "master": "eth0"});
        builder.lab.network("default", "tied", &tied, &json!({"k8s.v1.cni.cncf.io/resourceName": "v.x/vf"}));
        builder
    });
    let pod = world.attached("cam", "lan");
    let stranger = world.lab.pod("stranger");
    let mut other = world.lab.pod("cam");
    other.id.clone_from(&pod.id);
    let before = NodeState::capture(&world.lab, &[&pod]);
    let named = |mut config: Value| {
        config["name"] = "n".into();
        config
    };
    let ipvlan = named(json!({"cniVersion": "1.0.0", "type": "ipvlan", "master": "eth0"}));
    let nowhere = named(json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "nonesuch0"}));
    let missing = named(json!({"cniVersion": "1.0.0", "type": "nonesuch-plugin"}));
    let tied = json!({"cniVersion": "1.0.0", "name": "tied", "type": "macvlan", "master": "eth0"});
    let lan = lan(&world);
    for (who, verb, ifname, network, words) in [
        (&stranger, "ADD", "net1", &lan, &["\"code\":3", "no attachments here"][..]),
        (&stranger, "DEL", "net1", &lan, &["\"code\":3"]),
        (&other, "ADD", "net2", &lan, &["\"code\":3", "default/cam"]),
        (&pod, "ADD", "net1", &lan, &["\"code\":4", "net1", "already exists"]),
        (&pod, "ADD", "eth0", &lan, &["\"code\":4", "eth0", "already exists"]),
        (&pod, "ADD", "net2", &ipvlan, &["\"code\":7", "eth0", "default/lan"]),
        (&pod, "ADD", "net2", &nowhere, &["\"code\":7", "nonesuch0"]),
        (&pod, "ADD", "net2", &missing, &["nonesuch-plugin", "install"]),
        (&pod, "ADD", "net2", &tied, &["\"code\":105", "v.x/vf"]),
        (&pod, "ADD", "net2", &json!({"type": "macvlan"}), &["name"]),
        (&pod, "ADD", "net2", &json!("{"), &["configuration of the network"]),
        (&pod, "DEL", "eth0", &lan, &["first"]),
        (&pod, "DEL", "net1", &ipvlan, &["lan"]),
        (&pod, "GC", "net1", &lan, &["code"]),
    ] {
        let refusal = delegate(&world, verb, who, ifname, network).unwrap_err();
        assert!(refusal.starts_with("400: "), "{refusal}");
        for word in words {
            assert!(refusal.contains(word), "{verb} {ifname}: no {word:?} in {refusal}");
        }
    }
    before.assert_restored(&world.lab, &[&pod], "what was refused");
    assert_eq!(attachments(&world).len(), 2, "{:#?}", attachments(&world));
    world.check(&pod).expect_ok();
    world.del(&pod).expect_ok();
}

#[test]
fn isolation_holds_for_a_network_that_two_foreign_namespaces_have() {
    needs_programs!();
    let twin = json!({"cniVersion": "1.0.0", "name": "twin", "type": "macvlan", "master": "eth0"});
    let world = on_host("hot-twin", |builder| {
        for namespace in ["one", "two"] {
            builder.lab.network(namespace, "twin", &twin, &json!({}));
        }
        builder.configure(|config, _| config["namespaceIsolation"] = true.into())
    });
    let pod = world.attached("cam", "lan");
    let refusal = delegate(&world, "ADD", &pod, "net2", &twin).unwrap_err();
    assert!(refusal.contains("\"code\":102"), "{refusal}");
    assert!(pod.netns.link("net2").is_none());
    world.del(&pod).expect_ok();
}

#[test]
fn a_networks_version_is_its_own_and_the_daemons_keys_stay_out() {
    needs_programs!();
    let world = on_host("hot-overlay", |builder| {
        let fake = plugins::conf(&builder.lab, "fake", &json!({}));
        builder.network("fake", &fake).configure(|config, _| config["cniVersion"] = "0.3.1".into())
    });
    let pod = world.attached("cam", "lan");
    let mut fake = plugins::conf(&world.lab, "fake", &json!({}));
    (fake["name"], fake["cniVersion"]) = ("fake".into(), "1.0.0".into());
    delegate(&world, "ADD", &pod, "net2", &fake).unwrap();
    delegate(&world, "DEL", &pod, "net2", &fake).unwrap();
    let journal = plugins::journal(&world.lab, "fake");
    fake["cniVersion"] = "1.1.0".into();
    assert_eq!(delegate(&world, "STATUS", &pod, "net2", &fake), Ok(Value::Null));
    fake["cniVersion"] = "1.0.0".into();
    assert_eq!(plugins::verbs(&plugins::journal(&world.lab, "fake")), ["ADD", "DEL", "STATUS"]);
    let [add, del] = [&journal[0].conf(), &journal[1].conf()];
    assert_eq!(add, &fake, "the configuration reaches the plugin as it is");
    assert_eq!((&del["cniVersion"], &del["prevResult"]["interfaces"][0]["name"]), (&json!("1.0.0"), &json!("net2")));
    world.del(&pod).expect_ok();
}

#[test]
fn an_agent_killed_while_a_network_joins_leaves_nothing_of_it() {
    needs_programs!();
    let mut world = on_host("hot-kill", |builder| {
        let slow = plugins::conf(
            &builder.lab,
            "slow",
            &json!({"ADD": {"sleep_ms": 800, "link": true}, "DEL": {"link": true}}),
        );
        builder.network("slow", &slow)
    });
    let pod = world.attached("cam", "lan");
    let before = NodeState::capture(&world.lab, &[&pod]);
    let mut slow =
        plugins::conf(&world.lab, "slow", &json!({"ADD": {"sleep_ms": 800, "link": true}, "DEL": {"link": true}}));
    slow["name"] = "slow".into();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| delegate(&world, "ADD", &pod, "net2", &slow));
        assert!(wait_until(Duration::from_secs(5), || !plugins::journal(&world.lab, "slow").is_empty()));
        lab::sys::signal(world.agent.pid(), libc::SIGKILL);
        assert!(asking.join().unwrap().is_err());
    });
    world.agent.kill9();
    std::thread::sleep(Duration::from_secs(1));
    world.agent.start_again(&world.lab);
    let verbs = || plugins::journal(&world.lab, "slow").iter().map(|entry| entry.verb().to_owned()).collect::<Vec<_>>();
    assert!(wait_until(Duration::from_secs(5), || verbs() == ["ADD", "DEL"]), "{:?}", verbs());
    before.assert_restored(&world.lab, &[&pod], "an agent killed while a network joined");
    world.check(&pod).expect_ok();
    world.del(&pod).expect_ok();
}

#[test]
fn under_an_old_record_with_a_process_path_no_link_stays_in_the_pod() {
    needs_programs!();
    let mut world = on_host("hot-old", |builder| builder);
    let refusing = json!({"ADD": {"error": {"code": 99, "msg": "never"}}});
    let refusing = plugins::conf(&world.lab, "refusing", &refusing);
    let half = json!({"cniVersion": "1.0.0", "name": "half", "plugins": [lan(&world), refusing]});
    let pod = world.attached("cam", "lan");
    let mut sleep = pod.netns.command("sleep").arg("60").spawn().expect("a process inside");
    world.agent.kill9();
    let records = Records::at(&world.lab.cni_dir);
    let mut record = records.all().expect("records").0.remove(0);
    // As a release wrote it that did not look which namespace it was; and net1 was begun later, and not finished.
    record.netns_id = None;
    record.netns = Some(NetnsPath::new(format!("/proc/{}/ns/net", sleep.id())).expect("a path"));
    (record.attachments[1].hotplug, record.attachments[1].result) = (true, None);
    records.save(&record).expect("write the record");
    world.agent.start_again(&world.lab);
    let refused = delegate(&world, "ADD", &pod, "net2", &half).expect_err("its second plugin refuses");
    assert!(refused.contains("never"), "{refused}");
    assert_eq!(pod.netns.link_names(), ["eth0"], "what was begun before, and the roll-back");
    delegate(&world, "ADD", &pod, "net1", &lan(&world)).expect("the name is free");
    assert_eq!(delegate(&world, "DEL", &pod, "net1", &lan(&world)), Ok(Value::Null));
    assert_eq!(pod.netns.link_names(), ["eth0"], "DEL");
    assert_eq!(attachments(&world).len(), 1, "{:#?}", attachments(&world));
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0], "DEL of the pod");
    sleep.kill().and_then(|()| sleep.wait()).expect("end the process");
}

#[test]
fn a_network_that_joins_never_displaces_the_default_route() {
    needs_programs!();
    let world = on_host("joins-route", |builder| builder);
    let pod = world.lab.pod("cam");
    cni(&world, "ADD", Some(&pod)).expect("ADD");
    let route = || pod.netns.ip_json("route get 1.1.1.1")[0]["dev"].as_str().unwrap_or("nothing").to_owned();
    assert_eq!(route(), "eth0");
    let mut network = lan(&world);
    network["ipam"]["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "192.168.50.254"}]);
    delegate(&world, "ADD", &pod, "net1", &network).expect("join");
    assert_eq!(route(), "eth0");
    delegate(&world, "ADD", &pod, "net2", &network).expect("join");
    assert_eq!(route(), "eth0");
    let all = pod.netns.ip_json("route show default");
    assert_eq!(all.as_array().map(Vec::len), Some(3), "they stay, as second and third choice: {all:#}");
    delegate(&world, "CHECK", &pod, "net1", &network).expect("check");
    cni(&world, "DEL", Some(&pod)).expect("DEL");
}
