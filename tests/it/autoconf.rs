//! The conf for the container runtime: whose network it is made for, what it says, and that nobody takes it away.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lab::agent::Home;
use lab::world::Builder;
use lab::{Agent, Lab, World, agent, http, plugins, wait_until};
use serde_json::{Value, json};

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";
const SOON: Duration = Duration::from_secs(4);
const MULTUS: &str = r#"{"cniVersion":"0.3.1","name":"m","type":"multus-shim"}"#;

/// A node whose agent searches the cluster's own network in `conf_dir`, where `10-default.conflist` is one.
fn searching(name: &str) -> Builder {
    Builder::new(name).configure(|config, _| {
        config.as_object_mut().expect("an object").remove("clusterNetwork");
        config["datapath"]["mode"] = "off".into();
    })
}

fn conf_path(lab: &Lab) -> PathBuf {
    lab.cni_conf_dir.join("00-multus.conflist")
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn conf(lab: &Lab) -> Value {
    read(&conf_path(lab)).unwrap_or_else(|| panic!("no valid conf: {:?}", fs::read_to_string(conf_path(lab))))
}

fn place(folder: &Path, name: &str, text: &str) {
    let hidden = folder.join(format!(".{name}.new"));
    fs::write(&hidden, text).expect("write a file");
    fs::rename(hidden, folder.join(name)).expect("place a file");
}

/// A network as a cluster's own plugin leaves it, with these capabilities.
fn network(name: &str, capabilities: &Value) -> String {
    let plugin = json!({"type": "bridge", "capabilities": capabilities});
    json!({"cniVersion": "1.0.0", "name": name, "plugins": [plugin]}).to_string()
}

fn status(agent: &Agent, lab: &Lab) -> Value {
    let done = agent.cli(lab, &["status", "-o", "json"]);
    let document: Value = serde_json::from_slice(&done.stdout)
        .unwrap_or_else(|e| panic!("status is not JSON ({e}): {}{}", done.out(), done.err()));
    document["runtimeConf"].clone()
}

fn master(agent: &Agent, lab: &Lab) -> String {
    let path = status(agent, lab)["master"].as_str().unwrap_or_default().to_owned();
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn expect_master(world: &World, wanted: &str, after: &str) {
    let mut last = String::new();
    let is = wait_until(SOON, || {
        last = master(&world.agent, &world.lab);
        last == wanted
    });
    assert!(is, "after {after} the master is {last:?} and not {wanted:?}");
}

fn comes_back(lab: &Lab, wanted: &[u8], after: &str) {
    let back = wait_until(SOON, || fs::read(conf_path(lab)).is_ok_and(|bytes| bytes == wanted));
    assert!(back, "after {after} the conf is {:?}", fs::read_to_string(conf_path(lab)));
}

#[test]
fn a_pod_gets_its_networks_through_the_generated_conf() {
    needs_programs!();
    let builder = searching("auto-pod").configure(|config, _| config["requestTimeout"] = "15s".into());
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).start();
    let made = conf(&world.lab);
    assert_eq!(made["name"], "multus-cni-network");
    assert_eq!((&made["cniVersion"], &made["cniVersions"]), (&json!("1.0.0"), &json!(["1.0.0", "1.1.0"])));
    let mode = fs::metadata(conf_path(&world.lab)).expect("the conf").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let plugin = made["plugins"][0].clone();
    assert_eq!(plugin["capabilities"], json!({ANNOTATIONS: true}));
    // The runtime knows nothing but this file, and calls STATUS at the newest version that it offers.
    world.runtime.plugin = plugin;
    "1.1.0".clone_into(&mut world.runtime.version);
    world.runtime.status(&world.lab).expect_ok();
    let pod = world.attached("cam", "lan");
    assert_eq!(pod.netns.link_names(), ["eth0", "net1"]);
    world.check(&pod).expect_ok();
    world.del(&pod).expect_ok();
    assert_eq!(plugins::allocations(&world.lab.ipam_dir), [""; 0]);
}

#[test]
fn the_master_is_chosen_by_content_and_again_when_files_change() {
    needs_programs!();
    let builder = searching("auto-master");
    let folder = builder.lab.conf_dir.clone();
    place(&folder, "00-multus.conf", MULTUS);
    place(&folder, "05-multus.conf", MULTUS);
    place(&folder, "06-rke2.conflist", r#"{"name":"m","plugins":[{"type":"tuning"},{"type":"rke2-multus"}]}"#);
    place(&folder, "07-half.conflist", r#"{"cniVersion":"1.0.0","name":"half","plugins":[{"type":"bri"#);
    place(&folder, "08-empty.conf", "");
    place(&folder, "09-loopback.conf", r#"{"cniVersion":"1.0.0","name":"lo","type":"loopback"}"#);
    fs::create_dir(folder.join("09-folder.conf")).expect("make a folder");
    let world = builder.start();
    assert_eq!(master(&world.agent, &world.lab), "10-default.conflist");
    let warnings = status(&world.agent, &world.lab)["warnings"].to_string();
    for name in ["07-half.conflist", "08-empty.conf", "09-folder.conf"] {
        assert!(warnings.contains(name), "the status does not say that {name} is skipped: {warnings}");
    }
    assert!(!warnings.contains("05-multus"), "a Multus configuration is no cause for worry: {warnings}");

    place(&folder, "01-earlier.json", r#"{"cniVersion":"1.0.0","name":"early","type":"bridge"}"#);
    expect_master(&world, "01-earlier.json", "an earlier file appeared");
    fs::remove_file(folder.join("01-earlier.json")).expect("remove");
    expect_master(&world, "10-default.conflist", "the earlier file was removed");
    fs::rename(folder.join("10-default.conflist"), folder.join("20-default.conflist")).expect("rename");
    expect_master(&world, "20-default.conflist", "the master was renamed");
    place(&folder, "07-half.conflist", &network("whole", &json!({})));
    expect_master(&world, "07-half.conflist", "the half file became whole");
    fs::remove_file(folder.join("07-half.conflist")).expect("remove");
    expect_master(&world, "20-default.conflist", "it was removed");
    let pod = world.lab.pod("cam");
    world.add(&pod).expect_ok();
    world.del(&pod).expect_ok();
}

#[test]
fn a_master_that_is_being_written_keeps_its_place() {
    needs_programs!();
    let builder = searching("auto-torn");
    let folder = builder.lab.conf_dir.clone();
    place(&folder, "90-other.conflist", &network("other", &json!({})));
    let world = builder.start();
    let whole = fs::read(folder.join("10-default.conflist")).expect("the master");
    fs::write(folder.join("10-default.conflist"), &whole[..whole.len() / 2]).expect("write half of it");
    let noticed = || status(&world.agent, &world.lab)["warnings"].to_string().contains("10-default.conflist");
    assert!(wait_until(SOON, noticed), "nobody noticed the half file");
    assert_eq!(master(&world.agent, &world.lab), "10-default.conflist");
    let pod = world.lab.pod("cam");
    world.add(&pod).expect_ok();
    assert_eq!(pod.netns.link_names(), ["eth0"], "the network as it was last seen whole");
    fs::write(folder.join("10-default.conflist"), &whole).expect("write all of it");
    assert!(wait_until(SOON, || !noticed()), "the warning stays");
    world.del(&pod).expect_ok();
}

#[test]
fn without_a_master_nothing_is_written_and_the_reason_is_said() {
    needs_programs!();
    let builder = searching("auto-none");
    let folder = builder.lab.conf_dir.clone();
    fs::rename(folder.join("10-default.conflist"), builder.lab.dir.join("later")).expect("take the master away");
    place(&folder, "05-multus.conf", MULTUS);
    let mut agent = Agent::start_unready(Home::Pod, &builder.lab, &builder.config);
    let ready = || http::get_unix(agent.socket(), "/readyz").ok();
    assert!(wait_until(SOON, || ready().is_some()), "the agent does not answer");
    let reply = ready().expect("an answer");
    assert!(reply.status == 500 && reply.body.contains("05-multus.conf"), "{reply:?}");
    let mut runtime = builder.runtime;
    "1.1.0".clone_into(&mut runtime.version);
    let answer = runtime.status(&builder.lab);
    let text = answer.expect_error(50);
    assert!(text.contains("05-multus.conf") && text.contains(&*folder.to_string_lossy()), "{text}");
    assert!(answer.done.took < Duration::from_secs(2), "STATUS took {:?}", answer.done.took);
    runtime.plugin["requestTimeout"] = "2s".into();
    let pod = builder.lab.pod("cam");
    let text = runtime.add(&builder.lab, &pod).expect_error(11);
    assert!(text.contains("05-multus.conf"), "{text}");
    assert!(!conf_path(&builder.lab).exists());
    // An ADD that waits goes on as soon as the network is there.
    runtime.plugin["requestTimeout"] = "20s".into();
    let waiting = runtime.call("ADD", Some(&pod)).start(&builder.lab.node);
    std::thread::sleep(Duration::from_millis(500));
    fs::rename(builder.lab.dir.join("later"), folder.join("10-default.conflist")).expect("bring the master");
    let done = waiting.wait(Duration::from_secs(20));
    assert!(done.success() && done.took < Duration::from_secs(8), "{:?}: {}{}", done.took, done.out(), done.err());
    agent.wait_ready();
    conf(&builder.lab);
    runtime.status(&builder.lab).expect_ok();
    runtime.del(&builder.lab, &pod).expect_ok();

    // Gone again: what stands goes on standing, and nobody is told that all is well.
    let before = fs::read(conf_path(&builder.lab)).expect("the conf");
    fs::remove_file(folder.join("10-default.conflist")).expect("remove the master");
    let said = || runtime.status(&builder.lab).done.code != Some(0);
    assert!(wait_until(SOON, said), "STATUS does not notice that the master is gone");
    runtime.status(&builder.lab).expect_error(50);
    fs::remove_file(conf_path(&builder.lab)).expect("remove the conf, too");
    comes_back(&builder.lab, &before, "the removal of the last valid conf");
    assert!(agent.is_running());
}

#[test]
fn a_named_master_wins_but_may_not_be_multus() {
    needs_programs!();
    let builder = searching("auto-named").configure(|config, _| config["multusMasterCNI"] = "50-mine.conflist".into());
    let folder = builder.lab.conf_dir.clone();
    place(&folder, "50-mine.conflist", r#"{"name":"m","plugins":[{"type":"multus"}]}"#);
    let mut agent = Agent::start_unready(Home::Pod, &builder.lab, &builder.config);
    let reply = || http::get_unix(agent.socket(), "/readyz").map(|reply| reply.body).unwrap_or_default();
    assert!(wait_until(SOON, || !reply().is_empty()), "the agent does not answer");
    let text = reply();
    assert!(text.contains("multusMasterCNI") && text.contains("50-mine.conflist") && text.contains("Multus"), "{text}");
    let mut mine = builder.lab.bridge();
    mine["plugins"][0]["capabilities"] = json!({"mine": true});
    place(&folder, "50-mine.conflist", &mine.to_string());
    agent.wait_ready();
    assert_eq!(master(&agent, &builder.lab), "50-mine.conflist");
    assert_eq!(conf(&builder.lab)["plugins"][0]["capabilities"]["mine"], true);
}

#[test]
fn what_another_program_does_to_the_conf_is_undone_and_told() {
    needs_programs!();
    let world = searching("auto-taken").start();
    let path = conf_path(&world.lab);
    let wanted = fs::read(&path).expect("the conf");
    let bak = world.lab.cni_conf_dir.join("00-multus.conflist.cilium_bak");
    let deeds: [(&str, &dyn Fn()); 5] = [
        ("removed", &|| fs::remove_file(&path).expect("remove")),
        ("emptied", &|| fs::write(&path, "").expect("empty")),
        ("altered", &|| fs::write(&path, MULTUS).expect("alter")),
        ("renamed to \\\"00-multus.conflist.old", &|| {
            fs::rename(&path, path.with_extension("conflist.old")).expect("rename");
        }),
        ("cni.exclusive to false in Cilium", &|| {
            let _ = fs::remove_file(path.with_extension("conflist.old"));
            fs::rename(&path, &bak).expect("rename");
        }),
    ];
    for (said, deed) in deeds {
        deed();
        comes_back(&world.lab, &wanted, said);
        let mut warnings = String::new();
        let told = wait_until(SOON, || {
            warnings = status(&world.agent, &world.lab)["warnings"].to_string();
            warnings.contains(said)
        });
        assert!(told, "the status does not say {said:?}: {warnings}");
        assert!(warnings.contains("cni.exclusive"), "the setting is not named: {warnings}");
    }
    assert!(bak.exists(), "what is not ours stays");
}

#[test]
fn who_fights_for_the_conf_is_not_fought_at_full_speed() {
    needs_programs!();
    let world = searching("auto-fight").start();
    let path = conf_path(&world.lab);
    let began = Instant::now();
    let mut written = 0;
    while began.elapsed() < Duration::from_secs(5) {
        if fs::remove_file(&path).is_ok() {
            written += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!((2..12).contains(&written), "the conf was written {written} times in 5 s");
}

#[test]
fn capabilities_grow_and_shrink_with_the_master_and_readers_never_see_half_a_file() {
    needs_programs!();
    let builder = searching("auto-caps").configure(|config, _| config["capabilities"] = json!({"configured": true}));
    let folder = builder.lab.conf_dir.clone();
    let world = builder.start();
    let (path, stop) = (conf_path(&world.lab), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reads = 0_u32;
            while !stop.load(Ordering::Relaxed) {
                let bytes = fs::read(&path).expect("the conf is there at all times");
                let _: Value = serde_json::from_slice(&bytes).expect("the conf is whole at all times");
                reads += 1;
            }
            reads
        });
        let both = json!({"portMappings": true, "bandwidth": true, "off": false});
        for (capabilities, wanted) in [
            (both, json!({"bandwidth": true, "configured": true, ANNOTATIONS: true, "portMappings": true})),
            (json!({"bandwidth": true}), json!({"bandwidth": true, "configured": true, ANNOTATIONS: true})),
            (json!({}), json!({"configured": true, ANNOTATIONS: true})),
        ] {
            place(&folder, "10-default.conflist", &network("lab-default", &capabilities));
            let is = wait_until(SOON, || conf(&world.lab)["plugins"][0]["capabilities"] == wanted);
            assert!(is, "{capabilities}: {}", conf(&world.lab)["plugins"][0]["capabilities"]);
        }
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().expect("the reader") > 100);
    });
}

#[test]
fn no_end_of_an_agent_takes_the_conf_away() {
    needs_programs!();
    let mut world = searching("auto-end").start();
    let wanted = fs::read(conf_path(&world.lab)).expect("the conf");
    world.agent.term();
    comes_back(&world.lab, &wanted, "SIGTERM");
    world.agent.start_again(&world.lab);
    world.agent.kill9();
    comes_back(&world.lab, &wanted, "SIGKILL");
    world.agent.start_again(&world.lab);

    // An old agent that ends late, after the new one has written.
    let mut config = agent::config(&world.lab);
    config.as_object_mut().expect("an object").remove("clusterNetwork");
    config["cniVersion"] = "1.1.0".into();
    config["cniDir"] = world.lab.dir.join("state-2").display().to_string().into();
    config["socketDir"] = world.lab.dir.join("run-2").display().to_string().into();
    config["metricsAddress"] = Value::Null;
    config["datapath"]["mode"] = "off".into();
    let file = world.lab.dir.join("second.json");
    fs::write(&file, config.to_string()).expect("write the config");
    let mut command = world.lab.node.command(agent::program("multus-agent"));
    let mut second = lab::process::start(command.args(["run", "--config"]).arg(&file), b"");
    let is_newer = || read(&conf_path(&world.lab)).is_some_and(|conf| conf["cniVersion"] == "1.1.0");
    assert!(wait_until(SOON, is_newer), "the second agent writes nothing");
    world.agent.term();
    assert!(wait_until(Duration::from_secs(8), is_newer), "the old agent had the last word");
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_newer() && second.is_running());
    second.kill();
    drop(second.wait(SOON));
}

#[test]
fn a_version_above_the_newest_is_clamped_and_the_name_can_be_the_masters() {
    needs_programs!();
    let world = searching("auto-clamp")
        .configure(|config, _| {
            config["cniVersion"] = "1.2.0".into();
            config["overrideNetworkName"] = true.into();
        })
        .start();
    let made = conf(&world.lab);
    assert_eq!((&made["cniVersion"], &made["cniVersions"]), (&json!("1.1.0"), &json!(["1.1.0"])));
    assert_eq!(made["name"], "lab-default");
    assert!(world.agent.log_text().contains("1.2.0"), "the clamping is not told");
}

#[test]
fn a_forced_version_is_the_delegates_and_leaves_the_masters_file_alone() {
    needs_programs!();
    for force in [true, false] {
        let builder = searching(if force { "auto-force" } else { "auto-own" }).configure(|config, _| {
            config["cniVersion"] = "0.4.0".into();
            config["forceCNIVersion"] = force.into();
        });
        let mut own = plugins::conf(&builder.lab, "own", &json!({"ADD": {"link": true}, "DEL": {"link": true}}));
        own["name"] = "own-network".into();
        let text = format!("{own:#}\n");
        let file = builder.lab.conf_dir.join("10-default.conflist");
        fs::remove_file(&file).expect("remove the lab's");
        place(&builder.lab.conf_dir, "10-default.conf", &text);
        let world = builder.start();
        let pod = world.lab.pod("cam");
        world.add(&pod).expect_ok();
        world.del(&pod).expect_ok();
        let journal = plugins::journal(&world.lab, "own");
        let versions: Vec<_> = journal.iter().map(|entry| entry.conf()["cniVersion"].clone()).collect();
        let wanted = if force { "0.4.0" } else { "1.0.0" };
        assert!(versions.len() >= 2 && versions.iter().all(|version| version == wanted), "{versions:?}");
        let left = fs::read_to_string(world.lab.conf_dir.join("10-default.conf")).expect("the master");
        assert_eq!(left, text, "the master's file is its owner's");
    }
}

#[test]
fn the_users_own_file_is_copied_and_copied_again() {
    needs_programs!();
    let builder = searching("auto-user").configure(|config, lab| {
        config["multusConfigFile"] = lab.dir.join("70-multus.conf").display().to_string().into();
    });
    let lab = &builder.lab;
    let source = lab.dir.join("70-multus.conf");
    let text = |extra: &str| {
        let cluster = lab.conf_dir.join("10-default.conflist");
        let socket = lab.socket_dir.display();
        format!(
            "{{ \"cniVersion\": \"0.3.1\",\n \"name\": \"mine\", \"type\": \"multus-shim\", \"daemonSocketDir\": \"{socket}\",\n \"clusterNetwork\": \"{}\"{extra}}}\n",
            cluster.display()
        )
    };
    fs::write(&source, text("")).expect("write the user's file");
    fs::write(conf_path(lab), MULTUS).expect("a conf that was generated before");
    let copy = lab.cni_conf_dir.join("70-multus.conf");
    let mut world = builder.start();
    let is = |wanted: &str| wait_until(SOON, || fs::read_to_string(&copy).is_ok_and(|text| text == wanted));
    let text = |extra: &str| {
        let cluster = world.lab.conf_dir.join("10-default.conflist");
        let socket = world.lab.socket_dir.display();
        format!(
            "{{ \"cniVersion\": \"0.3.1\",\n \"name\": \"mine\", \"type\": \"multus-shim\", \"daemonSocketDir\": \"{socket}\",\n \"clusterNetwork\": \"{}\"{extra}}}\n",
            cluster.display()
        )
    };
    assert!(is(&text("")), "not copied byte for byte: {:?}", fs::read_to_string(&copy));
    assert!(!conf_path(&world.lab).exists(), "the generated file would be taken in its place");
    world.runtime.plugin = read(&copy).expect("JSON");
    let pod = world.lab.pod("cam");
    world.add(&pod).expect_ok();
    world.del(&pod).expect_ok();

    fs::write(&source, text(", \"x\": 1")).expect("change it");
    assert!(is(&text(", \"x\": 1")), "a change of the source is not taken over");
    fs::remove_file(&copy).expect("remove the copy");
    assert!(is(&text(", \"x\": 1")), "the copy does not come back");
    fs::write(&source, "{").expect("break the source");
    let told = || status(&world.agent, &world.lab)["problem"].to_string().contains("70-multus.conf");
    assert!(wait_until(SOON, told), "a broken source is not told");
    assert!(is(&text(", \"x\": 1")), "a broken source is copied");
    fs::remove_file(&source).expect("remove the source");
    std::thread::sleep(Duration::from_millis(300));
    assert!(is(&text(", \"x\": 1")) && world.agent.is_running(), "the last good copy stays, and so does the agent");
}

#[test]
fn the_readiness_file_is_waited_for_and_its_absence_told() {
    needs_programs!();
    let builder = searching("auto-ready")
        .configure(|config, lab| config["readinessindicatorfile"] = lab.dir.join("ready").display().to_string().into());
    let file = builder.lab.dir.join("ready");
    let mut agent = Agent::start_unready(Home::Pod, &builder.lab, &builder.config);
    let mut runtime = builder.runtime;
    "1.1.0".clone_into(&mut runtime.version);
    let lab = builder.lab;
    assert!(wait_until(SOON, || http::get_unix(agent.socket(), "/readyz").is_ok_and(|reply| reply.status == 500)));
    let named = |text: &str| assert!(text.contains(&*file.to_string_lossy()), "the file is not named: {text}");
    let answer = runtime.status(&lab);
    named(&answer.expect_error(50));
    assert!(answer.done.took < Duration::from_secs(2), "STATUS took {:?}", answer.done.took);
    assert!(!conf_path(&lab).exists(), "a conf would say that the node is ready");
    runtime.plugin["requestTimeout"] = "2s".into();
    let pod = lab.pod("cam");
    let answer = runtime.add(&lab, &pod);
    named(&answer.expect_error(11));
    assert!(answer.done.took > Duration::from_secs(1), "ADD did not wait: {:?}", answer.done.took);
    runtime.del(&lab, &pod).expect_ok();

    runtime.plugin["requestTimeout"] = "20s".into();
    let waiting = runtime.call("ADD", Some(&pod)).start(&lab.node);
    std::thread::sleep(Duration::from_millis(700));
    fs::write(&file, "").expect("the default network is ready");
    let done = waiting.wait(Duration::from_secs(20));
    assert!(done.success() && done.took < Duration::from_secs(8), "{:?} {}{}", done.took, done.out(), done.err());
    agent.wait_ready();
    assert!(wait_until(SOON, || conf_path(&lab).exists()), "no conf though all is ready");
    runtime.status(&lab).expect_ok();

    fs::remove_file(&file).expect("it is not ready any more");
    named(&runtime.status(&lab).expect_error(50));
    let began = Instant::now();
    runtime.del(&lab, &pod).expect_ok();
    assert!(began.elapsed() < Duration::from_secs(2), "DEL waited");
    assert!(agent.is_running() && conf_path(&lab).exists());
}

#[test]
fn former_confs_go_and_what_goes_before_ours_is_told() {
    needs_programs!();
    let builder = searching("auto-former");
    let folder = builder.lab.cni_conf_dir.clone();
    place(&folder, "00-multus.conf", MULTUS);
    place(&folder, "00-multus.json", "");
    place(&folder, "00-earlier.conf", r#"{"name":"e","type":"bridge"}"#);
    place(&folder, "05-multus.conf", MULTUS);
    fs::write(folder.join("00-multus.conflist.12-34.tmp"), "{").expect("what a killed agent left");
    let world = builder.start();
    let left = lab::state::files(&folder);
    let names: Vec<_> = left.iter().filter_map(|path| path.file_name()?.to_str()).collect();
    assert_eq!(names, ["00-earlier.conf", "00-multus.conflist", "05-multus.conf"]);
    let warnings = status(&world.agent, &world.lab)["warnings"].to_string();
    assert!(warnings.contains("00-earlier.conf") && !warnings.contains("05-multus"), "{warnings}");
    let table = world.agent.cli(&world.lab, &["status"]);
    assert!(table.out().contains("runtime conf") && table.out().contains("00-earlier.conf"), "{}", table.out());
}

#[test]
fn one_folder_for_both_and_paths_below_the_hosts_root() {
    needs_programs!();
    let builder = searching("auto-root").configure(|config, lab| {
        // As the K3s guide has it: everything of the host is below one folder.
        let host = lab.dir.join("hostroot");
        let folder = host.join("var/lib/rancher/k3s/agent/etc/cni/net.d");
        fs::create_dir_all(&folder).expect("make the folder");
        fs::copy(lab.conf_dir.join("10-default.conflist"), folder.join("10-flannel.conflist")).expect("a master");
        for key in ["cniConfigDir", "multusAutoconfigDir"] {
            config[key] = folder.display().to_string().into();
        }
        config["chrootDir"] = host.display().to_string().into();
        config["socketDir"] = host.join("run/multus").display().to_string().into();
        config["cniDir"] = host.join("var/lib/cni/multus").display().to_string().into();
        let object = config.as_object_mut().expect("an object");
        object.remove("daemonSocketDir");
        let bin_dir = object.remove("binDir");
        object.insert("cniBinDir".into(), bin_dir.unwrap_or_default());
        config["cniVersion"] = "0.3.1".into();
    });
    let lab = builder.lab;
    let mut agent = Agent::start_unready(Home::Pod, &lab, &builder.config);
    let path = lab.dir.join("hostroot/var/lib/rancher/k3s/agent/etc/cni/net.d/00-multus.conflist");
    assert!(wait_until(SOON, || read(&path).is_some()), "no conf: {}", agent.log_text());
    let made = read(&path).expect("the conf");
    assert_eq!(made["cniVersions"], json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    let plugin = &made["plugins"][0];
    assert_eq!(plugin.get("daemonSocketDir"), None, "it is the shim's own default: {plugin}");
    assert_eq!(plugin["cniDir"], "/var/lib/cni/multus");
    assert_eq!(plugin["binDir"], lab.bin_dir.display().to_string());
    // Our own file is in the searched folder and is not taken for a master.
    std::thread::sleep(Duration::from_millis(2500));
    let left = lab::state::files(path.parent().expect("a folder"));
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(read(&path), Some(made));
    assert!(agent.is_running());
}

#[test]
fn nobody_delegates_to_multus() {
    needs_programs!();
    let builder = searching("auto-loop").configure(|config, lab| {
        // A folder whose first file is ours.
        fs::write(lab.conf_dir.join("00-x.conflist"), r#"{"name":"m","plugins":[{"type":"multus-shim"}]}"#)
            .expect("write it");
        config["clusterNetwork"] = lab.conf_dir.display().to_string().into();
    });
    let world = builder
        .network("loop", &json!({"cniVersion": "1.0.0", "type": "multus-shim"}))
        .network("thin", &json!({"cniVersion": "1.0.0", "type": "multus"}))
        .start();
    let pod = world.lab.pod("cam");
    world.add(&pod).expect_ok();
    world.del(&pod).expect_ok();
    for network in ["loop", "thin"] {
        let pod = world.lab.pod("cam").networks(network);
        let answer = world.add(&pod);
        let text = answer.expect_error(7);
        assert!(text.contains(&format!("default/{network}")) && text.contains("multus"), "{text}");
        assert!(answer.done.took < Duration::from_secs(2), "it took {:?}", answer.done.took);
    }
}
