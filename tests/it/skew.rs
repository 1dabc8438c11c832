//! Shim and daemon of different makes and ages: either it works, or it says at once why not.

use std::time::{Duration, Instant};

use lab::upstream::{Daemon, unbase64};
use lab::world::Builder;
use lab::{Lab, Pod, Runtime, http, upstream};
use serde_json::{Value, json};

/// A result as upstream's daemon gives it: in the newest version, with more than a kilobyte of routes.
fn result(pod: &Pod) -> Value {
    let routes: Vec<_> = (0..60).map(|n| json!({"dst": format!("10.{n}.0.0/16"), "gw": "10.77.0.1"})).collect();
    json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": pod.netns.path(), "mtu": 1450}],
        "ips": [{"interface": 0, "address": "10.77.0.9/16", "gateway": "10.77.0.1"}],
        "routes": routes, "dns": {}
    })
}

#[test]
fn our_shim_works_with_upstreams_daemon_with_and_without_readyz() {
    needs_programs!();
    for has_readyz in [false, true] {
        let lab = Lab::new("skew");
        let mut runtime = Runtime::new(&lab);
        let daemon = Daemon::start(&lab.socket_dir, has_readyz);
        let pod = lab.pod("cam");
        daemon.answer("/cni", 200, &json!({"Result": result(&pod)}).to_string());
        for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            version.clone_into(&mut runtime.version);
            let call = runtime.call("ADD", Some(&pod));
            let began = Instant::now();
            let answer = call.run(&lab.node);
            let converted = answer.result();
            assert_eq!(converted["cniVersion"], version, "{converted:#}");
            match version {
                "0.2.0" => assert_eq!(converted["ip4"]["ip"], "10.77.0.9/16", "{converted:#}"),
                "0.3.1" | "0.4.0" => assert_eq!(converted["ips"][0]["version"], "4", "{converted:#}"),
                _ => assert_eq!(converted["routes"].as_array().map(Vec::len), Some(60), "{converted:#}"),
            }
            assert!(began.elapsed() < Duration::from_secs(2), "ADD took {:?}", began.elapsed());
            let asked = daemon.asked("/cni").pop().expect("a request");
            assert_eq!(asked["env"], json!(call.env_of_cni()));
            assert_eq!(unbase64(asked["config"].as_str().unwrap()), call.stdin, "stdin, byte for byte");
        }
        daemon.answer("/cni", 200, "");
        runtime.check(&lab, &pod).expect_ok();
        runtime.status(&lab).expect_ok();
        runtime.del(&lab, &pod).expect_ok();
        let verbs: Vec<_> = daemon.asked("/cni").iter().map(|body| body["env"]["CNI_COMMAND"].clone()).collect();
        assert_eq!(verbs[verbs.len() - 3..], [json!("CHECK"), json!("STATUS"), json!("DEL")]);
        let healthz = daemon.asked("/healthz").len();
        assert_eq!(healthz == 0, has_readyz, "{healthz} questions to /healthz");
    }
}

#[test]
fn what_upstreams_daemon_refuses_is_passed_on() {
    needs_programs!();
    let lab = Lab::new("skew-no");
    let runtime = Runtime::new(&lab);
    let daemon = Daemon::start(&lab.socket_dir, false);
    let pod = lab.pod("cam");
    daemon.answer("/cni", 400, r#"{"code":11,"msg":"busy","details":"come again"}"#);
    assert_eq!(runtime.add(&lab, &pod).expect_error(11), "busy come again");
    let text = "ContainerID:\"c\" Netns:\"/n\" IfName:\"eth0\" Args:\"\" Path:\"\" ERRORED: no room \u{1b}[31m\n";
    daemon.answer("/cni", 400, text);
    let said = runtime.add(&lab, &pod).expect_error(999);
    assert!(said.contains("no room") && !said.contains("ContainerID") && !said.contains('\u{1b}'), "{said}");
    runtime.del(&lab, &pod).expect_ok();
    daemon.answer("/cni", 200, "{\"Result\":[]}");
    assert!(!runtime.add(&lab, &pod).ok());
}

#[test]
fn a_pod_of_ours_is_deleted_under_upstreams_daemon() {
    needs_programs!();
    let builder = Builder::new("skew-del");
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).start();
    let baseline = world.baseline();
    let pod = world.attached("cam", "lan");
    world.agent.term();
    let daemon = Daemon::start(&world.lab.socket_dir, true);
    world.del(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), [""; 0]);
    assert!(daemon.asked("/cni").is_empty(), "what it never knew it need not be asked about");
    drop(daemon);
    world.agent.start_again(&world.lab);
    baseline.assert_restored(&world.lab, &[], "DEL while upstream's daemon had the socket");
}

