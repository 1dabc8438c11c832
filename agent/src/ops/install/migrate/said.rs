//! In which words is told what is as it should be, or is for somebody else to do?

use std::path::Path;

use super::super::{Kind, Report, Site, shown};
use crate::fault::quote;
use crate::plan::migrate::Step;
use crate::plan::runtime_conf;

/// What is said of a step for which nothing is done here; `None`: something is, and that is told when it is done.
/// `written` is our configuration.
pub(super) fn of(step: &Step, conf_dir: &Path, written: &Path) -> Option<(Kind, String)> {
    let (written, conf) = (shown(written), shown(&conf_dir.join(runtime_conf::FILE)));
    let in_folder = |file: &String| shown(&conf_dir.join(file));
    Some(match step {
        Step::WriteConfiguration | Step::Keep(_) | Step::PlacePlugin | Step::WriteConf(_) => return None,
        Step::ConfigurationStands => (Kind::Already, format!("our configuration is in {written} already")),
        Step::ConfigurationDiffers => (
            Kind::Warning,
            format!("{written} stays as it is: somebody changed it, or made it; remove it to have it made anew"),
        ),
        Step::Shadowed(file) => (
            Kind::Warning,
            format!(
                "{} of Multus sorts before ours: the runtime takes it until you remove or rename it",
                in_folder(file)
            ),
        ),
        Step::ConfStands => (Kind::Already, format!("{conf} is ours already")),
        Step::ConfReplaced(file) => {
            (Kind::Left, format!("{} is Multus's and stays until the agent serves and writes its own", in_folder(file)))
        }
        Step::ConfAhead(file) => (
            Kind::Left,
            format!(
                "{} of Multus sorts after {}, which would be taken at once: the agent writes it when it serves; cordon \
                 the node from Multus's end until then",
                in_folder(file),
                runtime_conf::FILE
            ),
        ),
        Step::ConfCopied { file, stands: true } => (
            Kind::Already,
            format!(
                "{} is there already as the copy of multusConfigFile, and the runtime goes on with it",
                in_folder(file)
            ),
        ),
        Step::ConfCopied { file, stands: false } => (
            Kind::Left,
            format!(
                "{} is written by the agent when it serves, as the copy of multusConfigFile; cordon the node from \
                 Multus's end until then",
                in_folder(file)
            ),
        ),
        Step::NothingToCopy(source) => (
            Kind::Warning,
            format!(
                "multusConfigFile {} is not on this host: it was in Multus's pod; give it to the agent's, or take the \
                 key out of {written}, and the agent makes a conf itself",
                quote(source)
            ),
        ),
        Step::ConfLater => (
            Kind::Left,
            format!(
                "{conf} is written by the agent, for the cluster's own network is not known here: once Multus ends, \
                 pods that start before the agent serves get no further networks; cordon the node meanwhile"
            ),
        ),
    })
}

/// Where the runtime finds the plugin elsewhere than the agent finds delegates, somebody may want it in both.
pub(super) fn where_delegates_are(report: &mut Report, site: &Site, runtimes: &str) {
    let Some(delegates) = site.settings.delegation.bin_dir.as_deref().filter(|folder| *folder != runtimes) else {
        return;
    };
    let (delegates, runtimes) = (quote(delegates), quote(runtimes));
    report.note(
        Kind::Left,
        format!(
            "binDir {delegates} is where delegates are, and the runtime finds the plugin in {runtimes}: say \
             --cni-bin-dir {runtimes} to every later multus-agent install, which would go by binDir"
        ),
    );
}
