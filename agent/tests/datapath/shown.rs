//! What an operator sees of the datapath without the agent: bpftool, tc, and the log of the tracing object.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use multus_agent::datapath::{AttachMode, Datapath, Settings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::bench::{Bench, Family, frames, netns_path, output, ways};

#[test]
fn bpftool_shows_names_of_maps_programs_and_fields() {
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let datapath = bench.open();
    let attached = bench.attach(&datapath, &pod);
    let path = |map: &str| bench.bpffs.join("v2/maps").join(map).to_string_lossy().into_owned();
    let dump = |map: &str| -> serde_json::Value {
        serde_json::from_str(&output("bpftool", &["-j", "map", "dump", "pinned", &path(map)])).unwrap()
    };
    let counters = dump("if_counters");
    let value = &counters[0]["formatted"]["values"][0]["value"];
    for field in ["packets", "bytes", "multicast_packets", "protocols", "sizes"] {
        assert!(!value[field].is_null(), "if_counters has no field {field}: {value}");
    }
    let fanout = dump("relay_fanout");
    assert_eq!(fanout[0]["formatted"]["value"]["count"], 1, "{}", fanout[0]["formatted"]);
    let macs = dump("local_macs");
    assert_eq!(macs[0]["formatted"]["key"]["parent"], bench.parent().ifindex);
    assert_eq!(macs[0]["formatted"]["value"]["slot"], attached.instance);
    assert!(!dump("relay_rules")[0]["formatted"]["value"]["protocol"].is_null());
    assert!(!dump("relay_counters")[0]["formatted"]["key"]["outcome"].is_null());
    for (direction, program) in [("ingress", "pod_ingress"), ("egress", "pod_egress")] {
        let shown = output("tc", &["-n", &pod.netns, "filter", "show", "dev", "net1", direction]);
        assert!(shown.contains(program), "{shown}");
    }
    for program in ["parent_ingress", "parent_egress", "pod_ingress", "pod_egress"] {
        output("bpftool", &["prog", "show", "name", program]);
    }
}

/// Interface, kind and program of every tc entry of `bpftool net` in a namespace.
fn bpftool_net(netns: &str) -> BTreeSet<String> {
    let net = format!("--net={}", netns_path(netns).display());
    let shown: serde_json::Value =
        serde_json::from_str(&output("nsenter", &[&net, "bpftool", "-j", "net", "show"])).unwrap();
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap_or("-").to_owned();
    let entries = shown[0]["tc"].as_array().unwrap().iter();
    entries.map(|entry| [text(entry, "devname"), text(entry, "kind"), text(entry, "name")].join(" ")).collect()
}

#[test]
fn bpftool_net_lists_the_filters_by_name() {
    for attach in ways() {
        let mut bench = Bench::new();
        let pods = [bench.pod("bridge"), bench.pod("private")];
        let settings = Settings { attach, ..bench.settings() };
        let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
        let attached: Vec<_> = pods.iter().map(|pod| bench.attach(&datapath, pod)).collect();
        let expected = ["net1 clsact/egress pod_egress", "net1 clsact/ingress pod_ingress"].map(str::to_owned);
        for pod in &pods {
            assert_eq!(bpftool_net(&pod.netns), BTreeSet::from(expected.clone()), "{attach:?}, {}", pod.netns);
        }
        if attach == AttachMode::Clsact {
            let expected = ["eth0 clsact/egress parent_egress", "eth0 clsact/ingress parent_ingress"];
            assert_eq!(bpftool_net(&bench.host()), BTreeSet::from(expected.map(str::to_owned)));
        } else {
            // Debian 12's bpftool does not know TCX in `net`, so the links are looked up where every version shows them.
            for direction in ["ingress", "egress"] {
                let pin = bench.bpffs.join(format!("v2/links/parent-{}-{direction}", bench.parent().ifindex));
                let link = output("bpftool", &["-j", "link", "show", "pinned", &pin.to_string_lossy()]);
                let link: serde_json::Value = serde_json::from_str(&link).unwrap();
                let id = link["prog_id"].to_string();
                let program: serde_json::Value =
                    serde_json::from_str(&output("bpftool", &["-j", "prog", "show", "id", &id])).unwrap();
                assert_eq!(program["name"], format!("parent_{direction}"));
            }
        }
        drop(attached);
    }
}

/// Everything that was logged in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_tracing_object_relays_and_says_so_in_the_log() {
    let log = Log::default();
    let written = log.clone();
    let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || written.clone());
    tracing_subscriber::registry().with(layer).init();
    let mut bench = Bench::new();
    let pod = bench.pod("bridge");
    let settings = Settings { log: true, ..bench.settings() };
    let datapath = bench.on_host(|| Datapath::open(&settings)).unwrap();
    let _attached = bench.attach(&datapath, &pod);
    let (host, inside) = (bench.host_peer(), pod.peer());
    host.query(Family::V4, "traced");
    assert_eq!(inside.heard(Family::V4, "traced"), 1);
    assert_eq!(datapath.facts().object, "tracing");
    assert_eq!(frames(&datapath.relay_counters().unwrap(), "host_to_pod", "relayed"), 1);
    let wanted = format!("relay parent={} protocol=0 path=0 outcome=0", bench.parent().ifindex);
    let deadline = Instant::now() + Duration::from_secs(3);
    let logged = || String::from_utf8(log.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap();
    while !logged().contains(&wanted) {
        assert!(Instant::now() < deadline, "no {wanted:?} in {}", logged());
        std::thread::sleep(Duration::from_millis(20));
    }
}
