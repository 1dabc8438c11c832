//! Who has the pod's default route, family by family, as the kernel says it and as everybody is told.

use std::fs;

use lab::world::Builder;
use lab::{Pod, World};
use serde_json::{Value, json};

/// A node whose default network is dual-stack or IPv4 only, with networks that bring default routes of their own.
fn node(name: &str, master_has_v6: bool) -> World {
    let mut builder = Builder::new(name);
    builder.runtime.gives_annotations = true;
    let mut bridge = builder.lab.bridge();
    if master_has_v6 {
        bridge["plugins"][0]["ipam"]["ranges"] = json!([[{"subnet": "10.77.0.0/16"}], [{"subnet": "fd77::/64"}]]);
    }
    fs::write(builder.lab.conf_dir.join("10-default.conflist"), bridge.to_string()).expect("write the default network");
    let with = |routes: Value| {
        let mut lan = builder.lab.macvlan("bridge");
        lan["ipam"]["routes"] = routes;
        lan
    };
    let (v4, v6) = (json!({"dst": "0.0.0.0/0", "gw": "192.168.50.254"}), json!({"dst": "::/0", "gw": "fd00:50::fe"}));
    let networks = [
        ("lan", with(json!([]))),
        ("lan4", with(json!([v4]))),
        ("lan6", with(json!([v6]))),
        ("lan46", with(json!([v4, v6]))),
    ];
    for (name, conf) in &networks {
        builder.lab.network("default", name, conf, &json!({}));
    }
    builder.start()
}

/// Default routes of one family in the order the kernel prefers them: `via dev`; ways of equal right by themselves.
fn defaults(pod: &Pod, family: &str) -> Vec<String> {
    let routes = pod.netns.ip_json(&format!("{family} route show default"));
    let mut routes: Vec<&Value> = routes.as_array().into_iter().flatten().collect();
    routes.sort_by_key(|route| route["metric"].as_u64().unwrap_or(0));
    let line =
        |way: &Value| format!("{} {}", way["gateway"].as_str().unwrap_or("-"), way["dev"].as_str().unwrap_or("-"));
    let lines = |route: &&Value| match route["nexthops"].as_array() {
        Some(ways) => ways.iter().map(line).collect(),
        None => vec![line(route)],
    };
    routes.iter().flat_map(lines).collect()
}

/// Where the pod sends what is for elsewhere.
fn leaves_by(pod: &Pod, destination: &str) -> String {
    let routes = pod.netns.ip_json(&format!("route get {destination}"));
    routes[0]["dev"].as_str().unwrap_or("nothing").to_owned()
}

/// The gateways that network-status shows, as `interface via`.
fn gateways(world: &World, pod: &Pod) -> Vec<String> {
    let done = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]);
    let list: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", done.err()));
    let items = list["items"].as_array().into_iter().flatten().filter(|item| item["container"] == pod.id.as_str());
    let mut found = Vec::new();
    for entry in items.filter_map(|item| item["networkStatus"].as_array()).flatten() {
        for gateway in entry["gateway"].as_array().into_iter().flatten() {
            found.push(format!("{} {}", entry["interface"].as_str().unwrap_or("?"), gateway.as_str().unwrap_or("?")));
        }
    }
    found
}

/// The default routes in libcni's cache of `pod`, as `interface via`.
fn cached(world: &World, pod: &Pod) -> Vec<String> {
    let mut found = Vec::new();
    for file in lab::state::files(&world.lab.cni_dir.join("results")) {
        let entry: Value = serde_json::from_slice(&fs::read(&file).expect("read an entry")).expect("JSON");
        let routes = entry["result"]["routes"].as_array().into_iter().flatten();
        for route in routes.filter(|route| {
            ["0.0.0.0/0", "::/0"].contains(&route["dst"].as_str().unwrap_or(""))
                && entry["containerId"] == pod.id.as_str()
        }) {
            found.push(format!("{} {}", entry["ifName"].as_str().unwrap_or("?"), route["gw"].as_str().unwrap_or("?")));
        }
    }
    found
}

fn gone(world: &World, pod: &Pod) {
    world.check(pod).expect_ok();
    world.del(pod).expect_ok();
}

#[test]
fn an_unasked_default_route_never_displaces_the_masters() {
    needs_programs!();
    let world = node("unasked", true);
    let pod = world.attached("cam", "lan46");
    assert_eq!(defaults(&pod, "-4"), ["10.77.0.1 eth0", "192.168.50.254 net1"]);
    assert_eq!(defaults(&pod, "-6"), ["fd77::1 eth0", "fd00:50::fe net1"]);
    assert_eq!((leaves_by(&pod, "1.1.1.1"), leaves_by(&pod, "2001:db8::1")), ("eth0".into(), "eth0".into()));
    assert_eq!(gateways(&world, &pod), ["eth0 10.77.0.1", "eth0 fd77::1"]);
    gone(&world, &pod);
    let two = world.attached("two", "lan4,lan46");
    assert_eq!(leaves_by(&two, "1.1.1.1"), "eth0");
    assert_eq!(defaults(&two, "-4").len(), 3);
    gone(&world, &two);
}

