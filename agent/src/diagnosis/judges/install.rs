//! CNI's files on the host: the plugin, the configurations and their order, the cluster's own network, what others left.

use super::NEEDS_AGENT;
use crate::diagnosis::facts::{Conf, Primary};
use crate::diagnosis::{Facts, Problem, Verdict};
use crate::fault::quote;

pub(in crate::diagnosis) fn layout(facts: &Facts) -> Verdict {
    let Some(layout) = &facts.install.layout else {
        return Verdict::Skipped(
            "the host's own files cannot be seen from here; multus-agent install --dry-run sees them",
        );
    };
    if layout.doubts.is_empty() {
        return Verdict::Fine(layout.found.clone());
    }
    let remedy = "set cniConfigDir and binDir to the folders of the runtime, and mount those: docs/how-to/install.md has each distribution's";
    Verdict::Wrong(layout.doubts.iter().map(|doubt| Problem::new(doubt, remedy)).collect())
}

pub(in crate::diagnosis) fn shim(facts: &Facts) -> Verdict {
    let install = &facts.install;
    match (&install.plugins, &install.shim) {
        (None, _) => Verdict::Skipped("the folder of plugins cannot be seen from here"),
        (Some(plugins), _) if !plugins.contains(&install.own) => Verdict::wrong(
            format!("{} has no {}, which the runtime is told to call", quote(&install.bin_dir), quote(&install.own)),
            "install it there (multus-agent install), or set binDir to the folder from which the runtime takes plugins",
        ),
        (Some(_), Some(Err(why))) => Verdict::wrong(
            format!("{}/{} cannot be run: {why}", install.bin_dir, install.own),
            "install it anew (multus-agent install)",
        ),
        _ => Verdict::Fine(format!("{}/{}", install.bin_dir, install.own)),
    }
}

pub(in crate::diagnosis) fn version(facts: &Facts) -> Verdict {
    match &facts.install.shim {
        Some(Ok(version)) if *version != facts.version => Verdict::wrong(
            format!("{} is version {version}, this program {}", quote(&facts.install.own), facts.version),
            "install both of one version: multus-agent install puts the plugin of the agent's version there",
        ),
        Some(Ok(version)) => Verdict::Fine(version.clone()),
        _ => Verdict::Skipped("the plugin's version cannot be seen from here"),
    }
}

fn confs(facts: &Facts) -> Result<&[Conf], Verdict> {
    let folder = quote(&facts.install.conf_dir);
    facts.install.confs.as_deref().map_err(|why| {
        Verdict::wrong(
            format!("the runtime's folder of CNI configurations {folder} cannot be read: {why}"),
            "set cniConfigDir to the folder from which the runtime takes them, and mount it into the agent's pod",
        )
    })
}

pub(in crate::diagnosis) fn conf(facts: &Facts) -> Verdict {
    let confs = match confs(facts) {
        Ok(confs) => confs,
        Err(verdict) => return verdict,
    };
    let problem = facts.agent.as_ref().and_then(|agent| agent.conf_problem.as_deref());
    match (confs.iter().find(|conf| conf.ours), problem) {
        (Some(conf), None) => Verdict::Fine(conf.file.clone()),
        (_, Some(problem)) => {
            Verdict::wrong(problem, "correct what the message names; the agent writes the configuration at once then")
        }
        (None, None) if facts.agent.is_none() => Verdict::Skipped("the agent writes it when it runs"),
        (None, None) => {
            let cause =
                format!("no configuration in {} calls {}", quote(&facts.install.conf_dir), quote(&facts.install.own));
            let remedy = if facts.wanted.generated {
                "the agent writes it within seconds: see multus-agent status if it stays away"
            } else {
                "set cniConfigDir, so that the agent writes 00-multus.conflist, or put one there"
            };
            Verdict::wrong(cause, remedy)
        }
    }
}

pub(in crate::diagnosis) fn order(facts: &Facts) -> Verdict {
    let Ok(confs) = confs(facts) else { return Verdict::Skipped("the folder cannot be read") };
    let Some(ours) = confs.iter().position(|conf| conf.ours) else {
        return Verdict::Skipped("no configuration of ours is there");
    };
    // What cannot be read a runtime passes over.
    let before = confs.iter().take(ours).filter(|conf| conf.problem.is_none());
    let name = confs.get(ours).map_or("", |conf| conf.file.as_str());
    let problem = |conf: &Conf| {
        Problem::new(
            format!(
                "{}/{} ({}) sorts before {name}: the runtime takes it, and new pods bypass us",
                facts.install.conf_dir,
                crate::fault::escape(&conf.file),
                conf.plugins.join(", ")
            ),
            remedy(conf),
        )
    };
    Verdict::of(before.map(problem).collect())
}

