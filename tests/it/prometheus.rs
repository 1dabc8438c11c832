//! Dashboards, recording rules and alerts against a real Prometheus that scraped a real agent under traffic.
//!
//! Every query of every panel must return numbers. With `MULTUS_REGENERATE` set their pictures are drawn for the
//! documentation.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::dashboard::{Dashboard, Panel, selectors};
use lab::frame::{Frame, group_mac};
use lab::plot;
use lab::prometheus::{self, Prometheus, Series};
use lab::sniffer::{flood, inject};
use lab::udp::{FAMILIES, new_tag};
use lab::world::Builder;
use lab::{Lab, Pod, Protocol, Voice, World, plugins, wait_until};
use serde_json::{Value, json};

use crate::api::Cluster;

/// How long the node is at work under the eyes of Prometheus.
const AT_WORK: Duration = Duration::from_secs(10);
/// It looks for its targets every five seconds.
const FIRST_LOOK: Duration = Duration::from_secs(15);
/// Grafana's `$__rate_interval` for a scrape each second is four of them.
const RATE: u32 = 4;

/// A node with networks of several plugins, one of which fails and one of which is slow.
fn cluster() -> Cluster {
    let builder = Builder::new("prometheus");
    let lab = &builder.lab;
    let mut networks = vec![("home", "quiet", lab.macvlan("private"))];
    networks.push(("default", "wired", bridge(lab)));
    networks.push(("default", "slow", plugins::conf(lab, "dhcp-like", &json!({"ADD": {"sleep_ms": 150}}))));
    let refusal = json!({"ADD": {"error": {"code": 110, "msg": "no device left"}}});
    networks.push(("default", "broken", plugins::conf(lab, "device-like", &refusal)));
    let reflect = json!({"uplinks": ["eth0"], "namespaces": ["home"]});
    let cluster = Cluster::over(builder.configure(|config, _| {
        config["datapath"]["guard"] = "tc".into();
        config["datapath"]["reflect"] = reflect;
    }));
    for (namespace, name, config) in networks {
        cluster.api.put_network(namespace, name, &config.to_string());
    }
    cluster
}

fn bridge(lab: &Lab) -> Value {
    let range = json!([[{"subnet": "10.78.0.0/24"}]]);
    json!({
        "cniVersion": "1.0.0", "type": "bridge", "bridge": "br-wired",
        "ipam": {"type": "host-local", "dataDir": lab.ipam_dir, "ranges": range}
    })
}

fn attached(cluster: &Cluster, namespace: &str, name: &str, networks: &str) -> Pod {
    let mut pod = cluster.world.lab.pod(name).in_namespace(namespace).networks(networks);
    if namespace == "home" {
        pod = pod.annotate("multus-ebpf.io/reflect", "mdns");
    }
    cluster.api.put_pod(&pod.namespace, &pod.name, &pod.uid, "lab-node", &json!(pod.annotations));
    cluster.world.add(&pod).expect_ok();
    pod
}

/// Pods come and go until `over`, some of them in vain.
fn come_and_go(cluster: &Cluster, over: &AtomicBool) {
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let networks = ["lan", "wired", "slow", "lan,wired"][number % 4];
        let pod = attached(cluster, "default", &format!("job-{number}"), networks);
        // Where a fake plugin attached nothing, this finds it out: an answer that must be counted, too.
        cluster.world.check(&pod);
        let refused = cluster.world.lab.pod(&format!("refused-{number}")).networks("broken");
        cluster.world.add(&refused).expect_error(110);
        cluster.world.del(&refused).expect_ok();
        cluster.world.del(&pod).expect_ok();
    }
}

/// What devices, host and pods say to each other until `over`: discovery, unicast, broadcast, a forger and a storm.
fn traffic(world: &World, pods: &[&Pod], over: &AtomicBool) {
    let lan = world.lab.lan();
    let mut voices = Vec::new();
    for protocol in [Protocol::Mdns, Protocol::Ssdp, Protocol::Wsd, Protocol::Coap] {
        voices.push(Voice::new(&world.lab.node, "eth0", protocol));
        voices.push(Voice::new(&lan.netns, &lan.ifname, protocol));
        voices.extend(pods.iter().map(|pod| Voice::new(&pod.netns, "net1", protocol)));
    }
    let announcing = Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let service =
        |n: usize| lab::peer::announcement(SERVICES[n], b"in the lab", "box", Ipv4Addr::new(192, 168, 50, 200), 120);
    let at_pod = pods[0].netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind"));
    at_pod.set_broadcast(true).expect("allow broadcast");
    let forged = frame([2, 0, 0, 0, 0xbe, 0xef]);
    let storm = frame([2, 0xbb, 0, 0, 0, 9]);
    for round in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        for family in FAMILIES {
            for voice in &voices {
                voice.say(family);
            }
            announcing.send(family, &service(round % SERVICES.len()));
        }
        for size in [10, 400, 1400] {
            at_pod.send_to(&vec![7; size], ("192.168.50.254", 9)).expect("unicast to the LAN");
        }
        at_pod.send_to(b"to all", ("192.168.50.255", 9)).expect("broadcast");
        inject(&pods[0].netns, "net1", &forged, 0);
        flood(&lan.netns, &lan.ifname, &storm, 150);
        std::thread::sleep(Duration::from_millis(150));
    }
}

const SERVICES: [&str; 3] = ["_ipp._tcp", "_googlecast._tcp", "_hap._tcp"];

