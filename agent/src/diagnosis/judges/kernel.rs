//! The kernel, and what the agent may do with it.

use super::NO_DATAPATH;
use crate::diagnosis::facts::Viewpoint;
use crate::diagnosis::{Facts, Problem, Verdict};

/// The floor of the datapath.
const FLOOR: (u32, u32) = (5, 10);
/// The first with TCX.
const TCX: (u32, u32) = (6, 6);

/// A capability, its bit in `capabilities(7)`, what for, and who needs it.
const CAPABILITIES: [(&str, u32, &str, Needed); 6] = [
    ("CAP_SYS_ADMIN", 21, "to enter pods' network namespaces and to load programs", Needed::Always),
    ("CAP_NET_ADMIN", 12, "to put programs on links and to settle pods' default routes", Needed::Always),
    ("CAP_NET_RAW", 13, "to hear what is announced on parents", Needed::Relay),
    (
        "CAP_SYS_RESOURCE",
        24,
        "to lift the limit of locked memory, against which this kernel holds maps",
        Needed::OldKernel,
    ),
    ("CAP_SYS_PTRACE", 19, "to open process 1's mount namespace (hostExec)", Needed::HostExec),
    ("CAP_SYS_CHROOT", 18, "to enter process 1's mount namespace (hostExec)", Needed::HostExec),
];
/// The first kernel that does not hold maps against the limit of locked memory.
const NO_LOCKED_MEMORY: (u32, u32) = (5, 11);

#[derive(Clone, Copy)]
enum Needed {
    Always,
    OldKernel,
    Relay,
    HostExec,
}