#[test]
fn a_daemon_that_is_not_ready_is_waited_for() {
    needs_programs!();
    let lab = Lab::new("skew-wait");
    let runtime = Runtime::new(&lab);
    let daemon = Daemon::start(&lab.socket_dir, true);
    let pod = lab.pod("cam");
    daemon.answer("/readyz", 500, "");
    daemon.answer("/cni", 200, &json!({"Result": result(&pod)}).to_string());
    let add = runtime.call("ADD", Some(&pod)).start(&lab.node);
    std::thread::sleep(Duration::from_millis(500));
    assert!(daemon.asked("/cni").is_empty(), "asked before it was ready");
    daemon.answer("/readyz", 200, "");
    let done = add.wait(Duration::from_secs(5));
    assert!(done.success(), "{}", done.out());
    daemon.answer("/readyz", 500, "");
    let began = Instant::now();
    let call = runtime.call("STATUS", None).conf(|conf| conf["cniVersion"] = "1.1.0".into());
    call.run(&lab.node).expect_error(50);
    assert!(began.elapsed() < Duration::from_secs(2), "STATUS took {:?}", began.elapsed());
}

#[test]
fn another_protocol_is_refused_at_once_and_a_neighbours_call_is_served() {
    needs_programs!();
    let world = Builder::new("skew-number").start();
    let ask = |call: &Value| -> Value {
        let reply = http::post_unix(world.agent.socket(), "/v1/cni", call.to_string().as_bytes()).unwrap();
        serde_json::from_str(&reply.body).unwrap()
    };
    for number in [0, 2] {
        let call = json!({"protocol": number, "shim": "9.9.9", "env": {"CNI_COMMAND": "ADD"}, "config": "{}", "timeout_ms": 1000});
        let step = ask(&call);
        assert_eq!((&step["step"], &step["error"]["code"]), (&json!("fail"), &json!(11)), "{step:#}");
        let said = step["error"]["msg"].as_str().unwrap();
        assert!(said.contains(&format!("protocol {number}")) && said.contains("the agent 1"), "{said}");
    }
    // Who speaks the agent's protocol as well is served, whatever else its call says.
    let config = json!({"cniVersion": "1.1.0", "name": "multus-cni-network", "type": "multus-shim"}).to_string();
    let mut call = json!({
        "protocol": 2, "oldest": 1, "shim": "9.9.9", "later": {"x": 1}, "env": {"CNI_COMMAND": "STATUS", "CNI_PATH": "/"},
        "config": config, "timeout_ms": 2000
    });
    assert_eq!(ask(&call)["step"], "done", "{:#}", ask(&call));
    call["oldest"] = 2.into();
    assert_eq!(ask(&call)["error"]["code"], 11, "{:#}", ask(&call));
    // An agent of the future that answers otherwise is not waited for either.
    let lab = Lab::new("skew-future");
    let runtime = Runtime::new(&lab);
    let daemon = Daemon::start(&lab.socket_dir, true);
    daemon.answer("/v1/cni", 426, "upgrade the plugin");
    let began = Instant::now();
    let said = runtime.add(&lab, &lab.pod("cam")).expect_error(11);
    assert!(said.contains("426") && began.elapsed() < Duration::from_secs(1), "{said}");
}

#[test]
fn base64_is_the_standards() {
    for (plain, text) in
        [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("\u{ff}\u{fe}>?", "w7/Dvj4/")]
    {
        assert_eq!((upstream::base64(plain.as_bytes()).as_str(), unbase64(text)), (text, plain.as_bytes().to_vec()));
    }
}
