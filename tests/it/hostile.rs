//! Bad input of every kind: a clear CNI error that names object, field and remedy; the pod as found; the agent alive.

use std::time::{Duration, Instant};

use lab::runtime::Runtime;
use lab::world::Builder;
use lab::{Lab, Pod, World, http, plugins, wait_until};
use serde_json::{Value, json};

/// A world whose network `net` has this configuration, and `lan` a good one.
fn with_network(name: &str, config: &Value) -> World {
    let builder = Builder::new(name);
    let lan = builder.lab.macvlan("bridge");
    builder.network("lan", &lan).network("net", config).start()
}

/// Adds a pod that selects `networks`; demands a refusal whose text has all of `words`, and that nothing else happened.
fn refused(world: &World, networks: &str, words: &[&str]) -> Value {
    let before = plugins::allocations(&world.lab.ipam_dir);
    let pod = world.lab.pod("victim").networks(networks);
    let answer = world.add(&pod);
    let error = answer.error();
    let text = said(&error);
    for word in words {
        assert!(text.contains(word), "the refusal of {networks:?} does not say {word:?}: {text}");
    }
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "raw control characters in {text:?}");
    assert!(text.len() < 2000, "the refusal is {} bytes long: {text:.300}", text.len());
    assert_eq!(pod.netns.link_names(), [""; 0], "links in the pod after the refusal of {networks:?}");
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), before, "addresses after the refusal of {networks:?}");
    world.del(&pod).expect_ok();
    error
}

fn said(error: &Value) -> String {
    format!("{}; {}", error["msg"].as_str().unwrap_or_default(), error["details"].as_str().unwrap_or_default())
}

/// The agent still does its work.
fn still_works(world: &mut World) {
    assert!(world.agent.is_running(), "the agent ended:\n{}", world.agent.log_text());
    let pod = world.attached("good", "lan");
    assert!(pod.netns.link("net1").is_some());
    world.del(&pod).expect_ok();
}

