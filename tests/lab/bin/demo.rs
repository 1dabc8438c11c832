//! What does multus-ebpf do? A node, its LAN and two pods out of network namespaces, shown from the outside.
//!
//! Everything it makes is removed at its end, unless `--keep` leaves it for exploring; `--clean` removes that one, too.

#![allow(clippy::expect_used, clippy::cast_precision_loss, reason = "a program that tells a story or stops")]

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use lab::direct::Direct;
use lab::udp::FAMILIES;
use lab::world::Builder;
use lab::{Family, Lab, Netns, Pod, World, agent, peer, place, process};

const USAGE: &str = "usage: demo [--keep | --clean [NAME]]
  --keep         leave the node running and print commands to try
  --clean NAME   remove the kept demo of that name; without one, the only one there is";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let keep = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--keep"] => true,
        ["--clean"] => return clean(None),
        ["--clean", name] => return clean(Some(name)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(reason) = agent::missing_programs() {
        eprintln!("demo: {reason}");
        return ExitCode::FAILURE;
    }
    let began = Instant::now();
    let missing = tell(keep);
    println!(
        "\nDone in {:.1} s{}.",
        began.elapsed().as_secs_f64(),
        if keep { "" } else { "; everything is removed again" }
    );
    if missing == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{missing} of the things above did not happen as they should.");
    ExitCode::FAILURE
}

/// Removes one kept demo: others may be somebody else's.
fn clean(name: Option<&str>) -> ExitCode {
    let kept = place::kept();
    let chosen = match (name, kept.as_slice()) {
        (Some(name), all) => all.iter().find(|kept| *kept == name),
        (None, [only]) => Some(only),
        (None, []) => {
            println!("no demo was kept");
            return ExitCode::SUCCESS;
        }
        (None, _) => None,
    };
    let Some(chosen) = chosen else {
        eprintln!("demo: say which one with --clean NAME: {}", kept.join(", "));
        return ExitCode::from(2);
    };
    place::remove(chosen);
    println!("{chosen} is removed");
    ExitCode::SUCCESS
}

/// Tells the story; returns how many of its claims did not hold.
fn tell(keep: bool) -> usize {
    let mut missing = 0;
    step("A node and its LAN");
    let mut lab = Lab::new("demo");
    if keep {
        lab.keep();
    }
    let lan = lab.lan();
    say(&format!(
        "node    namespace {}, its eth0 is on the LAN as {}",
        lab.node.name(),
        lab.node.addresses("eth0").join(" ")
    ));
    say(&format!(
        "LAN     namespace {}, another machine at {}",
        lan.netns.name(),
        lan.netns.addresses(&lan.ifname).join(" ")
    ));

    step("The problem: the kernel keeps a host and its macvlan pods apart");
    let alone = lab.pod("alone");
    let direct = Direct::new(lab.macvlan("bridge"), "lan", "net1");
    let result = direct.add(&lab, &alone);
    let heard = {
        let _printer = printer(&lab.node, Family::V4);
        peer::browse(&alone.netns, "net1", Family::V4, "_ipp._tcp", Duration::from_secs(1))
    };
    say("a pod with a plain macvlan interface looks for a printer that its own host offers by mDNS:");
    say(&heard
        .map_or_else(|| "  nothing found in one second".to_owned(), |found| format!("  found {}", found.instance)));
    direct.del(&lab, &alone, &result);
    drop(alone);

    step("The agent starts, networks and pods come from a folder of manifests");
    let builder = Builder::on(lab);
    let shim = agent::program("multus-shim");
    std::os::unix::fs::symlink(shim.canonicalize().unwrap_or(shim), builder.lab.bin_dir.join("multus-shim"))
        .expect("put the CNI plugin where its folder is");
    let config = builder.lab.macvlan("bridge");
    let world = builder.network("lan", &config).start();
    say(&format!("multus-agent run --config {}", world.lab.dir.join("daemon-config.json").display()));
    let (resident, _) = world.agent.memory_kib();
    say(&format!(
        "ready after {} ms, {:.1} MiB of memory",
        world.agent.started_in.as_millis(),
        resident as f64 / 1024.0
    ));

    step("Two pods ask for the network `lan` in their annotation");
    let pods = ["home-assistant", "media-server"].map(|name| attach(&world, name, keep));
    for pod in &pods {
        for ifname in ["eth0", "net1"] {
            say(&format!("{:<15} {ifname}  {}", pod.name, pod.netns.addresses(ifname).join("  ")));
        }
    }

    step("Discovery works both ways, in both families");
    let [pod, other] = &pods;
    for family in FAMILIES {
        let _printer = printer(&world.lab.node, family);
        missing += find("pod finds the host's printer", &pod.netns, "net1", family, "_ipp._tcp");
        let _speaker = peer::Responder::new(
            &other.netns,
            "net1",
            family,
            "_raop._tcp",
            "Kitchen",
            Ipv4Addr::new(192, 168, 50, 11),
        );
        missing += find("host finds a pod's speaker", &world.lab.node, "eth0", family, "_raop._tcp");
        let lan = world.lab.lan();
        missing += find("LAN finds a pod's speaker", &lan.netns, &lan.ifname, family, "_raop._tcp");
    }

    step("What the operator sees");
    for args in [&["status"][..], &["get", "attachments"], &["get", "relay"]] {
        missing += show(&world, args);
    }
    println!("\n  $ curl http://{}/metrics | grep net1   (packets received by multicast and unicast)", agent::METRICS);
    for sample in
        world.agent.metrics(&world.lab).matching("multus_interface_receive_packets_total", &[("interface", "net1")])
    {
        let label = |key: &str| sample.labels.get(key).map_or("", String::as_str);
        println!(
            "    {:<16}{:<8}{:<14}{:<11}{:>6}",
            label("pod"),
            label("interface"),
            label("network"),
            label("cast"),
            sample.value
        );
    }
    kernel(&world);

    missing += shell_files(&world);
    if keep {
        explore(&world, pod);
        std::mem::forget(pods);
    } else {
        step("The pods go, and nothing stays");
        for pod in &pods {
            let answer = world.del(pod);
            say(&format!(
                "{:<15} DEL took {} ms, links left in the pod: {}",
                pod.name,
                answer.done.took.as_millis(),
                pod.netns.link_names().len()
            ));
            missing += usize::from(!answer.ok() || !pod.netns.link_names().is_empty());
        }
    }
    missing
}