/// What the owner of a configuration calls the option that gives way.
fn remedy(conf: &Conf) -> String {
    let calls = |word: &str| conf.plugins.iter().any(|plugin| plugin.contains(word)) || conf.file.contains(word);
    let after = "so that it sorts after 00-multus.conflist";
    if calls("cilium") {
        return format!(
            "set cni.exclusive=false in Cilium's values and rename the file to 05-cilium.conflist, {after}"
        );
    }
    if calls("multus") {
        return "remove it: it is of another Multus on this node, which must not run beside this agent".to_owned();
    }
    if calls("calico") {
        return format!("give Calico's installer another CNI_CONF_NAME (10-calico.conflist), {after}");
    }
    if calls("flannel") {
        return format!("let Flannel's init container copy its file as 10-flannel.conflist, {after}");
    }
    format!("rename it, {after}, or remove it, where its owner lets you")
}

pub(in crate::diagnosis) fn exclusive(facts: &Facts) -> Verdict {
    let problem = |file: &String| {
        Problem::new(
            format!("{}/{} was put aside by Cilium", facts.install.conf_dir, crate::fault::escape(file)),
            "set cni.exclusive=false in Cilium's values, or it will put aside ours, too",
        )
    };
    Verdict::of(facts.install.put_aside.iter().map(problem).collect())
}

pub(in crate::diagnosis) fn warnings(facts: &Facts) -> Verdict {
    let Some(agent) = &facts.agent else { return Verdict::Skipped(NEEDS_AGENT) };
    // Which file the runtime takes is for `order` to say: with its owner, and with what to do.
    let others = agent.conf_warnings.iter().filter(|text| !text.contains("in cniConfigDir sorts before"));
    Verdict::of(others.map(|text| Problem::new(text, "correct what it names")).collect())
}

pub(in crate::diagnosis) fn primary(facts: &Facts) -> Verdict {
    let Some(agent) = &facts.agent else { return before(facts) };
    match &agent.primary {
        Primary::Ready(what) => Verdict::Fine(what.clone()),
        Primary::Missing(cause, remedy) => Verdict::wrong(cause, remedy),
    }
}

/// Without an agent: is there anything that could be the cluster's own network?
fn before(facts: &Facts) -> Verdict {
    let Ok(confs) = &facts.install.confs else { return Verdict::Skipped("the folder cannot be read") };
    match confs.iter().find(|conf| !conf.ours && !conf.multus && conf.problem.is_none()) {
        Some(conf) => Verdict::Fine(conf.file.clone()),
        None => Verdict::wrong(
            format!("no CNI configuration of the cluster's own network in {}", quote(&facts.install.conf_dir)),
            "install the cluster's own network first (Flannel, Cilium, Calico, …), or set multusAutoconfigDir",
        ),
    }
}

pub(in crate::diagnosis) fn primary_plugins(facts: &Facts) -> Verdict {
    let Some(agent) = &facts.agent else { return Verdict::Skipped(NEEDS_AGENT) };
    missing(facts, "the cluster's own network", &agent.primary_plugins)
        .map_or_else(|| Verdict::Skipped("the folder of plugins cannot be seen from here"), Verdict::of)
}

/// One problem for each plugin that is not installed; `None` where that cannot be seen.
pub(super) fn missing(facts: &Facts, whose: &str, plugins: &[String]) -> Option<Vec<Problem>> {
    let installed = facts.install.plugins.as_ref()?;
    let problem = |plugin: &String| {
        Problem::new(
            format!("{whose}: plugin {} is not in {}", quote(plugin), quote(&facts.install.bin_dir)),
            "install it there (the reference plugins come as containernetworking-plugins), or correct the type",
        )
    };
    Some(plugins.iter().filter(|plugin| !installed.contains(*plugin) && *plugin != "passthru").map(problem).collect())
}

