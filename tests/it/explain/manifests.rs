//! The manifests on which `explain`, `lint` and ADD must agree: networks, pods, and what comes of each.

use lab::{Lab, plugins};
use serde_json::{Value, json};

const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
const DEFAULT: &str = "v1.multus-cni.io/default-network";
const RELAY: &str = "multus-ebpf.io/relay";
const COPY: &str = "multus-ebpf.io/relay-copy";
const REFLECT: &str = "multus-ebpf.io/reflect";

/// A pod, and what comes of it.
pub(super) struct Case {
    /// The pod's name.
    pub(super) name: &'static str,
    /// Its namespace.
    pub(super) namespace: &'static str,
    /// Its annotations.
    pub(super) annotations: Vec<(&'static str, String)>,
    /// How its ADD ends.
    pub(super) ends: Ends,
    /// The rule of `lint` that it breaks.
    pub(super) rule: &'static str,
    /// Nobody can tell without the node.
    pub(super) needs_node: bool,
}

/// How an ADD ends.
pub(super) enum Ends {
    /// With these interfaces beside the first.
    Attached(Vec<&'static str>),
    /// With this code, and this in the sentence or the remedy.
    Refused(u64, &'static str),
}

/// The journal of all fakes together, so that the order of their calls is known.
pub(super) const JOURNAL: &str = "all";

/// A fake plugin that writes into [`JOURNAL`].
pub(super) fn fake(lab: &Lab, name: &str) -> Value {
    let mut conf = plugins::conf(lab, name, &json!({}));
    conf["fake"]["journal"] = json!(lab.dir.join(format!("journal-{JOURNAL}.jsonl")));
    conf
}

/// Every network that a case names, in `default` (which every namespace may use) and `other` (which none may).
pub(super) fn networks(lab: &Lab) {
    let fake = |name: &str, more: &Value| {
        let mut conf = fake(lab, name);
        more.as_object().into_iter().flatten().for_each(|(key, value)| conf[key] = value.clone());
        conf
    };
    let a = fake("fake-a", &json!({}));
    let caps = json!({"capabilities": {"ips": true, "mac": true, "portMappings": true, "bandwidth": true}});
    let list = json!({"cniVersion": "1.0.0", "name": "a-list", "plugins": [
        fake("fake-a", &json!({"args": {"cni": {"kept": 1}}})), fake("fake-b", &caps)
    ]});
    let add = |name: &str, config: &Value, annotations: &Value| lab.network("default", name, config, annotations);
    let none = json!({});
    lab.network("other", "theirs", &a, &none);
    add("a", &a, &none);
    add("b", &fake("fake-b", &json!({"unknown-key": [1, {"x": null}]})), &none);
    add("caps", &fake("fake-a", &caps), &none);
    add("list", &list, &none);
    add("filed", &json!(""), &none);
    add("nowhere", &json!(""), &none);
    add("broken", &json!("{\"type\": "), &none);
    add("typeless", &json!({"cniVersion": "1.0.0", "name": "typeless"}), &none);
    add("evil", &json!({"cniVersion": "1.0.0", "type": "../../bin/sh"}), &none);
    add("newer", &fake("fake-a", &json!({"cniVersion": "9.9.9"})), &none);
    add("absent", &json!({"cniVersion": "1.0.0", "type": "no-such-plugin"}), &none);
    add("far", &json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "eth9"}), &none);
    add("mv", &json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "eth0"}), &none);
    add("ipv", &json!({"cniVersion": "1.0.0", "type": "ipvlan", "master": "eth0"}), &none);
    add("loop", &json!({"cniVersion": "1.0.0", "type": "multus-shim"}), &none);
    add("chatty", &a, &json!({RELAY: "mdns,telnet"}));
    add("hosted", &a, &json!({"multus-ebpf.io/host-access": "maybe"}));
    add("ported", &a, &json!({"multus-ebpf.io/host-access": "true", "multus-ebpf.io/host-ports": "http"}));
    add("copied", &a, &json!({COPY: "photo"}));
    add("silent", &a, &json!({RELAY: "none"}));
}

fn attached(name: &'static str, networks: &str, interfaces: &[&'static str]) -> Case {
    let ends = Ends::Attached(interfaces.to_vec());
    Case {
        name,
        namespace: "home",
        annotations: vec![(NETWORKS, networks.to_owned())],
        ends,
        rule: "",
        needs_node: false,
    }
}

fn refused(name: &'static str, networks: &str, (rule, code): (&'static str, u64), word: &'static str) -> Case {
    Case { ends: Ends::Refused(code, word), rule, ..attached(name, networks, &[]) }
}

impl Case {
    fn also(mut self, key: &'static str, value: &str) -> Self {
        self.annotations.push((key, value.to_owned()));
        self
    }

    fn only_on_the_node(mut self) -> Self {
        self.needs_node = true;
        self
    }
}

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    good().into_iter().chain(bad_annotations()).chain(bad_networks()).collect()
}

