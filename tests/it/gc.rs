//! GC: what is not listed is freed, whoever knew of it; plugins that speak 1.1 hear what is to stay.

use std::fs;
use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{World, plugins, wait_until};
use serde_json::json;

#[test]
fn plugins_that_speak_1_1_are_told_what_stays() {
    needs_programs!();
    let builder = Builder::new("gc-told");
    let conf = |name: &str, version: &str| {
        let mut conf = plugins::conf(&builder.lab, name, &json!({}));
        conf["cniVersion"] = version.into();
        conf
    };
    let (new, old, mut mute) = (conf("new", "1.1.0"), conf("old", "1.0.0"), conf("mute", "1.1.0"));
    mute["disableGC"] = true.into();
    let mut unused = conf("unused", "1.1.0");
    unused["type"] = "not-installed".into();
    let mut world =
        builder.network("new", &new).network("old", &old).network("mute", &mute).network("unused", &unused).start();
    "1.1.0".clone_into(&mut world.runtime.version);
    let (stays, goes) = (world.attached("stays", "new@data,old,mute"), world.attached("goes", "new,old,mute"));
    world.runtime.gc(&world.lab, &[&stays]).expect_ok();
    let journal = plugins::journal(&world.lab, "new");
    assert_eq!(plugins::verbs(&journal), ["ADD", "ADD", "DEL", "GC"], "unlisted attachments are deleted first");
    let gc = journal.last().expect("a call");
    let valid = json!([{"containerID": stays.id, "ifname": "data"}]);
    assert_eq!((&gc.conf()["cni.dev/valid-attachments"], &gc.conf()["name"]), (&valid, &json!("new")));
    assert_eq!((gc.env("CNI_CONTAINERID"), gc.env("CNI_NETNS"), gc.env("CNI_IFNAME")), ("", "", ""));
    assert_eq!(journal[2].env("CNI_CONTAINERID"), goes.id);
    for quiet in ["old", "mute"] {
        let journal = plugins::journal(&world.lab, quiet);
        assert_eq!(plugins::verbs(&journal), ["ADD", "ADD", "DEL"], "{quiet}");
    }
    world.del(&stays).expect_ok();
}

#[test]
fn a_plugins_refusal_of_gc_reaches_the_runtime_with_its_code() {
    needs_programs!();
    let builder = Builder::new("gc-refused");
    let mut conf = plugins::conf(&builder.lab, "busy", &json!({"GC": {"error": {"code": 11, "msg": "in a minute"}}}));
    conf["cniVersion"] = "1.1.0".into();
    let mut world = builder.network("busy", &conf).start();
    "1.1.0".clone_into(&mut world.runtime.version);
    let pod = world.attached("cam", "busy");
    let text = world.runtime.gc(&world.lab, &[&pod]).expect_error(11);
    assert!(text.contains("in a minute") && text.contains("busy"), "{text}");
    world.del(&pod).expect_ok();
}

#[test]
fn what_no_record_knows_of_is_collected_from_the_cache() {
    needs_programs!();
    let mut world = World::new("gc-orphans");
    "1.1.0".clone_into(&mut world.runtime.version);
    let baseline = world.baseline();
    let (stays, orphan) = (world.attached("stays", "lan"), world.attached("orphan", "lan"));
    world.agent.kill9();
    for pod in [&stays, &orphan] {
        fs::remove_file(world.lab.cni_dir.join(format!("records/{}.record", pod.id))).expect("lose a record");
    }
    orphan.netns.remove();
    world.agent.start_again(&world.lab);
    world.runtime.gc(&world.lab, &[&stays]).expect_ok();
    assert_eq!(plugins::allocations(&world.lab.ipam_dir).len(), 3, "the addresses of the pod that stays");
    world.check(&stays).expect_ok();
    world.del(&stays).expect_ok();
    baseline.assert_restored(&world.lab, &[], "GC of an orphan and DEL of the other");
}