pub(in crate::diagnosis) fn leftovers(facts: &Facts) -> Verdict {
    let of_files = facts.install.confs.iter().flatten().filter(|conf| conf.multus && !conf.ours).map(|conf| {
        Problem::new(
            format!("{}/{} is of another Multus", facts.install.conf_dir, crate::fault::escape(&conf.file)),
            "remove it once that Multus is gone from the cluster",
        )
    });
    let others = facts.install.leftovers.iter().map(|(cause, remedy)| Problem::new(cause, remedy));
    Verdict::of(of_files.chain(others).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::facts::Agent;

    fn file(name: &str, plugins: &[&str]) -> Conf {
        let plugins: Vec<String> = plugins.iter().map(|plugin| (*plugin).to_owned()).collect();
        let ours = plugins.iter().any(|plugin| plugin == "multus-shim");
        let multus = plugins.iter().any(|plugin| plugin.contains("multus"));
        Conf { file: name.into(), ours, multus, plugins, problem: None }
    }

    fn node(confs: Vec<Conf>) -> Facts {
        let mut facts = Facts { version: "1.2.3".into(), agent: Some(Agent::default()), ..Facts::default() };
        facts.install.conf_dir = "/etc/cni/net.d".into();
        facts.install.bin_dir = "/opt/cni/bin".into();
        facts.install.own = "multus-shim".into();
        facts.install.confs = Ok(confs);
        facts
    }

    fn said(verdict: Verdict) -> String {
        match verdict {
            Verdict::Wrong(problems) => {
                problems.iter().map(|p| format!("{} -> {}", p.cause, p.remedy)).collect::<Vec<_>>().join("\n")
            }
            _ => String::new(),
        }
    }

    #[test]
    fn a_foreign_file_that_sorts_first_is_named_with_its_owners_option() {
        let ours = || file("00-multus.conflist", &["multus-shim"]);
        for (before, words) in [
            (file("00-a.conflist", &["ptp"]), &["/etc/cni/net.d/00-a.conflist (ptp)", "rename it"][..]),
            (file("00-cilium.conflist", &["cilium-cni"]), &["(cilium-cni)", "cni.exclusive=false"]),
            (file("00-m.conf", &["multus"]), &["another Multus"]),
            (file("00-calico.conflist", &["calico", "bandwidth"]), &["(calico, bandwidth)", "CNI_CONF_NAME"]),
        ] {
            let text = said(order(&node(vec![before, ours(), file("10-z.conf", &["bridge"])])));
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        assert_eq!(order(&node(vec![ours(), file("10-z.conf", &["bridge"])])), Verdict::fine());
        let broken = Conf { problem: Some("no JSON".into()), ..file("00-a.conf", &[]) };
        assert_eq!(order(&node(vec![broken, ours()])), Verdict::fine(), "what a runtime cannot read it passes over");
    }

    #[test]
    fn a_configuration_of_ours_is_missed() {
        assert!(
            said(conf(&node(vec![file("10-z.conf", &["bridge"])]))).contains("no configuration in \"/etc/cni/net.d\"")
        );
        let mut blind = node(Vec::new());
        blind.install.confs = Err("No such file".into());
        assert!(said(conf(&blind)).contains("cannot be read: No such file"));
        let mut troubled = node(vec![file("00-multus.conflist", &["multus-shim"])]);
        troubled.agent = Some(Agent { conf_problem: Some("no space".into()), ..Agent::default() });
        assert!(said(conf(&troubled)).contains("no space"));
    }

    #[test]
    fn plugin_and_agent_are_of_one_version() {
        let mut facts = node(Vec::new());
        facts.install.plugins = Some(["multus-shim".to_owned()].into());
        for (says, wrong) in [(Ok("1.2.3"), false), (Ok("1.2.2"), true)] {
            facts.install.shim = Some(says.map(str::to_owned));
            assert_eq!(said(version(&facts)).contains("1.2.2"), wrong);
            assert_eq!(said(shim(&facts)), "");
        }
        facts.install.shim = Some(Err("Permission denied".into()));
        assert!(said(shim(&facts)).contains("Permission denied"));
        facts.install.plugins = Some(["bridge".to_owned()].into());
        assert!(said(shim(&facts)).contains("has no \"multus-shim\""));
        assert!(
            said(Verdict::of(missing(&facts, "network x", &["bridge".into(), "vlan".into()]).unwrap()))
                .contains("\"vlan\"")
        );
    }

    #[test]
    fn what_multus_left_is_named() {
        let mut facts = node(vec![file("00-multus.conflist", &["multus-shim"]), file("70-multus.conf", &["multus"])]);
        facts.install.leftovers = vec![("a socket".into(), "remove it".into())];
        let text = said(leftovers(&facts));
        assert!(
            text.contains("70-multus.conf is of another Multus") && text.contains("a socket -> remove it"),
            "{text}"
        );
        facts.install.put_aside = vec!["10-flannel.conflist.cilium_bak".into()];
        assert!(said(exclusive(&facts)).contains("cni.exclusive=false"));
    }

    #[test]
    fn before_an_installation_the_clusters_own_network_is_looked_for() {
        let mut facts = node(vec![file("10-flannel.conflist", &["flannel"])]);
        facts.agent = None;
        assert_eq!(primary(&facts), Verdict::Fine("10-flannel.conflist".into()));
        facts.install.confs = Ok(vec![file("00-multus.conflist", &["multus-shim"])]);
        assert!(said(primary(&facts)).contains("install the cluster's own network first"));
    }
}
