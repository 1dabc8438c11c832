//! `install` and `uninstall`: the CNI plugin onto a host, and everything of ours off it again.
//!
//! Here are options and words; what is done, and in which order, is `ops::install`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;

use super::node::{Node, shim_beside_us};
use super::output::{self, safe};
use super::{Ending, query, time};
use crate::config::Settings;
use crate::fault::quote;
use crate::ops::install::{self, Drained, Kind, Report, Signals, Site, Step, Wishes};
use crate::wire::{self, http::Response};

/// Shown with the long help of `install`.
pub const INSTALL_EXAMPLES: &str = "Examples:
  multus-agent install --dry-run                   what this node looks like, and what would be done
  multus-agent install --config daemon-config.json
  multus-agent install --preset k3s --host-root /host

Without --preset and configured folders they are found: by what the runtime's own configuration says, and by what
distributions leave on their hosts. The runtime's conf is written by the agent, as soon as it serves.";

/// Shown with the long help of `uninstall`.
pub const UNINSTALL_EXAMPLES: &str = "Examples:
  multus-agent uninstall --dry-run                 what there is to take off
  multus-agent uninstall --config daemon-config.json
  multus-agent uninstall --config daemon-config.json --wait --timeout 1h

Host files that were changed are put back byte for byte, unless somebody else changed them since. A pod that still needs
its DEL keeps its record and the CNI plugin, which needs no agent for that; when such pods are gone, run it again, or have
it --wait for that. An agent that runs is drained and ends; where something starts it again, stop that first.";

/// How long an agent may take to drain before it is taken off.
const DRAIN: Duration = Duration::from_secs(20);
/// First and longest pause between two tries of `--wait`.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Most pods that a sentence names.
const MOST_NAMED: usize = 5;
/// How long somebody at the socket may take to say who it is.
const LOOK: Duration = Duration::from_secs(2);

/// Which host.
#[derive(Debug, Args)]
pub struct Host {
    /// The daemon's configuration; its cniConfigDir, binDir, cniDir and socketDir hold here, too
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    config: Option<PathBuf>,
    /// The host itself.
    #[command(flatten)]
    node: Node,
}

/// What `uninstall` takes besides.
#[derive(Debug, Args)]
pub struct Uninstall {
    /// Which host.
    #[command(flatten)]
    host: Host,
    /// Wait for a signal in the end, as the pod of a DaemonSet must
    #[arg(long)]
    stay: bool,
    /// Try again until nothing is left: pods that still need their DEL are waited for
    #[arg(long, conflicts_with_all = ["everywhere", "dry_run"])]
    wait: bool,
    /// On every node of a cluster: patch this DaemonSet, and wait until each of its pods is ready
    #[arg(long, value_name = "NAMESPACE/NAME", help_heading = "In a cluster", requires = "patch")]
    everywhere: Option<String>,
    /// The JSON patch that turns the DaemonSet around, in JSON or YAML
    #[arg(long, value_name = "FILE", help_heading = "In a cluster", requires = "everywhere")]
    patch: Option<PathBuf>,
    /// How to reach the API server; without it as a pod of the cluster does
    #[arg(long, value_name = "FILE", help_heading = "In a cluster", requires = "everywhere")]
    kubeconfig: Option<PathBuf>,
    /// How long --wait, or all nodes, may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = time)]
    timeout: Duration,
}

/// Puts the plugin on the host.
pub fn install(host: &Host, shim: Option<&Path>) -> Ending {
    let site = match site(host) {
        Ok(site) => site,
        Err(ending) => return ending,
    };
    let shim = shim.map_or_else(shim_beside_us, Path::to_owned);
    match install::install(&site, &shim) {
        Ok(report) => print(&report, host, "Installation"),
        Err(error) => Ending::Failed(error.to_string()),
    }
}

/// Takes everything off, here or everywhere.
pub fn uninstall(asked: &Uninstall) -> Ending {
    if let (Some(name), Some(patch)) = (&asked.everywhere, &asked.patch) {
        return everywhere(name, patch, (asked.kubeconfig.as_deref(), asked.timeout));
    }
    let is_only_to_stay = asked.stay && asked.host.config.is_none();
    let ending = if is_only_to_stay { Ending::Fine } else { here(asked) };
    match ending {
        Ending::Fine if asked.stay => stay(),
        ending => ending,
    }
}

