//! What `RuntimeDefault` comes to for a set of capabilities: the profile of the system in the words of OCI.
//!
//! The installed profile is podman's, which is a little more open than containerd's; what containerd keeps shut is shut
//! here, so that nothing passes that a usual node would stop.

use std::fs;

use serde_json::{Value, json};

/// Of Debian's golang-github-containers-common, in Docker's format.
pub(super) const PROFILE: &str = "/usr/share/containers/seccomp.json";

/// Open there and shut in containerd's.
const SHUT: [&str; 3] = ["keyctl", "pivot_root", "reboot"];
/// Open there to everybody, and in containerd's to whoever has `SYS_ADMIN`.
const ADMINISTRATORS: [&str; 15] = [
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "setns",
    "syslog",
    "umount",
    "umount2",
    "unshare",
    "clone3",
    "bpf",
];

/// The filter for a process with these capabilities (`CAP_…`).
pub(super) fn filter(capabilities: &[String]) -> Value {
    let text = fs::read_to_string(PROFILE).unwrap_or_else(|error| panic!("read {PROFILE}: {error}"));
    let profile: Value = serde_json::from_str(&text).expect("the profile is JSON");
    let machine =
        if cfg!(target_arch = "aarch64") { ("arm64", "SCMP_ARCH_AARCH64") } else { ("amd64", "SCMP_ARCH_X86_64") };
    let admin = capabilities.iter().any(|name| name == "CAP_SYS_ADMIN");
    let is_open = |name: &str| !SHUT.contains(&name) && (admin || !ADMINISTRATORS.contains(&name));
    let rules = profile["syscalls"].as_array().into_iter().flatten();
    let mut rules: Vec<Value> = rules
        .filter(|rule| applies(rule, capabilities, machine.0))
        .map(|rule| {
            let allows = rule["action"] == "SCMP_ACT_ALLOW";
            let mut names = texts(&rule["names"]);
            names.retain(|name| !allows || is_open(name));
            let mut rule =
                json!({"names": names, "action": rule["action"], "args": rule["args"], "errnoRet": rule["errnoRet"]});
            rule.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
            rule
        })
        .filter(|rule| rule["names"].as_array().is_some_and(|names| !names.is_empty()))
        .collect();
    if !admin {
        // So that libraries fall back to clone(2).
        rules.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS}));
    }
    let families = profile["archMap"].as_array().into_iter().flatten();
    let family = families.filter(|family| family["architecture"] == machine.1);
    let others = family.flat_map(|family| texts(&family["subArchitectures"]));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": libc::EPERM,
        "architectures": std::iter::once(machine.1.to_owned()).chain(others).collect::<Vec<_>>(),
        "syscalls": rules,
    })
}

/// Is this rule one for such a process on such a machine?
fn applies(rule: &Value, capabilities: &[String], machine: &str) -> bool {
    let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
    let machines = texts(&includes["arches"]);
    (machines.is_empty() || machines.iter().any(|one| one == machine))
        && !texts(&excludes["arches"]).iter().any(|one| one == machine)
        && texts(&includes["caps"]).iter().all(|one| capabilities.contains(one))
        && !texts(&excludes["caps"]).iter().any(|one| capabilities.contains(one))
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
}