fn printer(netns: &Netns, family: Family) -> peer::Responder {
    peer::Responder::new(netns, "eth0", family, "_ipp._tcp", "Office Printer", Lab::node_v4(50))
}

fn attach(world: &World, name: &str, keep: bool) -> Pod {
    let mut pod = world.lab.pod(name).networks("lan");
    if keep {
        pod.netns.keep();
    }
    let answer = world.add(&pod);
    answer.expect_ok();
    say(&format!("{name:<15} ADD took {} ms", answer.done.took.as_millis()));
    pod
}

/// Browses and tells; 1 when nothing was found.
fn find(what: &str, netns: &Netns, ifname: &str, family: Family, service: &str) -> usize {
    let found = peer::browse(netns, ifname, family, service, Duration::from_secs(3));
    let told = found.as_ref().map_or_else(
        || "NOT found in three seconds".to_owned(),
        |found| format!("{:?} after {:.1} ms", found.instance, found.took.as_secs_f64() * 1000.0),
    );
    let family = if family == Family::V4 { "IPv4" } else { "IPv6" };
    say(&format!("{what:<29} {family}  {told}"));
    usize::from(found.is_none())
}

/// Shows a command of the CLI; 1 when it failed.
fn show(world: &World, args: &[&str]) -> usize {
    println!("\n  $ multus-agent {}", args.join(" "));
    let done = world.agent.cli(&world.lab, args);
    indent(&done.out());
    indent(&done.err());
    usize::from(!done.success())
}

/// What bpftool shows of it.
fn kernel(world: &World) {
    println!("\n  $ bpftool net   (on the node)");
    let attached = process::tool(world.lab.node.command("bpftool").args(["net", "show", "dev", "eth0"]));
    let attached = String::from_utf8_lossy(&attached);
    indent(&attached);
    if !attached.contains("parent_egress") {
        println!(
            "    (nothing on eth0: this bpftool is older than TCX links; `bpftool link` has them, without the interface)"
        );
    }
    println!("\n  $ bpftool prog   (ours)");
    for program in lab::state::programs(&world.lab) {
        let name = program["name"].as_str().unwrap_or("?");
        println!(
            "    {:>6}: sched_cls  name {name:<15} {:>6} bytes of machine code",
            program["id"], program["bytes_jited"]
        );
    }
}

/// Puts completions and manual where a shell and man(1) of the demo find them; how many of them are missing.
fn shell_files(world: &World) -> usize {
    let (pages, completions) = (world.lab.dir.join("man/man1"), world.lab.dir.join("completions"));
    let run = |args: &[&str], folder: &std::path::Path| {
        let folder = folder.to_str().unwrap_or_default();
        world.agent.cli(&world.lab, &[args, &["--dir", folder]].concat()).success()
    };
    let shells = ["bash", "zsh", "fish"];
    let missing = usize::from(!run(&["man"], &pages))
        + shells.iter().filter(|shell| !run(&["completion", shell], &completions)).count();
    let count = |folder: &std::path::Path| std::fs::read_dir(folder).map_or(0, Iterator::count);
    println!();
    say(&format!("{} manual pages are in {}", count(&pages), pages.display()));
    say(&format!("{} shells' completions are in {}", count(&completions), completions.display()));
    missing
}

fn explore(world: &World, pod: &Pod) {
    let (lab, program) = (&world.lab, agent::program("multus-agent"));
    let program = program.canonicalize().unwrap_or(program);
    step("It stays, for you to explore");
    let node = lab.node.path().display();
    println!("  export MULTUS_SOCKET={}", world.agent.socket().display());
    println!("  source {}", lab.dir.join("completions/multus-agent.bash").display());
    println!("  man -M {} multus-agent-get", lab.dir.join("man").display());
    println!("  {} get attachments -o json", program.display());
    println!("  {} check", program.display());
    println!("  {} explain pod default/{}", program.display(), pod.name);
    println!("  {} describe attachment default/{}", program.display(), pod.name);
    println!("  nsenter --net={node} curl -s http://{}/metrics", agent::METRICS);
    println!("  nsenter --net={node} bpftool net");
    println!("  bpftool map dump pinned {}", lab::state::map_pin(lab, "if_counters").unwrap_or_default().display());
    println!("  nsenter --net={} ip address", pod.netns.path().display());
    println!("  tail -f {}", lab.dir.join("agent.log").display());
    println!("  kill -9 {}      # the relay goes on without the agent", world.agent.pid());
    println!("  cargo xtask demo --clean {}", lab.prefix);
}

fn step(title: &str) {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1);
    println!("\n{}. {title}", NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
}

fn say(line: &str) {
    println!("  {line}");
}

fn indent(text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        println!("    {line}");
    }
}
