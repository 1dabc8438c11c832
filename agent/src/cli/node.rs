//! Which node `install`, `uninstall` and `migrate` are about, and how what was done to it is told.
//!
//! Here are options and words; nothing is done here.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::output::{self, Format, Ink, Level, paint, safe};
use super::{Ending, Show};
use crate::ops::install::{Kind, Place, Preset, Report, Step, Wishes};
use crate::ops::view::API_VERSION;

/// What the image has it as.
const SHIM: &str = "/usr/bin/multus-shim";

/// Which node.
#[derive(Debug, Args)]
pub struct Node {
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
    pub(super) root: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// How to print it.
    #[command(flatten)]
    show: Show,
}

fn preset(text: &str) -> Result<Preset, String> {
    let known = || Preset::ALL.map(Preset::as_str).join(", ");
    Preset::named(text).ok_or_else(|| format!("there is no such distribution; known are {}", known()))
}

impl Node {
    /// What was said about folders.
    pub(super) fn wishes(&self) -> Wishes {
        Wishes { preset: self.preset, conf_dir: self.cni_conf_dir.clone(), bin_dir: self.cni_bin_dir.clone() }
    }

    /// Prints what was done as a document of this kind, or as `told` has it.
    pub(super) fn print<T: Serialize>(
        &self,
        (kind, done): (&str, &T),
        steps: &[Step],
        told: impl FnOnce() -> String,
    ) -> Ending {
        let mut document = json!({ "apiVersion": API_VERSION, "kind": kind, "dryRun": self.dry_run });
        if let (Some(document), Ok(Value::Object(done))) = (document.as_object_mut(), serde_json::to_value(done)) {
            document.extend(done);
        }
        output::print(&match self.show.output {
            Format::Json => output::json(&document),
            Format::Yaml => output::yaml(&document),
            Format::Name => steps.iter().map(|step| safe(&step.text) + "\n").collect(),
            Format::Table | Format::Wide => told(),
        })
    }

    /// The steps for a person, and where they were or would be taken.
    pub(super) fn told(&self, report: &Report) -> String {
        let mut lines = Vec::new();
        if let Some(places) = &report.places {
            let distribution = places.recognised.map_or("not recognised", Preset::as_str);
            lines.push(format!("distribution   {distribution}"));
            let folder =
                |name: &str, place: &Place| format!("{name:14} {} ({})", safe(&place.path), safe(&place.because));
            lines.push(folder("conf folder", &places.conf_dir));
            lines.push(folder("plugin folder", &places.bin_dir));
            lines.push(String::new());
        }
        if self.dry_run {
            lines.push(paint("nothing is changed; this is what would be done", Ink::Strong));
        }
        lines.extend(report.steps.iter().map(|step| format!("{} {}", mark(step), safe(&step.text))));
        lines.join("\n") + "\n"
    }
}

fn mark(step: &Step) -> String {
    match step.kind {
        Kind::Done | Kind::Already => Level::Good.mark(),
        Kind::Left => paint("–", Ink::Faint),
        Kind::Warning => Level::Warning.mark(),
    }
}

/// The plugin that came with this program.
pub(super) fn shim_beside_us() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|program| program.with_file_name("multus-shim"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(SHIM))
}
