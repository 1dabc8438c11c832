//! What the conf says, and what becomes of it when others write in its folder or agents end.

use super::*;

#[test]
fn a_pod_gets_its_networks_through_the_generated_conf() {
    needs_programs!();
    let builder = searching("auto-pod").configure(|config, _| config["requestTimeout"] = "15s".into());
    let lan = builder.lab.macvlan("bridge");
    let mut world = builder.network("lan", &lan).start();
    let made = conf(&world.lab);
    assert_eq!(made["name"], "multus-cni-network");
    assert_eq!((&made["cniVersion"], &made["cniVersions"]), (&json!("1.0.0"), &json!(["1.0.0", "1.1.0"])));
    let permissions = fs::metadata(conf_path(&world.lab)).expect("the conf").permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);
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

/// Turns true when it is dropped, also by a panic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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
        // Whatever fails below, the reader ends, and with it this scope.
        let ends = Ends(&stop);
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
        drop(ends);
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
fn the_users_own_file_is_copied_and_copied_again() {
    needs_programs!();
    let builder = searching("auto-user").configure(|config, lab| {
        config["multusConfigFile"] = lab.dir.join("70-multus.conf").display().to_string().into();
    });
    let source = builder.lab.dir.join("70-multus.conf");
    let cluster = builder.lab.conf_dir.join("10-default.conflist").display().to_string();
    let socket = builder.lab.socket_dir.display().to_string();
    let text = |extra: &str| {
        format!(
            "{{ \"cniVersion\": \"0.3.1\",\n \"name\": \"mine\", \"type\": \"multus-shim\", \"daemonSocketDir\": \"{socket}\",\n \"clusterNetwork\": \"{cluster}\"{extra}}}\n"
        )
    };
    fs::write(&source, text("")).expect("write the user's file");
    fs::write(conf_path(&builder.lab), MULTUS).expect("a conf that was generated before");
    let copy = builder.lab.cni_conf_dir.join("70-multus.conf");
    let mut world = builder.start();
    let is = |wanted: &str| wait_until(SOON, || fs::read_to_string(&copy).is_ok_and(|text| text == wanted));
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
fn a_users_file_in_the_runtimes_own_folder_is_the_users() {
    needs_programs!();
    let builder = searching("auto-mine");
    let file = builder.lab.cni_conf_dir.join("00-multus.conf");
    fs::write(&file, MULTUS).expect("write the user's file");
    let shown = file.display().to_string();
    let mut world = builder.configure(|config, _| config["multusConfigFile"] = shown.into()).start();
    assert_eq!(fs::read_to_string(&file).expect("the file"), MULTUS);
    fs::remove_file(&file).expect("remove it");
    let told = || status(&world.agent, &world.lab)["problem"].to_string().contains("00-multus.conf");
    assert!(wait_until(SOON, told), "its absence is not told");
    assert!(!file.exists(), "what its owner removed came back");
    assert!(world.agent.is_running());
}
