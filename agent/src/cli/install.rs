//! `install` and `uninstall`: the CNI plugin onto a host, and everything of ours off it again.
//!
//! Here are options and words; what is done, and in which order, is `ops::install`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::node::{Node, shim_beside_us};
use super::output::{self, safe};
use super::{Ending, query, time};
use crate::config::Settings;
use crate::fault::quote;
use crate::ops::install::{self, Drained, Report, Site, Wishes};
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

Host files that were changed are put back byte for byte, unless somebody else changed them since. A pod that still needs
its DEL keeps its record and the CNI plugin, which needs no agent for that; when such pods are gone, run it again. An
agent that runs is drained and ends; where something starts it again, stop that first.";

/// How long an agent may take to drain before it is taken off.
const DRAIN: Duration = Duration::from_secs(20);
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
    /// On every node of a cluster: patch this DaemonSet, and wait until each of its pods is ready
    #[arg(long, value_name = "NAMESPACE/NAME", help_heading = "In a cluster", requires = "patch")]
    everywhere: Option<String>,
    /// The JSON patch that turns the DaemonSet around, in JSON or YAML
    #[arg(long, value_name = "FILE", help_heading = "In a cluster", requires = "everywhere")]
    patch: Option<PathBuf>,
    /// How to reach the API server; without it as a pod of the cluster does
    #[arg(long, value_name = "FILE", help_heading = "In a cluster", requires = "everywhere")]
    kubeconfig: Option<PathBuf>,
    /// How long all nodes may take
    #[arg(long, value_name = "TIME", help_heading = "In a cluster", default_value = "5m", value_parser = time)]
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
    let ending = if is_only_to_stay { Ending::Fine } else { here(&asked.host) };
    match ending {
        Ending::Fine if asked.stay => stay(),
        ending => ending,
    }
}

fn here(host: &Host) -> Ending {
    let site = match site(host) {
        Ok(site) => site,
        Err(ending) => return ending,
    };
    match install::uninstall(&site, &drain_agent(&site)) {
        Ok(report) => match print(&report, host, "Uninstallation") {
            Ending::Fine if report.has_warnings() => Ending::Problem,
            ending => ending,
        },
        Err(error) => Ending::Failed(error.to_string()),
    }
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
    match install::wait_for_a_signal() {
        Ok(()) => Ending::Fine,
        Err(error) => Ending::Failed(format!("wait for a signal: {error}")),
    }
}
