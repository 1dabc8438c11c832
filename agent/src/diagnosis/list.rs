//! The checks, in the order in which they are shown.
//!
//! Each has its paragraph in docs/reference/checks.md under its name.

use super::Severity::{self, Error, Warning};
use super::judges::{cluster, install, kernel, networks, node};
use super::{Category, Check, Facts, Verdict};

const fn check(
    category: Category,
    name: &'static str,
    about: &'static str,
    severity: Severity,
    judge: fn(&Facts) -> Verdict,
) -> Check {
    Check { category, name, about, severity, may_pass: false, judge }
}

const fn soon(check: Check) -> Check {
    Check { may_pass: true, ..check }
}

/// All of them.
pub const CHECKS: &[Check] = &[
    soon(check(Category::Agent, "agent-reachable", "the agent answers", Error, node::reachable)),
    check(Category::Kernel, "kernel-version", "the kernel is new enough", Error, kernel::version),
    check(Category::Kernel, "kernel-btf", "the kernel describes its types (BTF)", Warning, kernel::btf),
    check(Category::Kernel, "kernel-bpffs", "the folder of pins is on a bpffs", Error, kernel::bpffs),
    check(Category::Kernel, "kernel-tcx", "programs can be ordered on a link (TCX)", Warning, kernel::tcx),
    check(
        Category::Privileges,
        "privileges-capabilities",
        "the agent has the capabilities it needs",
        Error,
        kernel::capabilities,
    ),
    check(
        Category::CniInstall,
        "cni-layout",
        "the CNI folders are those of this host's runtime",
        Warning,
        install::layout,
    ),
    check(Category::CniInstall, "cni-shim", "the plugin that the runtime calls is installed", Error, install::shim),
    soon(check(Category::CniInstall, "cni-conf", "a CNI configuration of ours is there", Error, install::conf)),
    soon(check(
        Category::CniInstall,
        "cni-order",
        "no other CNI configuration sorts before ours",
        Error,
        install::order,
    )),
    check(
        Category::CniInstall,
        "cni-exclusive",
        "nobody puts other CNI configurations aside",
        Warning,
        install::exclusive,
    ),
    soon(check(
        Category::CniInstall,
        "cni-conf-warnings",
        "the generated configuration is as it should be",
        Warning,
        install::warnings,
    )),
    soon(check(Category::PrimaryCni, "primary-network", "the cluster's own network is ready", Error, install::primary)),
    check(
        Category::PrimaryCni,
        "primary-plugins",
        "the plugins of the cluster's own network are installed",
        Error,
        install::primary_plugins,
    ),
    soon(check(Category::ApiAccess, "api-reachable", "the API server answers", Error, cluster::reachable)),
    check(Category::ApiAccess, "api-rbac", "the API server allows what the agent asks", Error, cluster::allowed),
    soon(check(Category::ApiAccess, "api-networks", "every network of the cluster is known", Warning, cluster::synced)),
    soon(check(Category::ApiAccess, "api-status", "every network-status is written", Warning, cluster::reports)),
    check(
        Category::ApiAccess,
        "api-manifests",
        "every manifest of the folder can be used",
        Warning,
        cluster::manifests,
    ),
    check(Category::Networks, "networks-config", "every network's configuration is valid", Error, networks::config),
    check(Category::Networks, "networks-plugins", "every network's plugins are installed", Error, networks::plugins),
    check(Category::Parents, "parents-exist", "every parent link exists on this node", Error, networks::parents_exist),
    soon(check(Category::Parents, "parents-up", "every parent link is up", Error, networks::parents_up)),
    soon(check(Category::Parents, "parents-carrier", "every parent link has a carrier", Warning, networks::carrier)),
    check(Category::Ipam, "ipam-ranges", "every address range can be used", Error, networks::ranges),
    check(Category::Ipam, "ipam-overlap", "no two networks hand out the same addresses", Warning, networks::overlap),
    check(Category::Ipam, "ipam-exhausted", "every range has addresses left", Error, networks::exhausted),
    check(Category::Ipam, "ipam-free", "every range has 10 % left", Warning, networks::low),
    soon(check(Category::PodState, "pods-undone", "nothing is left to be undone", Warning, node::undone)),
    soon(check(Category::PodState, "pods-kernel", "what is on record is in the kernel", Error, node::lost)),
    soon(check(Category::PodState, "pods-status", "pods have the network-status on record", Warning, node::untold)),
    soon(check(Category::Relay, "relay-programs", "the relay's programs are on every parent", Error, node::parents)),
    check(Category::Relay, "relay-fanout", "every pod has a place in the relay", Warning, node::fanout),
    check(Category::Relay, "relay-choice", "discovery is relayed where it can be", Warning, node::relayed),
    check(Category::Datapath, "datapath-open", "the datapath is open", Error, node::open),
    check(Category::Datapath, "datapath-slots", "every attachment is counted", Warning, node::slots),
    soon(check(Category::Datapath, "datapath-programs", "nobody took programs away", Warning, node::troubles)),
    soon(check(Category::Resources, "resources-memory", "memory is left below the limit", Warning, node::memory)),
    soon(check(Category::Resources, "resources-queue", "requests find a free place", Warning, node::queue)),
    check(Category::Resources, "resources-disk", "records can be written", Error, node::disk),
    check(Category::Versions, "versions-shim", "plugin and agent are of one version", Warning, install::version),
    check(
        Category::Leftovers,
        "leftovers-multus",
        "nothing of Multus is left that would be in the way",
        Warning,
        install::leftovers,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_its_paragraph_in_the_reference_under_its_category() {
        let page =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/checks.md")).unwrap();
        let mut heads = page.lines().filter(|line| line.starts_with('#')).skip(1);
        let mut category = None;
        for check in CHECKS {
            if category != Some(check.category) {
                category = Some(check.category);
                assert_eq!(heads.next(), Some(format!("## {}", check.category.as_str()).as_str()));
            }
            assert_eq!(heads.next(), Some(format!("### {}", check.name).as_str()));
        }
        assert_eq!(heads.next(), None, "the reference has checks that are none");
    }

    #[test]
    fn every_category_has_checks_in_its_order() {
        let categories: Vec<Category> = CHECKS.iter().map(|check| check.category).collect();
        assert!(categories.is_sorted());
        for category in Category::ALL {
            assert!(categories.contains(&category), "{}", category.as_str());
            assert_eq!(Category::of(category.as_str()), Some(category));
        }
    }
}
