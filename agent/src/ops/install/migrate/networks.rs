//! Which networks may pods of this node ask for, and which of them cannot be used? Those of the cluster, listed once, and the
//! files of `confDir`.
//!
//! Judges them as `lint` does. Nothing fails because of what is found, or because nothing can be looked at.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::super::{Kind, Report, Site, shown};
use crate::fault::{CniError, many, quote};
use crate::kube::{ClusterError, at_hand, listed};
use crate::objects::Network;
use crate::ops::cluster_network;
use crate::ops::lint::rules::Severity;
use crate::ops::lint::{self, Finding, Given};
use crate::plan::master::Candidate;
use crate::plan::migrate;

/// How long the API server may take: who changes nodes over has many of them before him.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most networks that sentences name one by one.
const MOST_NAMED: usize = 20;
/// What looks at them instead.
const BY_HAND: &str = "kubectl get network-attachment-definitions --all-namespaces --output yaml | multus-agent lint -";

/// A network that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// `<namespace>/<name>`, or the path of a file of `confDir` that cannot be used.
    pub network: String,
    /// Why it cannot be used; none: it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// It can be used, but probably not as meant.
    #[serde(skip)]
    is_doubtful: bool,
}

/// Every network that pods of this node may ask for; what is to be said of them is in the report.
pub(super) fn look(site: &Site, cni_dir: &Path, report: &mut Report) -> Vec<Judged> {
    let (found, unlooked) = found(site, cni_dir);
    let mut judged: Vec<Judged> =
        found.unusable.into_iter().map(|(network, why)| Judged::of(network, Some(why))).collect();
    match of_objects(site, found.networks) {
        Ok(networks) => judged.extend(networks),
        Err(error) => report.note(Kind::Left, format!("the networks were not looked at: {error}")),
    }
    judged.extend(of_files(site));
    judged.sort_by(|a, b| a.network.cmp(&b.network));
    say(&judged, report);
    let unlooked = unlooked.or(found.has_more.then(|| "there are too many to list them here".to_owned()));
    if let Some(why) = unlooked {
        let text = format!("not all networks of the cluster were looked at: {why}; this does it: {BY_HAND}");
        report.note(Kind::Left, text);
    }
    judged
}

impl Judged {
    fn of(network: String, refused: Option<String>) -> Self {
        Self { network, refused, is_doubtful: false }
    }
}

/// The networks, and why they may not be all. What an agent saw last is better than nothing.
fn found(site: &Site, cni_dir: &Path) -> (listed::Listed, Option<String>) {
    let objects = site.settings.objects.as_deref().map(Path::new);
    let here = || {
        let networks = at_hand::networks(objects, &cni_dir.join("networks"));
        listed::Listed { networks, ..listed::Listed::default() }
    };
    if objects.is_some() {
        return (here(), None);
    }
    let named = site.settings.kubeconfig.as_deref();
    let kubeconfig = match named.map(|path| site.ours("find kubeconfig", path)).transpose() {
        Ok(kubeconfig) => kubeconfig,
        Err(error) => return (here(), Some(error.to_string())),
    };
    match ask(kubeconfig) {
        Ok(listed) => (listed, None),
        Err(ClusterError::Settings(_)) if named.is_none() => {
            (here(), Some("the configuration names no kubeconfig".to_owned()))
        }
        Err(error) => (here(), Some(error.to_string())),
    }
}

/// Asks the API server on a thread of its own: a kubeconfig may name a program that never ends.
fn ask(kubeconfig: Option<PathBuf>) -> Result<listed::Listed, ClusterError> {
    let unavailable = |reason: &str| {
        let action = "list the networks of the cluster".to_owned();
        ClusterError::Unavailable { action, reason: reason.to_owned() }
    };
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let answer = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(listed::networks(kubeconfig.as_deref(), PATIENCE)),
            Err(error) => Err(ClusterError::Unavailable { action: "start".to_owned(), reason: error.to_string() }),
        };
        let _ = tell.send(answer);
    });
    let answer = told.recv_timeout(PATIENCE + Duration::from_secs(1));
    answer.unwrap_or_else(|_late| Err(unavailable("whoever gives the credentials did not answer in time")))
}

fn of_objects(site: &Site, networks: Vec<Network>) -> Result<Vec<Judged>, CniError> {
    let mut settings = site.settings.clone();
    settings.delegation.conf_dir = conf_dir(site).map(|folder| folder.to_string_lossy().into_owned());
    let given = Given { settings, bin_dirs: Vec::new(), partial: true };
    let names: Vec<String> = networks.iter().map(|network| network.id.to_string()).collect();
    let findings = lint::networks(networks, &given)?;
    let judge = |name: String| {
        let of_it = || findings.iter().filter(|finding| finding.place == name);
        let refused = of_it().find(|finding| finding.severity == Severity::Error).map(sentence);
        let is_doubtful = of_it().any(|finding| finding.severity == Severity::Warning);
        Judged { is_doubtful, ..Judged::of(name, refused) }
    };
    Ok(names.into_iter().map(judge).collect())
}

fn sentence(finding: &Finding) -> String {
    let field = finding.field.as_deref().filter(|field| !finding.message.contains(field));
    let field = field.map(|field| format!("{field}: ")).unwrap_or_default();
    format!("{field}{}; {}", finding.message, finding.remedy)
}

/// The files of which networks with an empty spec get theirs, as far as they cannot be used.
fn of_files(site: &Site) -> Vec<Judged> {
    let folder = conf_dir(site);
    let files = folder.as_deref().and_then(|folder| cluster_network::candidates(folder).ok()).unwrap_or_default();
    let own = site.settings.generator.plugin.as_str();
    let judge = |file: &Candidate| {
        let path = folder.as_deref().unwrap_or(Path::new("")).join(&file.file);
        Some(Judged::of(path.to_string_lossy().into_owned(), Some(migrate::refusal(&file.content, own)?)))
    };
    files.iter().filter_map(judge).collect()
}

/// `confDir`, as we see it.
fn conf_dir(site: &Site) -> Option<PathBuf> {
    let path = site.settings.delegation.conf_dir.as_deref().unwrap_or("/etc/cni/multus/net.d");
    site.ours("find confDir", path).ok()
}

fn say(judged: &[Judged], report: &mut Report) {
    let refused: Vec<(&Judged, &String)> =
        judged.iter().filter_map(|network| Some((network, network.refused.as_ref()?))).collect();
    let usable = judged.len() - refused.len();
    if usable > 0 {
        report.note(Kind::Already, format!("{} can be used as they are", many(usable as u64, "network")));
    }
    for (network, why) in refused.iter().take(MOST_NAMED) {
        report.note(Kind::Warning, format!("network {} cannot be used: {why}", shown(Path::new(&network.network))));
    }
    if let Some(more) = refused.len().checked_sub(MOST_NAMED).filter(|more| *more > 0) {
        report.note(Kind::Warning, format!("{} more cannot be used: {BY_HAND}", many(more as u64, "network")));
    }
    let doubtful: Vec<String> = judged.iter().filter(|one| one.is_doubtful).map(|one| quote(&one.network)).collect();
    if let Some(first) = doubtful.first() {
        let more = doubtful.len() - 1;
        let others = if more > 0 { format!(" and {}", many(more as u64, "more network")) } else { String::new() };
        let text = format!("{first}{others} may not do what was meant, here as with Multus: {BY_HAND}");
        report.note(Kind::Left, text);
    }
}
