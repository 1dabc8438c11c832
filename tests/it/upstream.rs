//! Upstream's shim against our agent, which runs the delegates for it; `joining` is the dynamic-networks controller.

mod joining;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use lab::world::Builder;
use lab::{NodeState, Pod, World, http, plugins, upstream, wait_until};
use serde_json::{Value, json};

/// A node whose agent may run plugins, with the macvlan network `lan` and what `more` adds.
fn on_host(name: &str, more: impl FnOnce(Builder) -> Builder) -> World {
    let builder = Builder::new(name);
    let lan = builder.lab.macvlan("bridge");
    more(builder.network("lan", &lan)).on_host().start()
}

/// What upstream's shim would print for `verb`, in the form the daemon answers.
fn cni(world: &World, verb: &str, pod: Option<&Pod>) -> Result<Value, String> {
    upstream::shim(world.agent.socket(), &world.runtime.call(verb, pod))
}

/// The network `lan` as the controller sends it: with a name, the rest as its author wrote it.
fn lan(world: &World) -> Value {
    let mut network = world.lab.macvlan("bridge");
    network["name"] = "lan".into();
    network
}

fn delegate(world: &World, verb: &str, pod: &Pod, ifname: &str, network: &Value) -> Result<Value, String> {
    upstream::delegate(world.agent.socket(), verb, pod, ifname, network, &json!({}))
}

fn attachments(world: &World) -> Vec<Value> {
    let done = world.agent.cli(&world.lab, &["get", "attachments", "-o", "json"]);
    let document: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    document["items"].as_array().cloned().unwrap_or_default()
}

fn round(world: &World) {
    let first = world.lab.pod("first").networks("lan");
    cni(world, "ADD", Some(&first)).unwrap();
    assert_eq!(cni(world, "DEL", Some(&first)), Ok(Value::Null));
    let before = NodeState::capture(&world.lab, &[]);
    let pod = world.lab.pod("cam").networks("lan");
    let answer = cni(world, "ADD", Some(&pod)).unwrap();
    let result = &answer["Result"];
    assert_eq!(result["cniVersion"], "1.1.0", "the shim converts: {answer:#}");
    assert_eq!(result["interfaces"][2]["name"], "eth0", "the default network's result: {answer:#}");
    assert!(pod.netns.link("net1").is_some(), "{:?}", pod.netns.link_names());
    assert_eq!(cni(world, "CHECK", Some(&pod)), Ok(Value::Null));
    assert_eq!(cni(world, "DEL", Some(&pod)), Ok(Value::Null));
    assert_eq!(pod.netns.link_names(), [""; 0]);
    assert_eq!(cni(world, "DEL", Some(&pod)), Ok(Value::Null), "a second DEL");
    before.assert_restored(&world.lab, &[], "ADD, CHECK and DEL by upstream's shim");
}

#[test]
fn upstreams_shim_adds_checks_and_deletes() {
    needs_programs!();
    round(&on_host("up-host", |builder| builder));
}

#[test]
fn the_same_from_a_pod_that_may_enter_the_host() {
    needs_programs!();
    let builder = Builder::new("up-exec");
    let lan = builder.lab.macvlan("bridge");
    let (hidden, fake) = (builder.lab.dir.join("hidden"), plugins::conf(&builder.lab, "fake", &json!({})));
    std::fs::create_dir(&hidden).unwrap();
    let world = builder.network("lan", &lan).network("fake", &fake).with_host_exec().start();
    round(&world);
    // Which mounts a plugin sees: the host's, though the agent has its own.
    let pod = world.lab.pod("eyes").networks("fake");
    cni(&world, "ADD", Some(&pod)).unwrap();
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_ne!(namespace(&world.agent.pid().to_string()), namespace("self"), "the lab's agent shares our mounts");
    assert_eq!(plugins::journal(&world.lab, "fake")[0].mounts(), namespace("self").display().to_string());
}

#[test]
fn without_the_right_the_component_is_named() {
    needs_programs!();
    let world = World::new("up-not");
    let pod = world.lab.pod("cam").networks("lan");
    let refusal = cni(&world, "ADD", Some(&pod)).unwrap_err();
    assert!(refusal.starts_with("400: {") && refusal.contains("host-exec"), "{refusal}");
    let refusal = delegate(&world, "ADD", &pod, "net2", &lan(&world)).unwrap_err();
    assert!(refusal.starts_with("400: {") && refusal.contains("host-exec"), "{refusal}");
    assert_eq!(pod.netns.link_names(), [""; 0]);
}

#[test]
fn delegates_get_a_small_environment_and_a_bound() {
    needs_programs!();
    let world = on_host("up-env", |builder| {
        let fake = plugins::conf(&builder.lab, "fake", &json!({}));
        builder.network("fake", &fake)
    });
    let pod = world.lab.pod("cam").networks("fake");
    cni(&world, "ADD", Some(&pod)).unwrap();
    let journal = plugins::journal(&world.lab, "fake");
    let names: Vec<_> = journal[0].0["env"].as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = ["CNI_ARGS", "CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH", "PATH"];
    assert_eq!(names, wanted);
    assert_eq!(journal[0].env("CNI_PATH"), world.lab.bin_dir.display().to_string(), "the daemon's, not the request's");
    assert_eq!(journal[0].data_limit(), (512 << 20).to_string());
    cni(&world, "DEL", Some(&pod)).unwrap();
}

