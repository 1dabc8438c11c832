//! `perNodeCertificate`: how Multus comes to credentials of its own; read here, and without effect.
//!
//! The agent uses its service account or the kubeconfig, and leaves no credentials on the host.

use std::time::Duration;

use super::section::{ConfigError, Section};
use super::words;

/// `perNodeCertificate`, when enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCertificate {
    /// `bootstrapKubeconfig`.
    pub bootstrap_kubeconfig: String,
    /// `certDir`.
    pub cert_dir: String,
    /// `certDuration`.
    pub cert_duration: Duration,
}

impl NodeCertificate {
    /// Takes it out of the configuration; `None` where it is not enabled.
    pub(super) fn read(top: &mut Section, warnings: &mut Vec<String>) -> Result<Option<Self>, ConfigError> {
        let mut section = top.section("perNodeCertificate")?;
        let enabled = section.flag("enabled")?.unwrap_or(false);
        let (kubeconfig, folder) = (section.secret_file("bootstrapKubeconfig")?, section.folder("certDir")?);
        let duration = section.word("certDuration", "a duration such as 10m", words::duration)?;
        let certificate = match (enabled, kubeconfig, folder) {
            (false, ..) => None,
            (true, Some(bootstrap_kubeconfig), Some(cert_dir)) => Some(Self {
                bootstrap_kubeconfig,
                cert_dir,
                cert_duration: duration.unwrap_or(Duration::from_mins(10)),
            }),
            (true, None, _) => return Err(section.refuse("bootstrapKubeconfig", "", "an absolute path")),
            (true, _, None) => return Err(section.refuse("certDir", "", "an absolute path")),
        };
        section.finish(warnings);
        if enabled {
            warnings.push(
                "perNodeCertificate is enabled and has no effect: the agent uses its service account or the kubeconfig, \
                 and leaves no credentials on the host"
                    .to_owned(),
            );
        }
        Ok(certificate)
    }
}