/// An mDNS question from whoever has this MAC.
fn frame(from_mac: [u8; 6]) -> Vec<u8> {
    let group = Protocol::Mdns.group(lab::Family::V4);
    let payload = Protocol::Mdns.payload(&new_tag());
    let from = (Ipv4Addr::new(192, 168, 50, 99), 5353).into();
    let to = SocketAddr::new(group, 5353);
    Frame { from_mac, to_mac: group_mac(group), from, to, hops: 255, payload: &payload }.bytes()
}

/// The kernel measures programs while this lives.
struct Measured {
    before: String,
}

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Measured {
    fn begin() -> Self {
        let before = std::fs::read_to_string(SWITCH).expect("read the switch");
        std::fs::write(SWITCH, "1").expect("have the kernel measure programs");
        Self { before }
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let _ = std::fs::write(SWITCH, &self.before);
    }
}

#[test]
fn every_panel_rule_and_alert_finds_its_series() {
    needs_programs!();
    let _measured = Measured::begin();
    let cluster = cluster();
    let rules = prometheus::files("deploy/alerts", "yaml");
    let prometheus = Prometheus::start(&cluster.world.lab, &rules);
    let began = Instant::now();
    let pods = [
        attached(&cluster, "default", "camera", "lan"),
        attached(&cluster, "default", "home-assistant", "lan,wired"),
        attached(&cluster, "home", "media-server", "quiet"),
    ];
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| come_and_go(&cluster, &over));
        let loud = scope.spawn(|| traffic(&cluster.world, &pods.each_ref(), &over));
        let looks = || prometheus.now("up").is_ok_and(|series| !series.is_empty());
        let looked = wait_until(FIRST_LOOK, looks);
        let seen = Instant::now();
        while looked && seen.elapsed() < AT_WORK && !busy.is_finished() && !loud.is_finished() {
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
    });
    let seconds = u32::try_from(began.elapsed().as_secs()).unwrap_or(u32::MAX);
    let mut wrong = Vec::new();
    for path in prometheus::files("deploy/dashboards", "json") {
        let dashboard = Dashboard::read(&path);
        for (label, selector) in dashboard.variables() {
            if prometheus.label_values(&selector, &label).is_empty() {
                wrong.push(format!("{}: variable {label}: nothing to choose in {selector}", dashboard.name));
            }
        }
        let panels = dashboard.panels(seconds, RATE).into_iter();
        let drawn: Vec<plot::Drawn> =
            panels.map(|panel| asked(&prometheus, &dashboard.name, panel, &mut wrong)).collect();
        if std::env::var_os("MULTUS_REGENERATE").is_some() {
            draw(&dashboard.name, &drawn);
        }
    }
    wrong.extend(of_rules(&prometheus));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The panel with what its queries return; what is missing goes to `wrong`.
fn asked(prometheus: &Prometheus<'_>, dashboard: &str, panel: Panel, wrong: &mut Vec<String>) -> plot::Drawn {
    let mut all = Vec::new();
    for query in &panel.queries {
        let ask = |expr| if panel.kind == "table" { prometheus.now(expr) } else { prometheus.since_start(expr) };
        let found = ask(&query.expr);
        match found {
            Ok(found) if !found.is_empty() => {
                all.push(found.into_iter().map(|series| (named(&query.legend, &series), series)).collect());
            }
            Ok(_) => wrong.push(format!("{dashboard}: {}: no data: {}", panel.title, query.expr)),
            Err(error) => wrong.push(format!("{dashboard}: {}: {error}: {}", panel.title, query.expr)),
        }
    }
    (panel, all)
}

/// The legend with the series' own labels.
fn named(legend: &str, series: &Series) -> String {
    let fill = |text: String, (name, value): (&String, &String)| text.replace(&format!("{{{{{name}}}}}"), value);
    series.labels.iter().fold(legend.to_owned(), fill)
}

fn draw(name: &str, drawn: &[plot::Drawn]) {
    let times = || drawn.iter().flat_map(|(_, all)| all.iter().flatten()).flat_map(|(_, series)| &series.points);
    let (first, last) =
        times().fold((f64::MAX, 0.0_f64), |(first, last), (time, _)| (first.min(*time), last.max(*time)));
    let file = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/how-to/dashboards")).join(format!("{name}.svg"));
    std::fs::create_dir_all(file.parent().expect("a folder")).expect("make the folder");
    std::fs::write(file, plot::svg(drawn, (first, last))).expect("write the picture");
}

/// Reflection counts a reason from its first frame on, and this one needs two uplinks that are one link.
const LOOPING: &str = "reason=\"own\"";

/// Rules that Prometheus could not evaluate, recording rules without data, alerts that look at series nobody has.
fn of_rules(prometheus: &Prometheus<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut recorded, mut alerts) = (0, BTreeSet::new());
    let groups = prometheus.get("/api/v1/rules");
    for rule in groups["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
    {
        let (name, query) = (rule["name"].as_str().unwrap_or_default(), rule["query"].as_str().unwrap_or_default());
        if rule["health"] != "ok" {
            wrong.push(format!("{name}: {}", rule["lastError"]));
        }
        if rule["type"] == "recording" {
            recorded += 1;
            if prometheus.now(name).is_ok_and(|series| series.is_empty()) {
                wrong.push(format!("{name}: records nothing"));
            }
            continue;
        }
        alerts.insert(name);
        for selector in selectors(query) {
            let text = format!("{}{{{}}}", selector.metric, selector.matchers.unwrap_or_default());
            let is_missing = prometheus.now(&text).is_ok_and(|series| series.is_empty());
            if is_missing && !text.contains(LOOPING) {
                wrong.push(format!("{name}: nobody has {text}"));
            }
        }
    }
    assert!(recorded > 0 && alerts.len() > 10, "{recorded} recording rules, {alerts:?}");
    wrong
}
