//! `top`: what goes on right now: rates and percentiles between two looks, as a table that stays in its place.

mod rates;
mod screen;

use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::output::{self, Format};
use crate::cli::{Agent, Ending, query};
use rates::Table;
use screen::Screen;

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Interfaces of pods.
    Attachments,
    /// Networks, all their interfaces together.
    Networks,
    /// Discovery frames, by what became of them.
    Relay,
    /// Plugins: calls, percentiles, failures.
    Delegates,
}

/// How it is looked at.
#[derive(Debug, Args)]
pub struct Look {
    /// Time between two looks, such as 500ms or 5s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::time)]
    interval: Duration,
    /// End after so many tables
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// One table, as with -n 1
    #[arg(long, conflicts_with = "count")]
    once: bool,
    /// The column to sort by, by its head in small letters; numbers from the highest
    #[arg(long, value_name = "COLUMN")]
    sort: Option<String>,
}

/// The shortest time between two looks: counters are not read faster than that by the agent of a large node.
const SHORTEST: Duration = Duration::from_millis(100);

impl What {
    fn path(self) -> &'static str {
        match self {
            Self::Attachments | Self::Networks => "/v1/attachments",
            Self::Relay => "/v1/relay",
            Self::Delegates => "/v1/delegates",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Attachments => "attachments",
            Self::Networks => "networks",
            Self::Relay => "relay",
            Self::Delegates => "delegates",
        }
    }

    /// What happened from one document to the next.
    fn table(self, before: &Value, after: &Value, seconds: f64) -> Table {
        match self {
            Self::Attachments => rates::attachments(before, after, seconds),
            Self::Networks => rates::networks(before, after, seconds),
            Self::Relay => rates::relay(before, after, seconds),
            Self::Delegates => rates::delegates(before, after, seconds),
        }
    }
}

/// Looks until told to stop.
pub fn top(agent: &Agent, what: What, format: Format, look: &Look) -> Ending {
    let heads = rates::heads(what.name());
    let sort =
        look.sort.as_ref().map(|wanted| (wanted, heads.iter().position(|head| head.eq_ignore_ascii_case(wanted))));
    if let Some((wanted, None)) = sort {
        let (wanted, heads) = (output::safe(wanted), heads.join(", ").to_lowercase());
        return Ending::Usage(format!("--sort {wanted}: no such column of {}; there are {heads}", what.name()));
    }
    let sort = sort.and_then(|(_, at)| at);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Ending::Failed(format!("prepare to be interrupted: {error}")),
    };
    runtime.block_on(watch(agent, what, format, look, sort)).unwrap_or_else(|ending| ending)
}

async fn watch(agent: &Agent, what: What, format: Format, look: &Look, sort: Option<usize>) -> Result<Ending, Ending> {
    let frames = if look.once { 1 } else { look.count.unwrap_or(u64::MAX) };
    let interval = look.interval.max(SHORTEST);
    let ask = || query::document(&agent.socket, what.path()).map(|document| (document, Instant::now()));
    let (mut before, mut when) = ask()?;
    // Only what a person watches stays in its place.
    let mut screen = Screen::begin(format == Format::Table && frames > 1);
    for _ in 0..frames {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = screen::interrupted() => break,
        }
        let (after, now) = ask()?;
        let seconds = now.saturating_duration_since(when).as_secs_f64();
        let mut table = what.table(&before, &after, seconds);
        table.sort(sort);
        let frame = match format {
            Format::Json => output::plain(&document(what, seconds, &table).to_string()) + "\n",
            Format::Yaml => "---\n".to_owned() + &output::yaml(&document(what, seconds, &table)),
            _ => {
                let sorted = table.sorted_by().to_lowercase();
                format!("{}, {seconds:.1} s, by {sorted}\n{}", what.name(), table.text())
            }
        };
        if !screen.show(&frame)? {
            break;
        }
        (before, when) = (after, now);
    }
    Ok(Ending::Fine)
}

fn document(what: What, seconds: f64, table: &Table) -> Value {
    json!({
        "apiVersion": "multus-ebpf.io/v1", "kind": "Top", "what": what.name(), "seconds": seconds, "items": table.items(),
    })
}