fn number(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

pub(in crate::diagnosis) fn version(facts: &Facts) -> Verdict {
    let release = &facts.kernel.release;
    match number(release) {
        _ if !facts.wanted.datapath => Verdict::Skipped(NO_DATAPATH),
        None => Verdict::Skipped("the kernel does not say its version"),
        Some(version) if version < FLOOR => Verdict::wrong(
            format!("kernel {release} is older than {}.{}, the oldest that the datapath is tried on", FLOOR.0, FLOOR.1),
            "use a newer kernel, or set datapath.mode to off: pods are attached all the same, without counters and relay",
        ),
        Some(_) => Verdict::Fine(release.clone()),
    }
}

pub(in crate::diagnosis) fn btf(facts: &Facts) -> Verdict {
    if !facts.wanted.datapath {
        return Verdict::Skipped(NO_DATAPATH);
    }
    if facts.kernel.btf {
        return Verdict::fine();
    }
    Verdict::wrong(
        "/sys/kernel/btf/vmlinux is not there",
        "nothing of ours needs it; for bpftool's full output use a kernel with CONFIG_DEBUG_INFO_BTF",
    )
}

pub(in crate::diagnosis) fn bpffs(facts: &Facts) -> Verdict {
    let (folder, is_there) = &facts.kernel.bpffs;
    match is_there {
        _ if !facts.wanted.datapath => Verdict::Skipped(NO_DATAPATH),
        None => Verdict::Skipped("the folder cannot be looked at from here"),
        Some(true) => Verdict::Fine(folder.clone()),
        Some(false) => Verdict::wrong(
            format!("{folder} is not on a bpffs: counters would end with the agent, and nothing can be attached"),
            "mount one on the host (mount -t bpf bpf /sys/fs/bpf), which the agent's pod sees with HostToContainer; it is taken up within datapath.lookInterval",
        ),
    }
}

pub(in crate::diagnosis) fn tcx(facts: &Facts) -> Verdict {
    let parents = facts.agent.iter().flat_map(|agent| &agent.datapath.parents);
    let by_clsact: Vec<&str> = parents.filter(|p| p.attached_by == Some("clsact")).map(|p| p.name.as_str()).collect();
    if !facts.wanted.datapath {
        return Verdict::Skipped(NO_DATAPATH);
    }
    let remedy = "nothing has to be done; with another program on the same link use kernel 6.6 or newer, or see that ours comes first";
    if !by_clsact.is_empty() {
        let text =
            format!("programs are on {} by clsact: their order among others' is not guaranteed", by_clsact.join(", "));
        return Verdict::wrong(text, remedy);
    }
    match number(&facts.kernel.release) {
        Some(version) if version < TCX => {
            Verdict::wrong(format!("kernel {} has no TCX; clsact is used", facts.kernel.release), remedy)
        }
        _ => Verdict::fine(),
    }
}

pub(in crate::diagnosis) fn capabilities(facts: &Facts) -> Verdict {
    let Some(bits) = facts.capabilities else { return Verdict::Skipped("they cannot be read") };
    if matches!(facts.viewpoint, Viewpoint::Before | Viewpoint::Outside(_)) {
        return Verdict::Skipped("only a running agent can tell its own");
    }
    let has = |bit: u32| bits & (1u64 << bit) != 0;
    let is_needed = |needed: Needed| match needed {
        Needed::Always => true,
        Needed::OldKernel => {
            facts.wanted.datapath && number(&facts.kernel.release).is_some_and(|version| version < NO_LOCKED_MEMORY)
        }
        Needed::Relay => facts.wanted.relay,
        Needed::HostExec => facts.wanted.host_exec,
    };
    let missing = CAPABILITIES.iter().filter(|(_, bit, _, needed)| is_needed(*needed) && !has(*bit));
    let problem = |(name, _, what_for, _): &(&str, u32, &str, Needed)| {
        Problem::new(
            format!("{name} is missing, which is needed {what_for}"),
            format!(
                "add it to securityContext.capabilities.add of the agent's container, without CAP_: {}",
                name.trim_start_matches("CAP_")
            ),
        )
    };
    Verdict::of(missing.map(problem).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::facts::{Agent, Parent, Wanted};

    fn facts(release: &str) -> Facts {
        let mut facts = Facts { viewpoint: Viewpoint::Agent, ..Facts::default() };
        facts.kernel.release = release.to_owned();
        facts.wanted = Wanted { datapath: true, relay: true, ..Wanted::default() };
        facts
    }

    fn is_wrong(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Wrong(_))
    }

    #[test]
    fn kernels_by_their_number() {
        for (release, too_old, no_tcx) in [
            ("5.4.0-generic", true, true),
            ("5.10.0-34-cloud-amd64", false, true),
            ("6.5.13", false, true),
            ("6.6.1+", false, false),
            ("6.18.5", false, false),
            ("7.0-rc1", false, false),
        ] {
            assert_eq!(is_wrong(&version(&facts(release))), too_old, "{release}");
            assert_eq!(is_wrong(&tcx(&facts(release))), no_tcx, "{release}");
        }
        assert!(matches!(version(&facts("unknown")), Verdict::Skipped(_)));
        let mut clsact = facts("6.18.5");
        let parent = Parent { name: "eth0".into(), attached_by: Some("clsact"), ..Parent::default() };
        clsact.agent = Some(Agent {
            datapath: crate::diagnosis::facts::Datapath { parents: vec![parent], ..Default::default() },
            ..Agent::default()
        });
        assert!(is_wrong(&tcx(&clsact)), "what is attached counts, not the number");
    }

    #[test]
    fn a_bpffs_is_needed_by_the_datapath_alone() {
        let mut facts = facts("6.18");
        for (seen, wrong) in [(Some(true), false), (Some(false), true), (None, false)] {
            facts.kernel.bpffs = ("/sys/fs/bpf/multus".into(), seen);
            assert_eq!(is_wrong(&bpffs(&facts)), wrong, "{seen:?}");
        }
        facts.wanted.datapath = false;
        facts.kernel.bpffs.1 = Some(false);
        assert!(!is_wrong(&bpffs(&facts)) && !is_wrong(&btf(&facts)));
    }

    #[test]
    fn each_missing_capability_is_named_with_its_purpose() {
        let mut facts = facts("6.18");
        let all = [12u32, 13, 21].iter().fold(0u64, |bits, bit| bits | (1 << bit));
        for (release, bits, missing) in [
            ("6.18", all, &[][..]),
            ("6.18", all & !(1 << 12), &["CAP_NET_ADMIN"]),
            ("6.18", all & !(1 << 21) & !(1 << 13), &["CAP_SYS_ADMIN", "CAP_NET_RAW"]),
            ("5.10.0", all, &["CAP_SYS_RESOURCE"]),
            ("5.10.0", all | (1 << 24), &[]),
        ] {
            release.clone_into(&mut facts.kernel.release);
            facts.capabilities = Some(bits);
            let said: Vec<String> = match capabilities(&facts) {
                Verdict::Wrong(problems) => problems.into_iter().map(|problem| problem.cause).collect(),
                _ => Vec::new(),
            };
            assert_eq!(said.len(), missing.len(), "{said:?}");
            assert!(said.iter().zip(missing).all(|(said, name)| said.starts_with(name)), "{said:?}");
        }
    }
}
