//! What is wrong with manifests before a cluster has them: each pod is planned as an ADD plans it, with the networks of
//! the same files.
//!
//! Needs no agent and no node. What only a node has (devices, links, its own files) is taken as given, unless told.

mod networks;
mod pods;
pub mod rules;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::config::{NetConf, Settings};
use crate::fault::CniError;
use crate::kube::sheets::{self, Object};
use crate::names::NadRef;
use crate::objects::Network;
use crate::ops::explain::document::Explanation;
use crate::ops::view::API_VERSION;
use rules::{Rule, Severity};

/// A text to be linted.
#[derive(Debug)]
pub struct Source {
    /// What it is called in findings.
    pub name: String,
    /// What is in it, or why it cannot be read.
    pub text: Result<String, String>,
    /// JSON rather than YAML?
    pub json: bool,
}

/// What is known beside the manifests.
#[derive(Debug)]
pub struct Given {
    /// The daemon's configuration.
    pub settings: Settings,
    /// The folders in which every plugin must be; none: plugins are not looked for.
    pub bin_dirs: Vec<PathBuf>,
    /// A network that is not in the files may be in the cluster.
    pub partial: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words; docs/reference/lint.md describes them")]
pub struct LintView {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub errors: usize,
    pub warnings: usize,
    pub findings: Vec<Finding>,
    pub pods: Vec<Explanation>,
    pub networks: usize,
    pub ignored: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the document's own words")]
pub struct Finding {
    pub code: &'static str,
    pub severity: Severity,
    pub place: String,
    pub object: String,
    pub field: Option<String>,
    pub message: String,
    pub remedy: String,
    pub hint: String,
}

/// Lints `sources` together: a pod of one file may select a network of another.
///
/// # Errors
/// The daemon's configuration cannot be used for requests.
pub fn lint(sources: &[Source], given: &Given) -> Result<LintView, CniError> {
    let mut linter = Linter::new(given)?;
    let (mut networks, mut pods, mut ignored) = (Vec::new(), Vec::new(), 0);
    for source in sources {
        let text = match &source.text {
            Ok(text) => text,
            Err(why) => {
                linter.say(&rules::UNREADABLE, (&source.name, "", None), (why, "name a file that can be read"));
                continue;
            }
        };
        for sheet in sheets::sheets(text, source.json) {
            let place = format!("{}: {}", source.name, sheet.place);
            match sheet.object {
                Ok(Object::Pod(pod)) => pods.push((place, sheet.kind, pod)),
                Ok(Object::Network(network)) => networks.push((place, network)),
                Ok(Object::Other) => ignored += 1,
                Err(why) if sheet.kind.is_empty() => {
                    linter.say(&rules::UNREADABLE, (&place, "", None), (&why, "correct the document"));
                }
                Err(why) => {
                    let field = why.split(':').next().map(str::to_owned);
                    linter.say(&rules::BAD_OBJECT, (&place, &sheet.kind, field), (&why, "correct the field"));
                }
            }
        }
    }
    let count = networks.len();
    linter.networks(networks);
    let pods = linter.pods(pods);
    let errors = linter.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let warnings = linter.findings.len() - errors;
    let findings = linter.findings;
    Ok(LintView { api_version: API_VERSION, kind: "Lint", errors, warnings, findings, pods, networks: count, ignored })
}

/// Judges networks by themselves; a finding's place is `<namespace>/<name>` of the one it is about.
///
/// # Errors
/// As [`lint`].
pub fn networks(networks: Vec<Network>, given: &Given) -> Result<Vec<Finding>, CniError> {
    let mut linter = Linter::new(given)?;
    linter.networks(networks.into_iter().map(|network| (network.id.to_string(), network)).collect());
    Ok(linter.findings)
}

struct Linter<'a> {
    given: &'a Given,
    conf: NetConf,
    networks: BTreeMap<NadRef, Arc<Network>>,
    findings: Vec<Finding>,
}

impl<'a> Linter<'a> {
    fn new(given: &'a Given) -> Result<Self, CniError> {
        let conf = NetConf::parse(br#"{"name":"multus-cni-network","cniVersion":"1.0.0"}"#, &given.settings)?;
        Ok(Self { given, conf, networks: BTreeMap::new(), findings: Vec::new() })
    }

    fn say(
        &mut self,
        rule: &Rule,
        (place, object, field): (&str, &str, Option<String>),
        (message, remedy): (&str, &str),
    ) {
        let finding = Finding {
            code: rule.code,
            severity: rule.severity,
            place: place.to_owned(),
            object: object.to_owned(),
            field,
            message: message.to_owned(),
            remedy: remedy.to_owned(),
            hint: format!("docs/reference/lint.md#{}", rule.code.to_ascii_lowercase()),
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    fn tell(&mut self, rule: &Rule, at: (&str, &str, Option<&str>), error: &CniError) {
        self.say(rule, (at.0, at.1, at.2.map(str::to_owned)), (&error.msg, &error.details));
    }
}
