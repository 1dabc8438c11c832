//! Whose network the conf is made for: the master by content, again when files change, and who waits for it.

use super::*;

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

/// In a folder without any other plugin the runtime does not look: with a conf it would start no pod any more.
#[test]
fn nothing_is_written_while_our_plugin_is_where_no_other_is() {
    needs_programs!();
    let builder = searching("auto-apart");
    let apart = builder.lab.dir.join("apart");
    fs::create_dir(&apart).expect("make a folder");
    place(&apart, "multus-shim", "ours");
    place(&apart, ".10-flannel.7", "on its way");
    let builder = builder.configure(|config, lab| config["binDir"] = lab.dir.join("apart").to_string_lossy().into());
    let mut agent = Agent::start_unready(Home::Pod, &builder.lab, &builder.config);
    agent.wait_ready();
    // What the manifests' readiness probe asks.
    let status = || agent.cli(&builder.lab, &["status", "--brief"]);
    let told = status();
    assert!(told.code == Some(1) && told.out().contains("holds no plugin but ours"), "{:?} {}", told.code, told.out());
    assert!(!conf_path(&builder.lab).exists());
    place(&apart, "bridge", "a plugin");
    assert!(wait_until(SOON, || status().code == Some(0)), "{}", status().out());
    conf(&builder.lab);
    // Later somebody may be exchanging the plugins.
    fs::remove_file(apart.join("bridge")).expect("remove a plugin");
    std::thread::sleep(Duration::from_secs(3));
    assert!(conf_path(&builder.lab).exists() && status().code == Some(0), "{}", status().out());
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