fn here(asked: &Uninstall) -> Ending {
    let host = &asked.host;
    let site = match site(host) {
        Ok(site) => site,
        Err(ending) => return ending,
    };
    if let Err(error) = install::is_all_seen(&site) {
        return Ending::Failed(error.to_string());
    }
    let drained = drain_agent(&site);
    if asked.wait {
        return until_nothing_is_left(host, &site, drained, asked.timeout);
    }
    match install::uninstall(&site, &drained) {
        Ok(report) => done(&report, host),
        Err(error) => Ending::Failed(error.to_string()),
    }
}

fn done(report: &Report, host: &Host) -> Ending {
    match print(report, host, "Uninstallation") {
        Ending::Fine if report.has_warnings() => Ending::Problem,
        ending => ending,
    }
}

/// Takes off what can be, again and again, until nothing is left; says what it waits for whenever that changes or there is
/// something new to look at. The last report has the warnings of every try: they are why the exit code is 1.
fn until_nothing_is_left(host: &Host, site: &Site, drained: Drained, patience: Duration) -> Ending {
    let mut signals = match Signals::hear() {
        Ok(signals) => signals,
        Err(error) => return Ending::Failed(format!("hear signals: {error}")),
    };
    let until = Instant::now() + patience;
    let (mut drained, mut pause, mut told) = (drained, PAUSES.0, Vec::new());
    let mut warnings: Vec<Step> = Vec::new();
    loop {
        let mut report = match install::uninstall(site, &drained) {
            Ok(report) => report,
            Err(error) => return Ending::Failed(error.to_string()),
        };
        drained = Drained::NoAgent;
        let is_news = has_more(&mut warnings, &report);
        if report.waits_for.is_empty() {
            put_in_front(&warnings, &mut report);
            return done(&report, host);
        }
        if told != report.waits_for || is_news {
            if host.node.is_for_people() {
                let _ = output::print(&format!("{}{}\n", host.node.told(&report), waiting(&report)));
            }
            told.clone_from(&report.waits_for);
        }
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            if !host.node.is_for_people() {
                put_in_front(&warnings, &mut report);
                let _ = print(&report, host, "Uninstallation");
            }
            return Ending::TimedOut(format!("after {} s it is still {}", patience.as_secs(), waiting(&report)));
        }
        if signals.within(pause.min(rest)) {
            return Ending::Failed(format!("ended by a signal, {}", waiting(&report)));
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Takes in the report's warnings. The answer: there was a new one.
fn has_more(warnings: &mut Vec<Step>, report: &Report) -> bool {
    let known = warnings.len();
    for step in report.steps.iter().filter(|step| step.kind == Kind::Warning) {
        if !warnings.contains(step) {
            warnings.push(step.clone());
        }
    }
    warnings.len() > known
}

/// Puts what earlier tries warned of before what the last one says.
fn put_in_front(warnings: &[Step], report: &mut Report) {
    let earlier: Vec<Step> = warnings.iter().filter(|step| !report.steps.contains(step)).cloned().collect();
    report.steps.splice(..0, earlier);
}

fn waiting(report: &Report) -> String {
    let mut names: Vec<String> = report.waits_for.iter().take(MOST_NAMED).map(|name| quote(name)).collect();
    let more = report.waits_for.len().saturating_sub(MOST_NAMED);
    names.extend((more > 0).then(|| format!("{more} more")));
    format!("waiting for {}", names.join(", "))
}

/// Asks an agent that runs to let nobody in any more, and to end; in a dry run only whether one runs.
pub(super) fn drain_agent(site: &Site) -> Drained {
    let socket = match site.socket_dir() {
        Ok(folder) => folder.join(wire::SOCKET),
        Err(error) => return Drained::Failed(error.to_string()),
    };
    if site.dry_run {
        let answer = query::exchange(&socket, ("GET", "/v1/version", b""), LOOK);
        return if answer.is_ok_and(|answer| answer.status == 200) { Drained::Yes } else { Drained::NoAgent };
    }
    let path = query::with("/v1/drain", &[("for", Some(DRAIN.as_millis().to_string())), ("then", Some("end".into()))]);
    let answer = query::exchange(&socket, ("POST", &path, b""), DRAIN + Duration::from_secs(5));
    let refused = |answer: Response| match answer.status {
        200 => Ok(Drained::Yes),
        // Somebody else's socket: Multus's daemon knows no such path.
        404 => Ok(Drained::NoAgent),
        status => Err(query::refused(&path, status, &answer.body)),
    };
    match answer.and_then(refused) {
        Ok(drained) => drained,
        Err(Ending::Failed(why) | Ending::Usage(why) | Ending::TimedOut(why)) => Drained::Failed(why),
        Err(_) => Drained::NoAgent,
    }
}

fn site(host: &Host) -> Result<Site, Ending> {
    let text = match &host.config {
        Some(file) => fs::read_to_string(file)
            .map_err(|error| Ending::Failed(format!("read {}: {error}", quote(&file.to_string_lossy()))))?,
        None => "{}".to_owned(),
    };
    let (settings, _warnings) =
        Settings::parse(&text).map_err(|error| Ending::Failed(format!("configuration: {error}")))?;
    let configured = |key: &str| {
        let object = serde_json::from_str::<serde_json::Map<String, Value>>(&text).unwrap_or_default();
        let value = object.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        value.and_then(|value| value.as_str().map(str::to_owned)).filter(|text| !text.is_empty())
    };
    let said = host.node.wishes();
    let wishes = Wishes {
        conf_dir: said.conf_dir.or_else(|| configured("cniConfigDir")),
        bin_dir: said.bin_dir.or_else(|| settings.delegation.bin_dir.clone()),
        ..said
    };
    let (root, configuration) = (host.node.root.clone(), host.config.clone());
    Ok(Site { root, settings, wishes, configuration, dry_run: host.node.dry_run })
}

fn print(report: &Report, host: &Host, kind: &str) -> Ending {
    host.node.print((kind, report), &report.steps, || host.node.told(report))
}

fn everywhere(name: &str, patch: &Path, limits: (Option<&Path>, Duration)) -> Ending {
    let Some((namespace, name)) = name.split_once('/') else {
        return Ending::Usage(format!("--everywhere {} is not NAMESPACE/NAME", quote(name)));
    };
    let patch = match fs::read_to_string(patch) {
        Ok(patch) => patch,
        Err(error) => return Ending::Failed(format!("read {}: {error}", quote(&patch.to_string_lossy()))),
    };
    let said = |text: &str| drop(output::print(&(safe(text) + "\n")));
    match install::everywhere((namespace, name), &patch, limits, said) {
        Ok(()) => Ending::Fine,
        Err(install::EverywhereError::Late(text)) => Ending::TimedOut(text),
        Err(error) => Ending::Failed(error.to_string()),
    }
}

/// Waits for a signal. There is nothing to do, but a pod of a DaemonSet may not end.
fn stay() -> Ending {
    let _ = output::print("nothing more to do here; waiting for a signal\n");
    match Signals::hear() {
        Ok(mut signals) => {
            signals.wait();
            Ending::Fine
        }
        Err(error) => Ending::Failed(format!("hear signals: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_of_every_try_are_in_the_last_report_once() {
        let step = |kind, text: &str| Step { kind, text: text.into() };
        let of = |steps: &[Step]| Report { steps: steps.to_vec(), ..Report::default() };
        let (early, lasting) = (step(Kind::Warning, "early"), step(Kind::Warning, "lasting"));
        let (done, left) = (step(Kind::Done, "done"), step(Kind::Left, "early"));
        let mut warnings = Vec::new();
        assert!(has_more(&mut warnings, &of(&[done.clone(), early.clone(), lasting.clone()])));
        let mut last = of(&[left.clone(), lasting.clone()]);
        assert!(!has_more(&mut warnings, &last));
        put_in_front(&warnings, &mut last);
        assert_eq!(last.steps, [early, left, lasting]);
        assert!(last.has_warnings());
    }
}