#[test]
fn it_stays_where_the_master_has_none_of_its_family() {
    needs_programs!();
    let world = node("unasked-v6", false);
    let pod = world.attached("cam", "lan46");
    assert_eq!((leaves_by(&pod, "1.1.1.1"), leaves_by(&pod, "2001:db8::1")), ("eth0".into(), "net1".into()));
    assert_eq!(gateways(&world, &pod), ["eth0 10.77.0.1", "net1 fd00:50::fe"]);
    let metric = pod.netns.ip_json("-6 route show default")[0]["metric"].as_u64();
    assert!(metric.is_some_and(|metric| metric < 40_000), "it is the first choice: {metric:?}");
    gone(&world, &pod);
}

#[test]
fn who_asks_gets_the_default_route_of_that_family_alone() {
    needs_programs!();
    let world = node("asked", true);
    let v4 = world.attached("v4", r#"[{"name": "lan", "default-route": ["192.168.50.254"]}]"#);
    assert_eq!(defaults(&v4, "-4"), ["192.168.50.254 net1"]);
    assert_eq!(defaults(&v4, "-6"), ["fd77::1 eth0"], "the other family is left alone");
    assert_eq!(gateways(&world, &v4), ["eth0 fd77::1", "net1 192.168.50.254"]);
    assert_eq!(cached(&world, &v4), ["eth0 fd77::1", "net1 192.168.50.254"]);
    gone(&world, &v4);
    let v6 = world.attached("v6", r#"[{"name": "lan", "default-route": ["fd00:50::fe"]}]"#);
    assert_eq!(defaults(&v6, "-6"), ["fd00:50::fe net1"]);
    assert_eq!(defaults(&v6, "-4"), ["10.77.0.1 eth0"]);
    gone(&world, &v6);
    let both = world.attached("both", r#"[{"name": "lan", "default-route": ["192.168.50.254", "fd00:50::fe"]}]"#);
    assert_eq!(defaults(&both, "-4"), ["192.168.50.254 net1"]);
    assert_eq!(defaults(&both, "-6"), ["fd00:50::fe net1"]);
    assert_eq!(gateways(&world, &both), ["net1 192.168.50.254", "net1 fd00:50::fe"]);
    gone(&world, &both);
}

#[test]
fn who_asks_for_another_gateway_than_its_plugin_set_has_one_route() {
    needs_programs!();
    let world = node("asked-other", true);
    let pod = world.attached("cam", r#"[{"name": "lan4"}, {"name": "lan46", "default-route": ["192.168.50.77"]}]"#);
    assert_eq!(defaults(&pod, "-4"), ["192.168.50.77 net2"], "neither the master's, nor any plugin's");
    assert_eq!(defaults(&pod, "-6"), ["fd77::1 eth0", "fd00:50::fe net2"], "that family nobody asked for");
    assert_eq!(leaves_by(&pod, "2001:db8::1"), "eth0");
    gone(&world, &pod);
    let first = world.attached("first", r#"[{"name": "lan46", "default-route": ["192.168.50.77"]}, {"name": "lan4"}]"#);
    assert_eq!(defaults(&first, "-4"), ["192.168.50.77 net1"], "nor its own plugin's");
    gone(&world, &first);
}

#[test]
fn an_empty_list_keeps_what_the_plugin_set() {
    needs_programs!();
    let world = node("empty", true);
    let pod = world.attached("cam", r#"[{"name": "lan6", "default-route": []}]"#);
    assert_eq!(defaults(&pod, "-4"), ["10.77.0.1 eth0"], "nothing is taken from anybody");
    let mut v6 = defaults(&pod, "-6");
    v6.sort();
    assert_eq!(v6, ["fd00:50::fe net1", "fd77::1 eth0"]);
    let routes = pod.netns.ip_json("-6 route show default");
    assert_eq!(
        routes.as_array().map(Vec::len),
        Some(1),
        "two ways of equal right, as the plugins left them: {routes:#}"
    );
    gone(&world, &pod);
}

#[test]
fn two_gateways_of_one_family_are_refused() {
    needs_programs!();
    let world = node("ecmp", true);
    let networks =
        r#"[{"name": "lan", "default-route": ["192.168.50.254"]}, {"name": "lan", "default-route": ["192.168.50.1"]}]"#;
    let pod = world.lab.pod("cam").networks(networks);
    let text = world.add(&pod).expect_error(100);
    assert!(text.contains("ECMP") && text.contains("default-route"), "{text}");
    assert_eq!(pod.netns.link_names(), [""; 0]);
    let other = world.lab.pod("other").networks(r#"[{"name": "lan", "default-route": ["10.9.9.9"]}]"#);
    let text = world.add(&other).expect_error(7);
    assert!(text.contains("10.9.9.9") && text.contains("default/lan"), "a gateway out of reach is refused: {text}");
    assert_eq!(other.netns.link_names(), [""; 0]);
    world.del(&other).expect_ok();
}
