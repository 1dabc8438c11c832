//! `install` and `uninstall`: the CNI plugin onto a host, and everything of ours off it again.
//!
//! Here are options and words; what is done, and in which order, is `ops::install`'s.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::output::{self, Format, Ink, Level, paint, safe};
use super::{Ending, Show, query, time};
use crate::config::Settings;
use crate::fault::quote;
use crate::ops::install::{self, Drained, Kind, Place, Preset, Report, Site, Step, Wishes};
use crate::ops::view::API_VERSION;
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
/// What the image has it as.
const SHIM: &str = "/usr/bin/multus-shim";

/// Which host.
#[derive(Debug, Args)]
pub struct Host {
    /// The daemon's configuration; its cniConfigDir, binDir, cniDir and socketDir hold here, too
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    config: Option<PathBuf>,
    /// Take the folders of this distribution: kubeadm, k3s, rke2, talos, microk8s, k0s, kind, openshift and others
    #[arg(long, value_name = "NAME", help_heading = "Where", value_parser = preset)]
    preset: Option<Preset>,
    /// The folder in which the runtime finds plugins
    #[arg(long, value_name = "FOLDER", help_heading = "Where")]
    cni_bin_dir: Option<String>,
    /// The folder in which the runtime finds CNI configurations
    #[arg(long, value_name = "FOLDER", help_heading = "Where")]
    cni_conf_dir: Option<String>,
    /// Where the host's root is mounted
    #[arg(long = "host-root", value_name = "FOLDER", help_heading = "Where", default_value = "/")]
    root: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    show: Show,
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
    /// The JSON patch that turns the DaemonSet around
    #[arg(long, value_name = "FILE", help_heading = "In a cluster", requires = "everywhere")]
    patch: Option<PathBuf>,
    /// How to reach the API server; without it as a pod of the cluster does
    #[arg(long, value_name = "FILE", help_heading = "In a cluster", requires = "everywhere")]
    kubeconfig: Option<PathBuf>,
    /// How long all nodes may take
    #[arg(long, value_name = "TIME", help_heading = "In a cluster", default_value = "5m", value_parser = time)]
    timeout: Duration,
}

pub(super) fn preset(text: &str) -> Result<Preset, String> {
    let known = || Preset::ALL.map(Preset::as_str).join(", ");
    Preset::named(text).ok_or_else(|| format!("there is no such distribution; known are {}", known()))
}

/// Puts the plugin on the host.
pub fn install(host: &Host, shim: Option<&Path>) -> Ending {
    let site = match site(host) {
        Ok(site) => site,
        Err(ending) => return ending,
    };
    let shim = shim.map_or_else(beside_us, Path::to_owned);
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
    let wishes = Wishes {
        preset: host.preset,
        conf_dir: host.cni_conf_dir.clone().or_else(|| configured("cniConfigDir")),
        bin_dir: host.cni_bin_dir.clone().or_else(|| settings.delegation.bin_dir.clone()),
    };
    let (root, configuration) = (host.root.clone(), host.config.clone());
    Ok(Site { root, settings, wishes, configuration, dry_run: host.dry_run })
}

/// The plugin that came with this program.
pub(super) fn beside_us() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("multus-shim"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(SHIM))
}

fn print(report: &Report, host: &Host, kind: &str) -> Ending {
    let mut document = json!({ "apiVersion": API_VERSION, "kind": kind, "dryRun": host.dry_run });
    if let (Some(document), Ok(Value::Object(report))) = (document.as_object_mut(), serde_json::to_value(report)) {
        document.extend(report);
    }
    output::print(&match host.show.output {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => report.steps.iter().map(|step| safe(&step.text) + "\n").collect(),
        Format::Table | Format::Wide => told(report, host.dry_run),
    })
}

pub(super) fn told(report: &Report, dry_run: bool) -> String {
    let mut lines = Vec::new();
    if let Some(places) = &report.places {
        let distribution = places.recognised.map_or("not recognised", Preset::as_str);
        lines.push(format!("distribution   {distribution}"));
        let folder = |name: &str, place: &Place| format!("{name:14} {} ({})", safe(&place.path), safe(&place.because));
        lines.push(folder("conf folder", &places.conf_dir));
        lines.push(folder("plugin folder", &places.bin_dir));
        lines.push(String::new());
    }
    if dry_run {
        lines.push(paint("nothing is changed; this is what would be done", Ink::Strong));
    }
    let mark = |step: &Step| match step.kind {
        Kind::Done | Kind::Already => Level::Good.mark(),
        Kind::Left => paint("–", Ink::Faint),
        Kind::Warning => Level::Warning.mark(),
    };
    lines.extend(report.steps.iter().map(|step| format!("{} {}", mark(step), safe(&step.text))));
    lines.join("\n") + "\n"
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
