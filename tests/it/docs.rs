//! The manifests and settings in tutorials and how-tos: whoever copies them gets what the page says.

use std::fs;
use std::path::{Path, PathBuf};

use lab::world::Builder;
use lab::{Lab, World};
use multus_agent::config::Settings;
use serde_json::Value;

/// The pages that tell people what to write.
fn pages() -> Vec<PathBuf> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let files = ["tutorials", "how-to"].into_iter().flat_map(|kind| fs::read_dir(docs.join(kind)).expect("a folder"));
    let mut pages: Vec<PathBuf> = files.map(|entry| entry.expect("an entry").path()).collect();
    pages.retain(|path| path.extension().is_some_and(|end| end == "md"));
    pages.sort();
    pages
}

/// The fenced blocks of `language` on a page.
fn blocks(page: &Path, language: &str) -> Vec<String> {
    let text = fs::read_to_string(page).expect("read a page");
    let fence = format!("```{language}\n");
    let after_fences = text.split(&fence).skip(1);
    after_fences.filter_map(|rest| rest.split("\n```").next().map(str::to_owned)).collect()
}

/// The objects of a page's YAML.
fn objects(page: &Path) -> Vec<Value> {
    let blocks = blocks(page, "yaml");
    let documents = blocks.iter().flat_map(|block| block.split("\n---\n"));
    documents
        .map(|text| serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{}: {error}\n{text}", page.display())))
        .collect()
}

/// The same network, with its addresses' state in the lab and not on this machine.
fn network(world: &World, object: &Value) {
    let config = object["spec"]["config"].as_str().expect("a configuration");
    let mut config: Value = serde_json::from_str(config).unwrap_or_else(|error| panic!("{error}: {config}"));
    let has_plugins = config["plugins"].is_array();
    let plugins =
        if has_plugins { config["plugins"].as_array_mut().expect("a list") } else { &mut vec![config.take()] };
    for plugin in plugins.iter_mut().filter(|plugin| plugin["ipam"]["type"] == "host-local") {
        plugin["ipam"]["dataDir"] = world.lab.ipam_dir.display().to_string().into();
    }
    let config = if has_plugins { config } else { plugins[0].take() };
    let metadata = &object["metadata"];
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    world.lab.network(namespace, name, &config, &metadata["annotations"]);
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[test]
fn every_manifest_does_what_its_page_says() {
    needs_programs!();
    let mut lab = Lab::new("docs");
    // A VLAN's link by its name: the kernel here may have no VLANs.
    lab.add_lan("eth0.20", 60);
    let world = Builder::on(lab).start();
    let mut attached = Vec::new();
    for page in pages() {
        let objects = objects(&page);
        let of_kind = |kind: &str| objects.iter().filter(|object| object["kind"] == kind).cloned().collect::<Vec<_>>();
        for object in of_kind("NetworkAttachmentDefinition") {
            network(&world, &object);
        }
        let pods = of_kind("Pod").into_iter();
        let of_templates = ["StatefulSet", "Deployment", "DaemonSet"].into_iter().flat_map(of_kind).map(|object| {
            let mut template = object["spec"]["template"].clone();
            template["metadata"]["name"] = object["metadata"]["name"].clone();
            template["metadata"]["namespace"] = object["metadata"]["namespace"].clone();
            template
        });
        for object in pods.chain(of_templates) {
            let metadata = &object["metadata"];
            let mut pod = world.lab.pod(text(&metadata["name"])).in_namespace(text(&metadata["namespace"]));
            for (key, value) in metadata["annotations"].as_object().expect("annotations") {
                pod = pod.annotate(key, text(value));
            }
            // The folder of manifests is read a moment after it was written.
            let mut answer = world.add(&pod);
            let added = lab::wait_until(std::time::Duration::from_secs(5), || {
                if !answer.ok() {
                    answer = world.add(&pod);
                }
                answer.ok()
            });
            assert!(added, "{}: {}", page.display(), answer.describe());
            world.check(&pod).expect_ok();
            let links: Vec<String> = pod.netns.link_names().into_iter().filter(|link| link != "eth0").collect();
            let routes = pod.netns.ip_json("route show default");
            let addresses = links.first().map(|link| pod.netns.addresses(link).concat()).unwrap_or_default();
            attached.push(format!("{} {} {addresses} {}", pod.name, links.concat(), text(&routes[0]["dev"])));
            world.del(&pod).expect_ok();
        }
    }
    let wanted = [
        "vpn net1 192.168.1.232/24 net1",
        "dns net1 192.168.1.53/24 eth0",
        "frigate cam0 192.168.20.200/24 eth0",
        "first net1 192.168.1.200/24 eth0",
        "home-assistant net1 192.168.1.220/24 eth0",
    ];
    assert_eq!(attached, wanted, "pod, interface, address and where the default route goes");
}

#[test]
fn every_setting_is_known() {
    let mut seen = 0;
    for page in pages() {
        for block in blocks(&page, "json") {
            let (_, warnings) = Settings::parse(&block).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
            assert!(warnings.is_empty(), "{}: {warnings:?}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 0, "no page has settings");
}
