//! What is said beforehand is what happens: `explain` and `lint` against the real ADD, manifest by manifest.
//!
//! On failure the same code, sentence and remedy; on success the same interfaces, plugins and standard inputs.

mod manifests;

use std::fs;

use lab::world::Builder;
use lab::{Pod, World, plugins, process};
use serde_json::{Value, json};

use manifests::{Case, Ends};

/// The manifests of every case on one node whose networks are made by fake plugins, isolation on.
fn node(name: &str) -> (World, Vec<(Case, Pod)>) {
    let builder = Builder::new(name);
    let lab = &builder.lab;
    let first = manifests::fake(lab, "fake-first");
    fs::write(
        lab.conf_dir.join("10-first.conflist"),
        json!({"cniVersion": "1.0.0", "name": "first", "plugins": [first]}).to_string(),
    )
    .expect("write the cluster network");
    fs::write(lab.conf_dir.join("filed.conf"), {
        let mut filed = manifests::fake(lab, "fake-a");
        filed["name"] = "filed".into();
        filed.to_string()
    })
    .expect("write a network's file");
    manifests::networks(lab);
    let cases = manifests::cases();
    let pods: Vec<_> = cases
        .iter()
        .map(|case| {
            let pod = lab.pod(case.name).in_namespace(case.namespace);
            case.annotations.iter().fold(pod, |pod, (key, value)| pod.annotate(key, value.clone()))
        })
        .collect();
    for pod in &pods {
        lab.pod_object(pod);
    }
    let world = builder
        .configure(|config, lab| {
            config["namespaceIsolation"] = true.into();
            config["clusterNetwork"] = json!(lab.conf_dir.join("10-first.conflist"));
        })
        .start();
    (world, cases.into_iter().zip(pods).collect())
}

fn explained(world: &World, pod: &Pod) -> Value {
    let name = format!("{}/{}", pod.namespace, pod.name);
    let done = world.agent.cli(&world.lab, &["explain", "pod", &name, "-o", "json"]);
    let document: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|e| panic!("{name}: not JSON ({e}): {}{}", done.out(), done.err()));
    assert_eq!(done.code, Some(i32::from(!document["refusal"].is_null())), "{name}: {document:#}");
    document
}

/// Everything that `lint` says of the same manifests, with the same configuration and the same plugins.
fn linted(world: &World) -> Value {
    let lab = &world.lab;
    let (config, bins, objects) =
        (lab.dir.join("daemon-config.json"), lab.bin_dir.display().to_string(), lab.objects_dir.display().to_string());
    let args = ["lint", &objects, "--config", &config.display().to_string(), "--bin-dir", &bins, "-o", "json"];
    let mut command = lab.node.command(lab::agent::program("multus-agent"));
    let done = process::run(command.args(args), b"", std::time::Duration::from_secs(20));
    assert_eq!(done.code, Some(1), "{}{}", done.out(), done.err());
    serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("not JSON ({e}): {}", done.out()))
}

/// What the fakes were told at the ADD of `pod`: interface and standard input, in order, without `prevResult`.
fn told(world: &World, pod: &Pod) -> Vec<(String, Value)> {
    plugins::journal(&world.lab, manifests::JOURNAL)
        .iter()
        .filter(|entry| entry.verb() == "ADD" && entry.env("CNI_CONTAINERID") == pod.id)
        .map(|entry| {
            let mut conf = entry.conf();
            conf.as_object_mut().expect("an object").remove("prevResult");
            (entry.env("CNI_IFNAME").to_owned(), conf)
        })
        .collect()
}

/// The same of an explanation.
fn planned(document: &Value) -> Vec<(String, Value)> {
    let attachments = document["attachments"].as_array().expect("attachments");
    let of = |attachment: &Value| {
        let interface = attachment["interface"].as_str().expect("an interface").to_owned();
        let delegates = attachment["delegates"].as_array().expect("delegates").clone();
        delegates.into_iter().map(move |delegate| (interface.clone(), delegate["stdin"].clone())).collect::<Vec<_>>()
    };
    attachments.iter().flat_map(of).collect()
}

/// A sentence without whose request it is: `Multus: [namespace/name/uid]: `.
fn bare(sentence: &str) -> &str {
    match sentence.strip_prefix("Multus: [").and_then(|rest| rest.split_once("]: ")) {
        Some((_, rest)) => rest,
        None => sentence,
    }
}

