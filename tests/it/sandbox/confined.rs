//! The sandbox itself: what the kernel says of the agent's process is what the manifest says of its container.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use lab::agent::CAPABILITIES;
use lab::bundle;
use lab::manifest::Manifest;

use super::{Site, needs_runc};

/// A field of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap_or_default();
    line.trim().to_owned()
}

/// Where the process could write a file, leaving out what is the kernel's or only in its memory.
fn writable(pid: u32) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("the process lives");
    let mounts = text.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(4);
        let (at, options) = (words.next()?, words.next()?);
        options.split(',').any(|option| option == "rw").then(|| at.to_owned())
    });
    // Pods' namespaces are mounts of their own; no file can be in one.
    let not_a_folder = |at: &str| at.starts_with("/run/netns/") || at.starts_with("/var/run/netns/");
    let of_the_kernel = ["/proc", "/dev", "/sys/fs/cgroup"];
    mounts.filter(|at| !not_a_folder(at) && !of_the_kernel.iter().any(|kernel| at.starts_with(kernel))).collect()
}

#[test]
fn the_agents_process_is_confined_as_the_manifest_says() {
    needs_runc!();
    let site = Site::new("confined");
    let pid = site.world.agent.pid();
    let wanted: u64 = CAPABILITIES.iter().map(|(_, number)| 1 << number).sum();
    for (set, bits) in [("CapEff", wanted), ("CapPrm", wanted), ("CapBnd", wanted), ("CapInh", 0), ("CapAmb", 0)] {
        assert_eq!(status(pid, set), format!("{bits:016x}"), "{set}");
    }
    assert_eq!((status(pid, "NoNewPrivs").as_str(), status(pid, "Seccomp").as_str()), ("1", "2"), "2 is a filter");
    assert_eq!(status(pid, "NSpid").split_whitespace().last(), Some("1"), "it sees its own processes alone");
    let ours = fs::read_link("/proc/self/ns/net").expect("a namespace");
    let at_node = site.world.lab.node.enter(|| fs::read_link("/proc/thread-self/ns/net")).expect("a namespace");
    let its = fs::read_link(format!("/proc/{pid}/ns/net")).expect("a namespace");
    assert!(its == at_node && its != ours, "hostNetwork");
    let manifest = Manifest::rendered();
    let mounts = manifest.container("agent")["volumeMounts"].as_array().expect("mounts").clone();
    let wanted: BTreeSet<String> = mounts
        .iter()
        .filter(|mount| mount["readOnly"] != true)
        .filter_map(|mount| mount["mountPath"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(writable(pid), wanted);
    for place in ["", "usr/bin", "etc", "var/lib", "opt/cni/bin", "etc/multus-ebpf", "sys", "proc/sys/net/ipv4"] {
        let path = format!("/proc/{pid}/root/{place}/ip_forward");
        let refused = fs::File::options().write(true).create(true).truncate(false).open(path).expect_err(place);
        let code = refused.raw_os_error();
        // In /sys nobody makes files anyway.
        assert!(code == Some(libc::EROFS) || place == "sys", "/{place}: {refused}");
    }
    assert_eq!(manifest.container("agent")["resources"]["limits"]["memory"], "96Mi");
    if bundle::limits_memory() {
        let told = site.world.agent.container().exec(&["/usr/bin/multus-agent", "check", "--category", "resources"]);
        assert!(told.out().contains("of 96 MiB"), "the agent sees its own limit: {}", told.out());
    }
}

#[test]
fn the_installer_does_its_work_there() {
    needs_runc!();
    let site = Site::new("install");
    let (shim, conf) =
        (site.world.lab.bin_dir.join("multus-shim"), site.world.lab.cni_conf_dir.join("00-multus.conflist"));
    assert_eq!(fs::metadata(&shim).expect("the shim").permissions().mode() & 0o7777, 0o755);
    let conf = fs::read_to_string(conf).expect("the conf");
    // The paths are the host's, though the sandbox's are the same: it is a runtime outside that reads it.
    assert!(conf.contains("\"/run/multus\"") && conf.contains("multus-shim"), "{conf}");
}