#[test]
fn gc_and_status_are_about_no_container_whatever_the_environment_says() {
    needs_programs!();
    let mut world = World::new("gc-args");
    "1.1.0".clone_into(&mut world.runtime.version);
    let pod = world.attached("cam", "lan");
    for verb in ["STATUS", "GC"] {
        let call = world.runtime.call(verb, None).var("CNI_ARGS", "nonsense;;K8S_POD_NAMESPACE=../x;K8S_POD_NAME=?");
        let call = call.var("CNI_CONTAINERID", "../../x").var("CNI_IFNAME", "a/b").var("CNI_NETNS", "nowhere");
        let valid = json!([{"containerID": pod.id, "ifname": "eth0"}]);
        call.conf(|conf| conf["cni.dev/valid-attachments"] = valid).run(&world.lab.node).expect_ok();
    }
    assert!(pod.netns.link("net1").is_some());
    world.del(&pod).expect_ok();
}

#[test]
fn a_listed_container_stays_whatever_was_lost_of_it() {
    needs_programs!();
    let mut world = World::new("gc-half-lost");
    "1.1.0".clone_into(&mut world.runtime.version);
    let stays = world.attached("stays", "lan");
    world.agent.kill9();
    fs::remove_file(world.lab.cni_dir.join(format!("records/{}.record", stays.id))).expect("lose the record");
    for entry in lab::state::files(&world.lab.cni_dir.join("results")) {
        if entry.to_string_lossy().ends_with("-eth0") {
            fs::remove_file(entry).expect("lose the master's entry");
        }
    }
    world.agent.start_again(&world.lab);
    world.runtime.gc(&world.lab, &[&stays]).expect_ok();
    assert!(stays.netns.link("net1").is_some(), "a running pod lost its network");
    world.del(&stays).expect_ok();
}

#[test]
fn an_add_that_is_under_way_is_no_leftover() {
    needs_programs!();
    let builder = Builder::new("gc-add");
    let go = builder.lab.dir.join("go");
    let conf = plugins::conf(&builder.lab, "slow", &json!({"ADD": {"wait_for": go}}));
    let mut world = builder.network("slow", &conf).start();
    "1.1.0".clone_into(&mut world.runtime.version);
    world.runtime.plugin["requestTimeout"] = "12s".into();
    let orphan = world.lab.pod("orphan");
    world.add(&orphan).expect_ok();
    let late = world.lab.pod("late").networks("slow");
    let adding = world.runtime.call("ADD", Some(&late)).start(&world.lab.node);
    assert!(wait_until(Duration::from_secs(5), || !plugins::journal(&world.lab, "slow").is_empty()));
    let began = Instant::now();
    let gc = world.runtime.gc(&world.lab, &[]);
    let took = began.elapsed();
    fs::write(&go, "").expect("let the plugin end");
    let added = adding.wait(Duration::from_secs(20));
    gc.expect_ok();
    assert!(orphan.netns.link("eth0").is_none(), "the orphan is collected whoever is busy");
    assert!(took < Duration::from_secs(2), "GC waited for an ADD: {took:?}");
    assert!(added.success() && late.netns.link("eth0").is_some(), "{} {}", added.out(), added.err());
    world.del(&late).expect_ok();
}

#[test]
fn no_plugin_is_told_to_remove_what_a_lost_container_may_have() {
    needs_programs!();
    let builder = Builder::new("gc-lost");
    let mut conf = plugins::conf(&builder.lab, "new", &json!({}));
    conf["cniVersion"] = "1.1.0".into();
    let mut world = builder.network("new", &conf).start();
    "1.1.0".clone_into(&mut world.runtime.version);
    let (lost, known) = (world.attached("lost", "new"), world.attached("known", "new"));
    world.agent.kill9();
    fs::remove_file(world.lab.cni_dir.join(format!("records/{}.record", lost.id))).expect("lose the record");
    for entry in lab::state::files(&world.lab.cni_dir.join("results")) {
        if entry.to_string_lossy().contains(&lost.id) {
            fs::remove_file(entry).expect("lose an entry");
        }
    }
    world.agent.start_again(&world.lab);
    world.runtime.gc(&world.lab, &[&lost, &known]).expect_ok();
    let journal = plugins::journal(&world.lab, "new");
    assert_eq!(plugins::verbs(&journal), ["ADD", "ADD"], "its list would lack a running pod");
    world.del(&lost).expect_ok();
    world.runtime.gc(&world.lab, &[&known]).expect_ok();
    assert_eq!(plugins::journal(&world.lab, "new").last().map(|entry| entry.verb().to_owned()), Some("GC".to_owned()));
    world.del(&known).expect_ok();
}