fn good() -> Vec<Case> {
    vec![
        attached("one", "default/a", &["net1"]),
        attached("two", "default/a, default/b", &["net1", "net2"]),
        attached("twice", "default/a,default/a", &["net1", "net2"]),
        attached("named", "default/a@data1", &["data1"]),
        attached("a-list", "default/list", &["net1"]),
        attached("from-a-file", "default/filed", &["net1"]),
        attached("empty", "", &[]),
        attached("empty-list", "[]", &[]),
        attached("nulls", r#"[{"name":"a","namespace":"default","interface":null,"ips":[],"mac":""}]"#, &["net1"]),
        attached("any-case", r#"[{"Name":"a","NAMESPACE":"default","InterfaceRequest":"lan0"}]"#, &["lan0"]),
        attached(
            "wishes",
            r#"[{"name":"caps","namespace":"default","mac":"02:00:00:00:00:01","ips":["192.168.50.9/24","fd00::9/64"],
                "portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}],"bandwidth":{"ingressRate":1000}}]"#,
            &["net1"],
        ),
        attached("unheard-wishes", r#"[{"name":"a","namespace":"default","ips":["192.168.50.9/24"]}]"#, &["net1"]),
        attached("unknown-field", r#"[{"name":"a","namespace":"default","interfce":"x"}]"#, &["net1"]),
        attached(
            "cni-args",
            r#"[{"name":"list","namespace":"default","cni-args":{"vlan":7,"kept":[2 ,3]}}]"#,
            &["net1"],
        ),
        attached("kept-route", r#"[{"name":"a","namespace":"default","default-route":[]}]"#, &["net1"]),
        attached("relay-off", "default/silent", &["net1"]).also(RELAY, "mdns"),
        attached("other-first", "default/b", &["net1"]).also(DEFAULT, "default/a"),
        Case { namespace: "default", ..attached("at-home", "a,b@second", &["net1", "second"]) },
        Case { namespace: "other", ..attached("their-own", "theirs", &["net1"]) },
    ]
}

fn bad_annotations() -> Vec<Case> {
    let item = |more: &str| format!(r#"[{{"name":"a","namespace":"default",{more}}}]"#);
    let annotation = ("MN0101", 100);
    vec![
        refused("long-interface", "default/a@abcdefghijklmnop", annotation, "abcdefghijklmnop"),
        refused("spaced-interface", "default/a@x y", annotation, "item 1"),
        refused("two-slashes", "x/y/z", annotation, "more than one"),
        refused("upper-case", "default/A", annotation, "object name"),
        refused("unicode", "default/käse", annotation, "object name"),
        refused("hostile", "default/a\u{1b}b", annotation, "u{1b}"),
        refused("long-name", &format!("default/{}", "a".repeat(254)), annotation, "object name"),
        refused("no-json", "[{", annotation, "annotation"),
        refused("no-name", r#"[{"namespace":"default"}]"#, annotation, "name"),
        refused("number-as-name", r#"[{"name":5}]"#, annotation, "name"),
        refused("no-list", r#"{"name":"a"}"#, annotation, "list"),
        refused("bad-mac", &item(r#""mac":"02:00""#), annotation, "hardware address"),
        refused("bad-ip", &item(r#""ips":["192.168.50.300"]"#), annotation, "IP address"),
        refused("bad-gateway", &item(r#""default-route":["there"]"#), annotation, "default-route"),
        refused(
            "bad-port",
            &item(r#""portMappings":[{"hostPort":70000,"containerPort":1}]"#),
            annotation,
            "port from 1",
        ),
        refused("claim-and-ips", &item(r#""ips":["10.0.0.1"],"ipam-claim-reference":"c""#), annotation, "exclude"),
        refused("too-many", &vec!["default/a"; 65].join(","), annotation, "65 networks"),
        refused("two-defaults", "default/a", annotation, "more than one default").also(DEFAULT, "default/a,default/b"),
        refused("same-interface", "default/a@x0,default/b@x0", ("MN0102", 100), "both ask for interface"),
        refused("same-by-number", "default/a@net2,default/b", ("MN0102", 100), "net2"),
        refused(
            "two-gateways",
            r#"[{"name":"a","namespace":"default","default-route":["10.0.0.1"]},{"name":"b","namespace":"default","default-route":["10.0.0.2"]}]"#,
            ("MN0103", 100),
            "ECMP",
        ),
        refused("bad-relay", "default/a", ("MN0106", 100), "telnet").also(RELAY, "telnet"),
        refused("bad-copy", "default/a", ("MN0106", 100), "photo").also(COPY, "photo"),
        refused("bad-reflect", "default/a", ("MN0106", 100), "llmnr").also(REFLECT, "llmnr"),
    ]
}

fn bad_networks() -> Vec<Case> {
    vec![
        refused("typo", "default/lna", ("MN0201", 101), "lna"),
        refused("bare-name", "a", ("MN0201", 101), "namespace (home)"),
        refused("typo-far-away", "other/lna", ("MN0201", 101), "namespace (other)"),
        refused("isolated", "other/theirs", ("MN0301", 102), "globalNamespaces"),
        refused("no-file", "default/nowhere", ("MN0203", 101), "spec.config is empty"),
        refused("broken-config", "default/broken", ("MN0202", 6), "spec.config"),
        refused("no-type", "default/typeless", ("MN0202", 7), "type"),
        refused("evil-type", "default/evil", ("MN0202", 7), "type"),
        refused("newer-version", "default/newer", ("MN0202", 1), "9.9.9"),
        refused("missing-plugin", "default/absent", ("MN0207", 103), "no-such-plugin"),
        refused("leads-back", "default/loop", ("MN0204", 7), "its own delegate"),
        refused("shared-parent", "default/mv,default/ipv", ("MN0206", 7), "share parent"),
        refused("network-relay", "default/chatty", ("MN0205", 100), "telnet"),
        refused("network-access", "default/hosted", ("MN0205", 100), "maybe"),
        refused("network-ports", "default/ported", ("MN0205", 100), "http"),
        refused("network-copy", "default/copied", ("MN0205", 100), "photo"),
        refused("no-parent", "default/far", ("", 7), "does not exist on this node").only_on_the_node(),
    ]
}