#[test]
fn malformed_annotations() {
    needs_programs!();
    let mut world = World::new("annotations");
    let key = "k8s.v1.cni.cncf.io/networks";
    for (networks, words) in [
        (r#"[{"name": "lan""#, vec![key]),
        ("[null]", vec![key]),
        (r#"{"name": "lan"}"#, vec![key]),
        (r#""lan""#, vec![key]),
        ("a/b/c", vec![key, "a/b/c"]),
        ("lan@a@b", vec![key, "lan@a@b"]),
        ("lan,,lan", vec![key]),
        ("Lan_1", vec![key, "Lan_1"]),
        ("lan@interface-name-too-long", vec![key, "interface-name-too-long"]),
        (r#"[{"name": "lan", "interface": "a/b"}]"#, vec![key, "a/b"]),
        (r#"[{"name": "lan", "mac": "not-a-mac"}]"#, vec![key, "mac", "not-a-mac"]),
        (r#"[{"name": "lan", "ips": ["10.0.0.300"]}]"#, vec![key, "ips", "10.0.0.300"]),
        (r#"[{"name": "lan", "ips": "10.0.0.3"}]"#, vec![key, "ips"]),
        (r#"[{"name": "lan", "cni-args": "x"}]"#, vec![key, "cni-args"]),
        (r#"[{"name": "lan", "default-route": ["nowhere"]}]"#, vec![key, "default-route", "nowhere"]),
        (r#"[{"namespace": "default"}]"#, vec![key, "name"]),
        ("[{\"name\": \"la\u{1b}[31mn\"}]", vec![key]),
    ] {
        let error = refused(&world, networks, &words);
        assert_eq!(error["code"], 100, "{networks}: {error}");
    }
    let endless = format!("lan{}", ",lan".repeat(20_000));
    refused(&world, &endless, &[key]);
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    refused(&world, &deep, &[key]);
    still_works(&mut world);
}

#[test]
fn an_unknown_network() {
    needs_programs!();
    let mut world = World::new("unknown");
    for (networks, words) in [("nosuch", ["default/nosuch"]), ("lan,infra/nosuch", ["infra/nosuch"])] {
        let error = refused(&world, networks, &words);
        assert_eq!(error["code"], 101, "{error}");
        assert!(!error["details"].as_str().unwrap_or_default().is_empty(), "a remedy: {error}");
    }
    still_works(&mut world);
}

#[test]
fn networks_with_broken_configurations() {
    needs_programs!();
    let builder = Builder::new("broken");
    let lan = builder.lab.macvlan("bridge");
    let cases = [
        ("cut", r#"{"cniVersion": "1.0.0", "type": "macvl"#.to_owned(), vec![]),
        ("text", "macvlan".to_owned(), vec![]),
        ("list", "[]".to_owned(), vec![]),
        ("null", "null".to_owned(), vec![]),
        ("empty-plugins", json!({"cniVersion": "1.0.0", "plugins": []}).to_string(), vec!["plugins"]),
        ("null-plugin", json!({"cniVersion": "1.0.0", "plugins": [null]}).to_string(), vec!["plugins"]),
        ("no-type", json!({"cniVersion": "1.0.0", "name": "x"}).to_string(), vec!["type"]),
        ("type-number", json!({"cniVersion": "1.0.0", "type": 5}).to_string(), vec!["type"]),
        ("type-slash", json!({"cniVersion": "1.0.0", "type": "../bin/sh"}).to_string(), vec!["type", "../bin/sh"]),
        ("type-dots", json!({"cniVersion": "1.0.0", "type": ".."}).to_string(), vec!["type"]),
        (
            "ipam-slash",
            json!({"cniVersion": "1.0.0", "type": "macvlan", "ipam": {"type": "/bin/sh"}}).to_string(),
            vec!["ipam", "/bin/sh"],
        ),
        ("version", json!({"cniVersion": "9.9.9", "type": "macvlan"}).to_string(), vec!["cniVersion", "9.9.9"]),
        ("version-number", json!({"cniVersion": 1, "type": "macvlan"}).to_string(), vec!["cniVersion"]),
        (
            "capabilities",
            json!({"cniVersion": "1.0.0", "type": "macvlan", "capabilities": "all"}).to_string(),
            vec!["capabilities"],
        ),
        (
            "bad-name",
            json!({"cniVersion": "1.0.0", "type": "macvlan", "name": "../../etc"}).to_string(),
            vec!["name", "../../etc"],
        ),
    ];
    for (name, config, _) in &cases {
        builder.lab.network("default", name, &Value::String(config.clone()), &json!({}));
    }
    let mut world = builder.network("lan", &lan).start();
    for (name, _, words) in &cases {
        let object = format!("default/{name}");
        let words: Vec<_> = words.iter().copied().chain([object.as_str()]).collect();
        refused(&world, name, &words);
        refused(&world, &format!("lan,{name}"), &words);
    }
    still_works(&mut world);
}

#[test]
fn a_plugin_that_is_not_installed() {
    needs_programs!();
    let mut world = with_network("missing", &json!({"cniVersion": "1.0.0", "type": "whereabouts"}));
    let folder = world.lab.bin_dir.display().to_string();
    refused(&world, "lan,net", &["default/net", "whereabouts", &folder]);
    still_works(&mut world);
}

#[test]
fn an_ipam_plugin_that_is_not_installed() {
    needs_programs!();
    let conf = json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "eth0", "ipam": {"type": "nosuch-ipam"}});
    let mut world = with_network("missing-ipam", &conf);
    refused(&world, "net", &["default/net", "nosuch-ipam"]);
    still_works(&mut world);
}

#[test]
fn a_parent_that_does_not_exist() {
    needs_programs!();
    let conf = json!({"cniVersion": "1.0.0", "type": "macvlan", "master": "enp99s0", "ipam": {"type": "static",
        "addresses": [{"address": "10.1.1.1/24"}]}});
    let mut world = with_network("parent", &conf);
    refused(&world, "net", &["default/net", "enp99s0"]);
    still_works(&mut world);
}

#[test]
fn two_networks_that_ask_for_one_interface() {
    needs_programs!();
    let mut world = World::new("ifname");
    refused(&world, "lan@cam0,quiet@cam0", &["default/lan", "default/quiet", "cam0"]);
    refused(&world, "lan@eth0", &["default/lan", "eth0"]);
    refused(&world, "lan@net2,quiet", &["net2"]);
    still_works(&mut world);
}

#[test]
fn delegates_that_answer_nonsense() {
    needs_programs!();
    for (name, programme, words) in [
        ("garbage", json!({"ADD": {"stdout": "Segmentation fault"}}), vec!["default/net"]),
        ("html", json!({"ADD": {"stdout": "<html>\u{1b}[31m", "exit": 1}}), vec!["default/net"]),
        ("array", json!({"ADD": {"stdout": "[1,2,3]"}}), vec!["default/net"]),
        ("types", json!({"ADD": {"stdout": r#"{"cniVersion":"1.0.0","ips":"none"}"#}}), vec!["default/net"]),
        ("silent", json!({"ADD": {"exit": 9, "stderr": "cannot open /dev/weird"}}), vec!["default/net", "cannot open"]),
        ("signal", json!({"ADD": {"signal": 11}}), vec!["default/net", "signal"]),
        ("code", json!({"ADD": {"error": {"code": 123, "msg": "no\u{1b}[2Jway"}}}), vec!["default/net", "way"]),
    ] {
        let builder = Builder::new(name);
        let conf = plugins::conf(&builder.lab, "fake", &programme);
        let lan = builder.lab.macvlan("bridge");
        let mut world = builder.network("lan", &lan).network("net", &conf).start();
        refused(&world, "lan,net", &words);
        still_works(&mut world);
    }
}

#[test]
fn a_delegate_that_prints_100_mib() {
    needs_programs!();
    let builder = Builder::new("flood");
    let conf = plugins::conf(
        &builder.lab,
        "fake",
        &json!({"ADD": {"stdout_bytes": 104_857_600, "stderr_bytes": 104_857_600}}),
    );
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).network("net", &conf).start();
    world.agent.reset_memory_peak();
    refused(&world, "net", &["default/net"]);
    let (_, peak) = world.agent.memory_kib();
    assert!(peak < 64 * 1024, "the agent's peak was {peak} KiB");
    still_works(&mut world);
}

#[test]
fn a_delegate_that_hangs_is_ended_at_the_deadline() {
    needs_programs!();
    let builder = Builder::new("hang");
    let conf = plugins::conf(&builder.lab, "fake", &json!({"ADD": {"hang": true}}));
    let lan = builder.lab.macvlan("bridge");
    let builder = builder.network("lan", &lan).network("net", &conf);
    let mut world = builder.configure(|config, _| config["requestTimeout"] = "3s".into()).start();
    world.runtime.plugin["requestTimeout"] = "3s".into();
    let began = Instant::now();
    refused(&world, "net", &["default/net"]);
    assert!(began.elapsed() < Duration::from_secs(10), "the refusal took {:?}", began.elapsed());
    let add = plugins::journal(&world.lab, "fake")[0].clone();
    let gone = || !std::path::Path::new(&format!("/proc/{}", add.pid())).exists();
    assert!(wait_until(Duration::from_secs(3), gone), "the hanging delegate still runs");
    still_works(&mut world);
}

#[test]
fn a_delegate_that_forks_and_keeps_the_pipe() {
    needs_programs!();
    let builder = Builder::new("pipe");
    let conf = plugins::conf(&builder.lab, "fake", &json!({"ADD": {"hold_pipe_ms": 15_000}}));
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).network("net", &conf).start();
    let pod = world.lab.pod("cam").networks("net");
    let answer = world.add(&pod);
    assert!(answer.done.took < Duration::from_secs(8), "the ADD waited for a grandchild: {}", answer.describe());
    world.del(&pod).expect_ok();
    still_works(&mut world);
}

#[test]
fn garbage_on_the_socket() {
    needs_programs!();
    let mut world = World::new("garbage");
    let socket = world.agent.socket().to_path_buf();
    let raw: Vec<Vec<u8>> = vec![
        b"\x00\x01\x02\xff\xfe garbage\r\n\r\n".to_vec(),
        vec![b'A'; 1 << 20],
        b"POST /cni HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n".to_vec(),
        [b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ".to_vec(), vec![b'a'; 1 << 20], b"\r\n\r\n".to_vec()].concat(),
    ];
    for bytes in raw {
        // Whether it answers 400 or just closes is its own affair; it must do one of them, soon.
        let began = Instant::now();
        let _ = http::raw_unix(&socket, &bytes);
        assert!(began.elapsed() < Duration::from_secs(9), "the agent neither answered nor closed");
    }
    for target in ["/cni", "/delegate", "/v1/cni"] {
        for body in [&b""[..], b"{", b"null", b"[]", b"{\"env\": 5}", b"\xff\xfe", b"{\"env\":{},\"config\":null}"] {
            let reply = http::post_unix(&socket, target, body).unwrap_or_else(|e| panic!("POST {target}: {e}"));
            assert!((400..600).contains(&reply.status), "POST {target} {body:?}: {} {}", reply.status, reply.body);
        }
        let reply = http::get_unix(&socket, target).unwrap_or_else(|e| panic!("GET {target}: {e}"));
        assert!((400..500).contains(&reply.status), "GET {target}: {}", reply.status);
    }
    let reply = http::get_unix(&socket, "/nowhere").expect("a reply");
    assert_eq!(reply.status, 404);
    still_works(&mut world);
}

#[test]
fn idle_connections_do_not_keep_others_out() {
    needs_programs!();
    let mut world = World::new("idle");
    let connect = || std::os::unix::net::UnixStream::connect(world.agent.socket());
    let idle: Vec<_> = (0..200).filter_map(|_| connect().ok()).collect();
    let began = Instant::now();
    still_works(&mut world);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "an ADD took {:?} beside {} idle connections",
        began.elapsed(),
        idle.len()
    );
}

type Change = Box<dyn FnOnce(lab::Call) -> lab::Call>;

/// Calls the shim with one thing wrong; the agent is not needed for that.
fn shim_refuses(lab: &Lab, pod: &Pod, change: impl FnOnce(lab::Call) -> lab::Call) -> (u64, String) {
    let call = change(Runtime::new(lab).call("ADD", Some(pod)));
    let error = call.run(&lab.node).error();
    (error["code"].as_u64().unwrap_or_default(), said(&error))
}

#[test]
fn what_the_runtime_gets_wrong() {
    needs_programs!();
    let world = World::new("runtime");
    let pod = world.lab.pod("cam").networks("lan");
    let lab = &world.lab;
    let stdin = |text: &'static [u8]| {
        move |mut call: lab::Call| {
            call.stdin = text.to_vec();
            call
        }
    };
    for text in [&b""[..], b"{", b"garbage", b"[]", b"\xff\xff"] {
        assert_eq!(shim_refuses(lab, &pod, stdin(text)).0, 6, "stdin {text:?}");
    }
    let cases: Vec<(&str, u64, Vec<&str>, Change)> = vec![
        ("no name", 7, vec!["name"], Box::new(|c| c.conf(|conf| drop(conf.as_object_mut().map(|o| o.remove("name")))))),
        ("a name that leaves a folder", 7, vec!["name"], Box::new(|c| c.conf(|conf| conf["name"] = "../x".into()))),
        ("an unknown version", 1, vec!["9.9.9"], Box::new(|c| c.conf(|conf| conf["cniVersion"] = "9.9.9".into()))),
        ("an unknown command", 4, vec!["CNI_COMMAND"], Box::new(|c| c.var("CNI_COMMAND", "FOO"))),
        ("no netns", 4, vec!["CNI_NETNS"], Box::new(|c| c.without("CNI_NETNS"))),
        (
            "nothing at all",
            4,
            vec!["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Box::new(|c| c.without("CNI_CONTAINERID").without("CNI_NETNS").without("CNI_IFNAME")),
        ),
        ("an id that leaves a folder", 4, vec!["CNI_CONTAINERID"], Box::new(|c| c.var("CNI_CONTAINERID", "../../x"))),
        ("an interface with a slash", 4, vec!["CNI_IFNAME"], Box::new(|c| c.var("CNI_IFNAME", "a/b"))),
        ("an interface too long", 4, vec!["CNI_IFNAME"], Box::new(|c| c.var("CNI_IFNAME", "abcdefghijklmnop"))),
    ];
    for (what, code, words, change) in cases {
        let (found, text) = shim_refuses(lab, &pod, change);
        assert_eq!(found, code, "{what}: {text}");
        for word in words {
            assert!(text.contains(word), "{what} does not name {word}: {text}");
        }
    }
    let (_, text) = shim_refuses(lab, &pod, |c| c.var("CNI_NETNS", "/etc/hostname"));
    assert!(text.contains("/etc/hostname"), "{text}");
    let (_, text) = shim_refuses(lab, &pod, |c| c.var("CNI_NETNS", "/run/netns/does-not-exist"));
    assert!(text.contains("does-not-exist"), "{text}");
}

#[test]
fn an_argument_that_no_plugin_can_read_breaks_nothing() {
    needs_programs!();
    let world = World::new("args");
    let pod = world.lab.pod("cam").networks("lan");
    let odd = world.runtime.call("ADD", Some(&pod)).var("CNI_ARGS", format!("{};X=a=b", pod.cni_args()));
    odd.run(&world.lab.node).expect_ok();
    world.del(&pod).expect_ok();
}

#[test]
fn a_socket_folder_of_somebody_else_is_not_trusted() {
    needs_programs!();
    let world = World::new("trust");
    let pod = world.lab.pod("cam").networks("lan");
    std::os::unix::fs::chown(&world.lab.socket_dir, Some(65534), Some(65534)).expect("give the folder away");
    let answer = world.add(&pod);
    assert!(!answer.ok(), "the shim talked through a socket folder that is not root's");
    assert_eq!(pod.netns.link_names(), [""; 0]);
    std::os::unix::fs::chown(&world.lab.socket_dir, Some(0), Some(0)).expect("take the folder back");
}