#[test]
fn explain_and_lint_say_what_add_then_does() {
    needs_programs!();
    let (world, cases) = node("explain");
    assert!(cases.len() >= 40, "{} manifests", cases.len());
    let lint = linted(&world);
    for (case, pod) in &cases {
        let name = case.name;
        let before = explained(&world, pod);
        let of_pod = |each: &&Value| each["name"] == pod.name.as_str() && each["namespace"] == pod.namespace.as_str();
        let of_lint =
            lint["pods"].as_array().expect("pods").iter().find(of_pod).unwrap_or_else(|| panic!("{name}: not linted"));
        let add = world.add(pod);
        match &case.ends {
            Ends::Attached(interfaces) => {
                add.expect_ok();
                assert_eq!(before["refusal"], Value::Null, "{name}: {before:#}");
                assert_eq!(of_lint["refusal"], Value::Null, "{name}: {of_lint:#}");
                let told = told(&world, pod);
                assert_eq!(planned(&before), told, "{name}: explain");
                assert_eq!(planned(of_lint), told, "{name}: lint");
                assert_eq!(before["attachments"], of_lint["attachments"], "{name}");
                let mut named: Vec<_> = told.iter().map(|(interface, _)| interface.as_str()).collect();
                named.dedup();
                assert_eq!(&named[1..], &interfaces[..], "{name}");
            }
            Ends::Refused(code, named) => {
                let error = add.error();
                assert_eq!(error["code"], *code, "{name}: {error:#}");
                let said = json!({"code": error["code"], "message": error["msg"], "remedy": error.get("details").cloned().unwrap_or("".into())});
                assert_eq!(before["refusal"], said, "{name}: explain");
                assert!(said.to_string().contains(named), "{name}: no {named} in {said:#}");
                assert_ne!(said["remedy"], "", "{name}: no remedy: {said:#}");
                if case.needs_node {
                    assert_eq!(of_lint["refusal"], Value::Null, "{name}: lint knows no node: {of_lint:#}");
                    continue;
                }
                let sentence = bare(error["msg"].as_str().expect("a sentence"));
                assert_eq!(
                    of_lint["refusal"],
                    json!({"code": said["code"], "message": sentence, "remedy": said["remedy"]}),
                    "{name}: lint"
                );
                let found = lint["findings"]
                    .as_array()
                    .expect("findings")
                    .iter()
                    .find(|finding| finding["severity"] == "error" && finding["message"] == sentence);
                assert_eq!(found.map(|finding| &finding["code"]), Some(&json!(case.rule)), "{name}: {sentence}");
            }
        }
    }
}

#[test]
fn a_secret_reaches_its_plugin_and_nobody_else() {
    needs_programs!();
    let builder = Builder::new("secrets");
    let mut conf = plugins::conf(&builder.lab, "fake-a", &json!({}));
    conf["apiToken"] = "canary".into();
    let world = builder.network("guarded", &conf).start();
    let pod = world.lab.pod("web").networks(r#"[{"name":"guarded","cni-args":{"wifiPassword":"canary","vlan":5}}]"#);
    world.lab.pod_object(&pod);
    for format in ["table", "json", "yaml"] {
        let done = world.agent.cli(&world.lab, &["explain", "pod", "web", "-o", format]);
        assert_eq!(done.code, Some(0), "{}{}", done.out(), done.err());
        assert!(done.out().contains("vlan") && !done.out().contains("canary"), "{format}: {}", done.out());
    }
    world.add(&pod).expect_ok();
    let told = plugins::journal(&world.lab, "fake-a");
    assert_eq!(told[0].stdin().matches("canary").count(), 2, "{}", told[0].stdin());
}

#[test]
fn a_pod_that_nobody_knows_and_names_that_are_none() {
    needs_programs!();
    let world = World::new("unknown");
    let done = world.agent.cli(&world.lab, &["explain", "pod", "nobody"]);
    assert_eq!(done.code, Some(1), "{}", done.out());
    assert!(done.out().contains("\"default/nobody\" does not exist"), "{}", done.out());
    let done = world.agent.cli(&world.lab, &["explain", "pod", "a/b/c"]);
    assert_eq!(done.code, Some(2), "{}", done.err());
    assert!(done.err().contains("NAMESPACE/NAME"), "{}", done.err());
}
