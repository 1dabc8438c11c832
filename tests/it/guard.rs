//! The storm guard as an operator meets it: switched on in the configuration, seen in status, lists and metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use lab::frame::{Frame, group_mac};
use lab::sniffer::flood;
use lab::world::Builder;
use lab::{Protocol, wait_until};
use serde_json::Value;

const FRAMES: &str = "multus_guard_frames_total";

#[test]
fn a_storm_on_the_lan_is_counted_and_shown_and_ends_with_the_option() {
    needs_programs!();
    for (guard, shown) in [("tc", "tc"), ("xdp", "xdp-native")] {
        let builder = Builder::new(&format!("storm-{guard}"));
        let lan = builder.lab.macvlan("bridge");
        let configured = builder.network("lan", &lan).configure(|config, _| config["datapath"]["guard"] = guard.into());
        let mut world = configured.start();
        let _pod = world.attached("cam", "lan");
        let count = |world: &lab::World, reason: &str| {
            world.agent.metrics(&world.lab).sum(FRAMES, &[("parent", "eth0"), ("protocol", "mdns"), ("reason", reason)])
        };
        let series = world.agent.metrics(&world.lab).matching(FRAMES, &[]).len();
        assert_eq!(series, 16, "four protocols, four outcomes, from the first attachment on");
        let document = |world: &lab::World, arguments: &[&str]| -> Value {
            serde_json::from_slice(&world.agent.cli(&world.lab, arguments).stdout).expect("a document")
        };
        let status = document(&world, &["status", "-o", "json"]);
        assert_eq!(status["datapath"]["parents"][0]["guard"], shown, "{status}");

        let group: IpAddr = Ipv4Addr::new(224, 0, 0, 251).into();
        let payload = Protocol::Mdns.payload("a storm");
        let frame = Frame {
            from_mac: [2, 0xbb, 0, 0, 0, 9],
            to_mac: group_mac(group),
            from: (Ipv4Addr::new(192, 168, 50, 99), 5353).into(),
            to: SocketAddr::new(group, 5353),
            hops: 255,
            payload: &payload,
        };
        flood(&world.lab.lan().netns, &world.lab.lan().ifname, &frame.bytes(), 600);
        let patience = Duration::from_secs(10);
        assert!(wait_until(patience, || count(&world, "") + count(&world, "rate") >= 600), "{guard}: every frame");
        assert!(count(&world, "") >= 200 && count(&world, "rate") > 0, "{guard}");
        let list = document(&world, &["get", "relay", "-o", "json"]);
        assert_eq!(list["items"][0]["guard"], shown, "{list}");
        let table = String::from_utf8(world.agent.cli(&world.lab, &["get", "relay"]).stdout).expect("text");
        assert!(table.contains("dropped") && table.contains("rate") && table.contains(shown), "{table}");

        // A new agent that is told so takes the guard off again.
        world.agent.kill9();
        world.agent.reconfigure(|config| config["datapath"]["guard"] = "off".into());
        world.agent.start_again(&world.lab);
        let is_off = wait_until(patience, || {
            let status = document(&world, &["status", "-o", "json"]);
            status["datapath"]["parents"][0]["guard"].is_null()
        });
        assert!(is_off && world.agent.metrics(&world.lab).matching(FRAMES, &[]).is_empty(), "{guard}");
    }
}