#[test]
fn odd_requests_get_upstreams_answers() {
    needs_programs!();
    let world = on_host("up-odd", |builder| builder);
    let pod = world.lab.pod("cam").networks("lan");
    world.lab.pod_object(&pod);
    // Old runtimes give no UID; the interface is eth0 where nobody says so; no annotations ride along.
    let mut call = world.runtime.call("ADD", Some(&pod)).without("CNI_IFNAME").without("CNI_PATH").conf(|conf| {
        conf["runtimeConfig"] = json!({});
        conf["cniVersion"] = "0.3.1".into();
    });
    let args = format!("K8S_POD_NAMESPACE={};K8S_POD_NAME={}", pod.namespace, pod.name);
    call.env.insert("CNI_ARGS".into(), args);
    let answer = upstream::shim(world.agent.socket(), &call).unwrap();
    assert_eq!(answer["Result"]["cniVersion"], "1.1.0", "{answer:#}");
    assert!(pod.netns.link("eth0").is_some() && pod.netns.link("net1").is_some());
    let again = upstream::shim(world.agent.socket(), &call).unwrap_err();
    assert!(again.starts_with("400: {\"code\":4,"), "{again}");
    call.env.insert("CNI_COMMAND".into(), "DEL".into());
    assert_eq!(upstream::shim(world.agent.socket(), &call.without("CNI_NETNS")), Ok(Value::Null));
    assert_eq!(pod.netns.link_names(), [""; 0], "a DEL without a namespace cleans the recorded one");

    let newest = |verb: &str| {
        world.runtime.call(verb, None).without("CNI_PATH").conf(|conf| {
            conf["cniVersion"] = "1.1.0".into();
            conf["cni.dev/valid-attachments"] = json!([]);
        })
    };
    for verb in ["STATUS", "GC"] {
        assert_eq!(upstream::shim(world.agent.socket(), &newest(verb)), Ok(Value::Null), "{verb} without CNI_ARGS");
    }
    let socket = world.agent.socket();
    for (path, body, status) in [
        ("/cni", "", 400),
        ("/cni", "[]", 400),
        ("/cni", r#"{"env":{"CNI_COMMAND":"FOO"},"config":"e30="}"#, 400),
        ("/cni", r#"{"env":{"CNI_COMMAND":"ADD"},"config":"%"}"#, 400),
        ("/delegate", r#"{"env":null,"config":null}"#, 400),
        ("/nonesuch", "", 404),
    ] {
        let reply = http::post_unix(socket, path, body.as_bytes()).unwrap();
        assert_eq!(reply.status, status, "{path} {body}: {}", reply.body);
    }
    for path in ["/cni", "/delegate", "/v1/cni"] {
        assert_eq!(http::get_unix(socket, path).unwrap().status, 405, "GET {path}");
    }
    let metrics = world.agent.metrics(&world.lab);
    let counted = |handler: &str, code: &str, method: &str| {
        metrics.sum("multus_server_request_total", &[("handler", handler), ("code", code), ("method", method)])
    };
    assert_eq!((counted("NotFound", "404", "POST"), counted("/cni", "405", "GET")), (1, 1));
}

#[test]
fn an_add_nobody_waits_for_any_more_is_undone() {
    needs_programs!();
    let world = on_host("up-gone", |builder| {
        let slow = plugins::conf(
            &builder.lab,
            "slow",
            &json!({"ADD": {"sleep_ms": 1000, "link": true}, "DEL": {"link": true}}),
        );
        builder.network("slow", &slow)
    });
    let pod = world.lab.pod("cam").networks("slow");
    let call = world.runtime.call("ADD", Some(&pod));
    let body = upstream::body(&call.env, &call.stdin).to_string();
    let mut stream = UnixStream::connect(world.agent.socket()).unwrap();
    write!(stream, "POST /cni HTTP/1.1\r\nHost: dummy\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
    assert!(wait_until(Duration::from_secs(5), || !plugins::journal(&world.lab, "slow").is_empty()));
    drop(stream);
    let clean =
        || plugins::verbs(&plugins::journal(&world.lab, "slow")) == ["ADD", "DEL"] && pod.netns.link_names().is_empty();
    assert!(wait_until(Duration::from_secs(8), clean), "left: {:?}", pod.netns.link_names());
    assert!(wait_until(Duration::from_secs(2), || attachments(&world).is_empty()), "{:#?}", attachments(&world));
    cni(&world, "ADD", Some(&pod)).expect("the same ADD afterwards");
    cni(&world, "DEL", Some(&pod)).unwrap();
}

#[test]
fn half_sent_requests_are_closed_after_a_while() {
    needs_programs!();
    let world = World::new("up-half");
    let halves = ["POST /cni HT", "POST /cni HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"env\":"];
    let began = Instant::now();
    let streams = halves.map(|half| {
        let mut stream = UnixStream::connect(world.agent.socket()).unwrap();
        stream.write_all(half.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream
    });
    for (half, mut stream) in halves.into_iter().zip(streams) {
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap_or_else(|error| panic!("{half:?} is still held: {error}"));
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    let took = began.elapsed();
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(14), "closed after {took:?}");
}
