//! `migrate`: a node goes over from Multus while its pods run, and back.
//!
//! Here are options and words; what is done, and in which order, is `ops::install::migrate`'s.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::install::{beside_us, drain_agent, preset, told as told_steps};
use super::output::{self, Format, Ink, paint, safe};
use super::{Ending, Show};
use crate::fault::quote;
use crate::ops::install::migrate::{self, Asked, Container, Fate, Form, Key, Migrated, Migration};
use crate::ops::install::{Preset, Report};
use crate::ops::view::API_VERSION;

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent migrate --dry-run --config daemon-config.json       what is understood, and what would be done here
  multus-agent migrate --dry-run --config daemon-config.json -o json | jq .configuration
  multus-agent migrate --config /etc/cni/net.d/00-multus.conf      a node in thin mode
  multus-agent migrate --back --config multus-ebpf.json            Multus has the node again

FILE is Multus's daemon-config.json, or the conf that it wrote for the runtime. Running pods keep their interfaces; whoever
has the node when a pod ends detaches what the other attached. It can be run again at any time, and beside a Multus that
runs: the last two steps, ending Multus and starting the agent, are yours.";

/// The most that a configuration may have.
const MOST_BYTES: u64 = 1 << 20;

/// What to change over.
#[derive(Debug, Args)]
pub struct Migrate {
    /// Multus's configuration, or, to go back, ours; - is the standard input
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    config: PathBuf,
    /// Where our configuration is written; without it as multus-ebpf.json beside FILE
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    to: Option<PathBuf>,
    /// Give the node back to Multus
    #[arg(long, conflicts_with_all = ["to", "shim"])]
    back: bool,
    /// The CNI plugin; without it the one beside this program, or the image's
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    shim: Option<PathBuf>,
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

/// Does it.
pub fn migrate(asked: &Migrate) -> Ending {
    let text = match read(&asked.config) {
        Ok(text) => text,
        Err(error) => return Ending::Failed(unreadable(asked, &error)),
    };
    let is_piped = asked.config == Path::new("-");
    if is_piped && asked.to.is_none() && !asked.dry_run && !asked.back {
        return Ending::Usage("--config - has no folder beside which ours could be written: add --to FILE".to_owned());
    }
    let node = Asked {
        root: asked.root.clone(),
        file: asked.config.clone(),
        to: asked.to.clone(),
        preset: asked.preset,
        conf_dir: asked.cni_conf_dir.clone(),
        bin_dir: asked.cni_bin_dir.clone(),
        dry_run: asked.dry_run,
    };
    let migration = match Migration::of(&node, &text) {
        Ok(migration) => migration,
        Err(error) => {
            return Ending::Failed(format!("configuration {}: {error}", quote(&asked.config.to_string_lossy())));
        }
    };
    if migration.translation.is_refused() {
        return ended(print(&migration.told(), asked), Ending::Problem);
    }
    if asked.back {
        return back(&migration, asked);
    }
    let shim = asked.shim.clone().unwrap_or_else(beside_us);
    match migrate::forth(&migration, &shim) {
        Ok(migrated) => ended(print(&migrated, asked), warned(&migrated.report)),
        Err(error) => Ending::Failed(error.to_string()),
    }
}

fn back(migration: &Migration, asked: &Migrate) -> Ending {
    match migrate::back(migration, &drain_agent(migration.site())) {
        Ok(report) => ended(print_back(&report, asked), warned(&report)),
        Err(error) => Ending::Failed(error.to_string()),
    }
}

fn warned(report: &Report) -> Ending {
    if report.has_warnings() { Ending::Problem } else { Ending::Fine }
}

/// The second, once the first is fine.
fn ended(printed: Ending, ending: Ending) -> Ending {
    if matches!(printed, Ending::Fine) { ending } else { printed }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        io::stdin().lock().take(MOST_BYTES).read_to_string(&mut text)?;
    } else {
        File::open(file)?.take(MOST_BYTES).read_to_string(&mut text)?;
    }
    Ok(text)
}

fn unreadable(asked: &Migrate, error: &io::Error) -> String {
    let hint = if asked.back && error.kind() == io::ErrorKind::NotFound {
        "; ours goes when the node is given back: that is done, or name Multus's own configuration"
    } else {
        ""
    };
    format!("read {}: {error}{hint}", quote(&asked.config.to_string_lossy()))
}

fn document(kind: &str, asked: &Migrate, content: serde_json::Result<Value>) -> Value {
    let mut document = json!({ "apiVersion": API_VERSION, "kind": kind, "dryRun": asked.dry_run });
    if let (Some(document), Ok(Value::Object(content))) = (document.as_object_mut(), content) {
        document.extend(content);
    }
    document
}

fn print(migrated: &Migrated, asked: &Migrate) -> Ending {
    let document = document("Migration", asked, serde_json::to_value(migrated));
    output::print(&match asked.show.output {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => migrated.report.steps.iter().map(|step| safe(&step.text) + "\n").collect(),
        Format::Table | Format::Wide => told(migrated, asked),
    })
}

fn print_back(report: &Report, asked: &Migrate) -> Ending {
    let document = document("MigrationBack", asked, serde_json::to_value(report));
    output::print(&match asked.show.output {
        Format::Json => output::json(&document),
        Format::Yaml => output::yaml(&document),
        Format::Name => report.steps.iter().map(|step| safe(&step.text) + "\n").collect(),
        Format::Table | Format::Wide => told_steps(report, asked.dry_run),
    })
}

fn told(migrated: &Migrated, asked: &Migrate) -> String {
    let form = match migrated.from {
        Form::Daemon => "configuration of the daemon",
        Form::Generated => "conf that Multus's daemon wrote for the runtime",
        Form::Thin => "conf of thin mode",
    };
    let mut text =
        paint(form, Ink::Strong) + "\n" + &output::table(&["KEY", "HERE", ""], migrated.keys.iter().map(row).collect());
    if migrated.configuration.is_none() && migrated.report.steps.is_empty() {
        return text + "\nnothing is done: correct what is refused\n";
    }
    if !migrated.containers.is_empty() {
        text += "\n";
        let rows = migrated.containers.iter().flat_map(rows).collect();
        text += &output::table(&["POD", "INTERFACE", "NETWORK", "PLUGINS", "BY"], rows);
    }
    text + "\n" + &told_steps(&migrated.report, asked.dry_run)
}

fn row(key: &Key) -> Vec<String> {
    let fate = match key.fate {
        Fate::Kept => "kept",
        Fate::Changed => "changed",
        Fate::Ignored => "ignored",
        Fate::Refused => "REFUSED",
    };
    vec![safe(&key.key), fate.to_owned(), safe(&key.because)]
}

fn rows(container: &Container) -> Vec<Vec<String>> {
    let pod = container.pod.clone().unwrap_or_else(|| container.container.clone());
    let gone = if container.alive { "" } else { " (gone)" };
    let row = |interface: &migrate::Interface| {
        let cells = [pod.clone() + gone, interface.interface.clone(), interface.network.clone()];
        let mut row: Vec<String> = cells.iter().map(|cell| safe(cell)).collect();
        row.extend([safe(&interface.plugins.join(",")), container.by.to_owned()]);
        row
    };
    container.interfaces.iter().map(row).collect()
}
