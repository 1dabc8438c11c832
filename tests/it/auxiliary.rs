//! The auxiliary chain and the built-in plugin `passthru`.

use std::fs;

use lab::world::Builder;
use lab::{NodeState, plugins};
use serde_json::{Value, json};

#[test]
fn the_auxiliary_chain_comes_last_and_is_deleted_from_the_record() {
    needs_programs!();
    let builder = Builder::new("aux").configure(|config, _| config["auxiliaryCNIChainName"] = "vendor".into());
    let lan = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &lan).start();
    let before = world.baseline();
    // A folder without plugins, or none, is no chain.
    let plain = world.attached("plain", "lan");
    assert_eq!(plain.netns.link_names(), ["eth0", "net1"]);
    world.del(&plain).expect_ok();

    let folder = world.lab.conf_dir.join("vendor");
    fs::create_dir(&folder).unwrap();
    let mut fake = plugins::conf(&world.lab, "fake", &json!({}));
    fake.as_object_mut().unwrap().remove("cniVersion");
    fs::write(folder.join("20-fake.conf"), fake.to_string()).unwrap();
    fs::write(folder.join("30-not.txt"), "not a plugin").unwrap();
    let pod = world.attached("cam", "lan");
    world.check(&pod).expect_ok();
    let journal = plugins::journal(&world.lab, "fake");
    assert_eq!(plugins::verbs(&journal), ["ADD", "CHECK"]);
    let conf = journal[0].conf();
    assert_eq!((&conf["name"], &conf["cniVersion"]), (&json!("vendor"), &json!("1.0.0")));
    assert_eq!(conf["prevResult"]["cniVersion"], "1.0.0", "what passthru answered: {conf:#}");
    assert_eq!(journal[0].env("CNI_IFNAME"), "net2", "after the pod's own network");
    let shown = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]).out();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let told: Vec<_> =
        shown["items"][0]["networkStatus"].as_array().unwrap().iter().map(|entry| &entry["name"]).collect();
    assert_eq!(told, ["lab-default", "default/lan"], "a chain that made no interface is no news to the pod");
    // Deleted from the record: the folder may be gone, and the agent away.
    fs::remove_dir_all(&folder).unwrap();
    world.del(&pod).expect_ok();
    assert_eq!(plugins::verbs(&plugins::journal(&world.lab, "fake")), ["ADD", "CHECK", "DEL"]);
    before.assert_restored(&world.lab, &[], "a pod with an auxiliary chain");
}

#[test]
fn a_chain_with_passthru_is_deleted_without_the_agent() {
    needs_programs!();
    let builder = Builder::new("aux-away").configure(|config, _| config["auxiliaryCNIChainName"] = "vendor".into());
    let folder = builder.lab.conf_dir.join("vendor");
    fs::create_dir(&folder).unwrap();
    let mut fake = plugins::conf(&builder.lab, "fake", &json!({}));
    fake.as_object_mut().unwrap().remove("cniVersion");
    fs::write(folder.join("20-fake.conf"), fake.to_string()).unwrap();
    let mut world = builder.start();
    let pod = world.lab.pod("cam");
    world.add(&pod).expect_ok();
    world.agent.kill9();
    let del = world.del(&pod);
    del.expect_ok();
    assert_eq!(del.done.err(), "", "nothing was left over");
    assert_eq!(plugins::verbs(&plugins::journal(&world.lab, "fake")), ["ADD", "DEL"]);
    assert!(NodeState::capture(&world.lab, &[]).facts(".record").is_empty());
}

#[test]
fn without_a_path_there_is_no_folder_to_look_in() {
    needs_programs!();
    let builder = Builder::new("aux-path").configure(|config, _| {
        config["auxiliaryCNIChainName"] = "vendor".into();
        config["clusterNetwork"] = "lab-default".into();
    });
    let world = builder.start();
    let pod = world.lab.pod("cam");
    let said = world.add(&pod).expect_error(7);
    for word in ["auxiliaryCNIChainName", "\"vendor\"", "clusterNetwork", "\"lab-default\"", "path"] {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
    assert_eq!(pod.netns.link_names(), [""; 0]);
}

#[test]
fn passthru_needs_no_program() {
    needs_programs!();
    let builder = Builder::new("passthru");
    assert!(!builder.lab.bin_dir.join("passthru").exists());
    let fake = plugins::conf(&builder.lab, "fake", &json!({"ADD": {"link": true}, "DEL": {"link": true}}));
    let list = json!({"cniVersion": "0.4.0", "name": "list", "plugins": [fake, {"type": "passthru"}]});
    let old = json!({"cniVersion": "0.2.0", "name": "old", "type": "passthru"});
    let alone = json!({"cniVersion": "0.3.1", "type": "passthru"});
    let world = builder.network("alone", &alone).network("list", &list).network("old", &old).start();
    let before = world.baseline_without_networks();
    let pod = world.attached("cam", "alone,list");
    assert!(pod.netns.link("net2").is_some(), "{:?}", pod.netns.link_names());
    let shown = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]).out();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let status = &shown["items"][0]["networkStatus"];
    assert_eq!(status[2]["interface"], "net2", "passthru hands the result on: {status:#}");
    world.check(&pod).expect_ok();
    world.del(&pod).expect_ok();
    before.assert_restored(&world.lab, &[], "a pod with passthru");
    let old = world.lab.pod("old").networks("old");
    let said = world.add(&old).expect_error(1);
    assert!(said.contains("passthru") && said.contains("0.2.0"), "{said}");
    assert_eq!(old.netns.link_names(), [""; 0], "what came before it was undone");
}
