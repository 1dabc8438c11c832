//! The core of what the agent does, done in the manifest's sandbox: nothing that pods need is shut out.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Duration;

use lab::apiserver::PODS;
use lab::peer::announcement;
use lab::pod::NETWORK_STATUS;
use lab::udp::new_tag;
use lab::{Audience, Ear, Family, Pod, Protocol, Voice, plugins, process, wait_until};
use serde_json::json;

use super::{SOON, Site, needs_runc};

/// Host and pod hear each other exactly once.
fn relays(site: &Site, pod: &Pod, when: &str) {
    let node = &site.world.lab.node;
    let audience = Audience::new(Protocol::Mdns).with("host", node, "eth0").with("pod", &pod.netns, "net1");
    let (host, inside) = (Voice::new(node, "eth0", Protocol::Mdns), Voice::new(&pod.netns, "net1", Protocol::Mdns));
    audience.expect_each(&format!("host to pod {when}"), &host, &[("pod", 1)]);
    audience.expect_each(&format!("pod to host {when}"), &inside, &[("host", 1)]);
}

/// What is counted of this pod, and of the relay.
fn counted(site: &Site, pod: &Pod) -> (u64, u64) {
    let samples = site.world.agent.metrics(&site.world.lab);
    let sent = [("pod", pod.name.as_str()), ("interface", "net1"), ("cast", "multicast")];
    let relayed = [("protocol", "mdns"), ("path", "host_to_pod"), ("verdict", "relayed")];
    (samples.sum("multus_interface_transmit_packets_total", &sent), samples.sum("multus_relay_frames_total", &relayed))
}

/// A service of the LAN is known to the agent once it was announced.
fn hears(site: &Site) {
    let lan = site.world.lab.lan();
    let voice = Voice::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let tag = new_tag();
    let payload = announcement("_lab._udp", tag.as_bytes(), "box", Ipv4Addr::new(192, 168, 50, 200), 120);
    let known = wait_until(SOON, || {
        voice.send(Family::V4, &payload);
        wait_until(Duration::from_millis(300), || site.document(&["get", "services"]).to_string().contains(&tag))
    });
    assert!(known, "{:#}", site.document(&["get", "services"]));
}

/// The host reaches the pod on the network whose annotation says so.
fn host_reaches(site: &Site, pod: &Pod) {
    let text = pod.netns.addresses("net1").into_iter().find(|address| address.contains('.')).expect("an address");
    let ip: IpAddr = text.split('/').next().expect("an address").parse().expect("an address");
    let at = SocketAddr::new(ip, 8080);
    let _listener = pod.netns.enter(|| TcpListener::bind(at)).expect("listen");
    let connects = || TcpStream::connect_timeout(&at, Duration::from_millis(700)).is_ok();
    assert!(wait_until(SOON, || site.world.lab.node.enter(connects)), "the host does not reach {at}");
}

/// What others take off comes back.
fn repairs(site: &Site, pod: &Pod) {
    let layout = fs::read_dir(site.world.lab.bpffs.join("multus")).expect("pins").flatten().next().expect("a layout");
    let pin = layout.path().join("links").join(format!("parent-{}-egress", site.world.lab.node.ifindex("eth0")));
    if pin.exists() {
        process::tool(Command::new("bpftool").args(["link", "detach", "pinned"]).arg(&pin));
    } else {
        process::tool(site.world.lab.node.command("tc").args(["qdisc", "del", "dev", "eth0", "clsact"]));
    }
    let repaired = || {
        let samples = site.world.agent.metrics(&site.world.lab);
        samples.sum("multus_datapath_repairs_total", &[("object", "parent"), ("reason", "programs")]) == 1
    };
    assert!(wait_until(SOON, repaired), "nothing was put back");
    relays(site, pod, "after a repair");
}

/// A question of a pod without any network of ours reaches the LAN.
fn reflects(site: &Site, pod: &Pod) {
    let lan = site.world.lab.lan();
    let ear = Ear::new(&lan.netns, &lan.ifname, Protocol::Mdns);
    let voice = Voice::new(&pod.netns, "eth0", Protocol::Mdns);
    let heard = || ear.hears(&voice.say(Family::V4), Duration::from_millis(300));
    assert!(wait_until(SOON, heard), "the LAN does not hear the pod's question");
}

#[test]
fn pods_come_and_go_and_all_works_between() {
    needs_runc!();
    let mut site = Site::with("sandbox", None, |config| {
        config["datapath"] = json!({"lookInterval": "1s", "reflect": {"uplinks": ["eth0"], "namespaces": ["default"]}});
    });
    let pods = ["lan", "quiet", ""].map(|network| {
        let pod = site.world.lab.pod(&format!("on-{network}x"));
        site.attached(if network.is_empty() {
            pod.annotate("multus-ebpf.io/reflect", "mdns")
        } else {
            pod.networks(network)
        })
    });
    let [cam, tv, asks] = &pods;
    for pod in [cam, tv] {
        assert_eq!(pod.netns.link_names(), ["eth0", "net1"]);
        let status = || {
            site.api
                .get(PODS, "default", &pod.name)
                .is_some_and(|p| p["metadata"]["annotations"][NETWORK_STATUS].is_string())
        };
        assert!(wait_until(SOON, status), "no network-status for {}", pod.name);
        site.world.check(pod).expect_ok();
    }
    let taken = || {
        let samples = site.world.agent.metrics(&site.world.lab);
        samples.sum("multus_address_pool_used", &[("network", "default/lan")])
    };
    assert_eq!(taken(), 2, "host-local's own files say that an IPv4 and an IPv6 address are taken");
    for probe in ["/startupProbe", "/livenessProbe", "/readinessProbe"] {
        let told = site.kubelet(&format!("{probe}/exec/command"));
        assert_eq!(told.code, Some(0), "{probe}: {}{}", told.out(), told.err());
    }
    relays(&site, cam, "in bridge mode");
    relays(&site, tv, "in private mode");
    hears(&site);
    host_reaches(&site, tv);
    reflects(&site, asks);
    repairs(&site, tv);

    let before = counted(&site, tv);
    assert!(before.0 > 0 && before.1 > 0, "{before:?}");
    site.world.agent.kill9();
    site.world.agent.start_again(&site.world.lab);
    let after = counted(&site, tv);
    assert!(after.0 >= before.0 && after.1 >= before.1, "{before:?}, then {after:?}");
    relays(&site, tv, "after a restart in place");
    reflects(&site, asks);

    site.world.runtime.status(&site.world.lab).expect_ok();
    site.world.runtime.gc(&site.world.lab, &[cam, asks]).expect_ok();
    assert_eq!(tv.netns.link_names(), [""; 0], "GC deletes what is not listed");
    for pod in [cam, asks] {
        site.world.del(pod).expect_ok();
    }
    assert_eq!(plugins::allocations(&site.world.lab.ipam_dir), [""; 0]);

    let drained = site.kubelet("/lifecycle/preStop/exec/command");
    assert_eq!(drained.code, Some(0), "preStop: {}{}", drained.out(), drained.err());
    let grace = site.world.agent.term();
    assert!(grace < Duration::from_secs(10), "it took {grace:?} to end");
    // Whatever it could not write it would say.
    let log = site.world.agent.log_text();
    assert!(!log.contains("ead-only file system"), "{log}");
}
