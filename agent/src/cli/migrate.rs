//! `migrate`: a node goes over from Multus while its pods run, and back.
//!
//! Here are options and words; what is done, and in which order, is `ops::install::migrate`'s.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::Ending;
use super::install::drain_agent;
use super::node::{Node, shim_beside_us};
use super::output::{self, Ink, paint, safe};
use crate::fault::quote;
use crate::ops::install::migrate::{self, Asked, Container, Fate, Form, Key, Migrated, Migration};
use crate::ops::install::{Report, is_all_seen};

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

/// Most containers that are gone and are shown in a table; a node may have thousands.
const MOST_GONE: usize = 20;

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
    /// The node itself.
    #[command(flatten)]
    node: Node,
}

/// Does it.
pub fn migrate(asked: &Migrate) -> Ending {
    let text = match read(&asked.config) {
        Ok(text) => text,
        Err(error) => return Ending::Failed(unreadable(asked, &error)),
    };
    let is_piped = asked.config == Path::new("-");
    if is_piped && asked.to.is_none() && !asked.node.dry_run && !asked.back {
        return Ending::Usage("--config - has no folder beside which ours could be written: add --to FILE".to_owned());
    }
    let node = Asked {
        root: asked.node.root.clone(),
        file: asked.config.clone(),
        to: asked.to.clone(),
        wishes: asked.node.wishes(),
        dry_run: asked.node.dry_run,
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
    let shim = asked.shim.clone().unwrap_or_else(shim_beside_us);
    match migrate::forth(&migration, &shim) {
        Ok(migrated) => ended(print(&migrated, asked), warned(&migrated.report)),
        Err(error) => Ending::Failed(error.to_string()),
    }
}

fn back(migration: &Migration, asked: &Migrate) -> Ending {
    if let Err(error) = is_all_seen(migration.site()) {
        return Ending::Failed(error.to_string());
    }
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

fn print(migrated: &Migrated, asked: &Migrate) -> Ending {
    asked.node.print(("Migration", migrated), &migrated.report.steps, || told(migrated, asked))
}

fn print_back(report: &Report, asked: &Migrate) -> Ending {
    asked.node.print(("MigrationBack", report), &report.steps, || asked.node.told(report))
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
        let mut room = MOST_GONE;
        let mut is_shown =
            |container: &&Container| container.alive || room.checked_sub(1).map(|less| room = less).is_some();
        let shown: Vec<&Container> = migrated.containers.iter().filter(|container| is_shown(container)).collect();
        let more = migrated.containers.len() - shown.len();
        text += &output::table(
            &["POD", "INTERFACE", "NETWORK", "PLUGINS", "BY"],
            shown.into_iter().flat_map(rows).collect(),
        );
        if more > 0 {
            let _ = writeln!(text, "… and {more} more that are gone: -o json has all");
        }
    }
    text + "\n" + &asked.node.told(&migrated.report)
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
