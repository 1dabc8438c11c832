//! `relay`: the relay at work, frame by frame.

pub mod ping;
pub mod why;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use crate::cli::output::{self, Format, cell};
use crate::cli::{Agent, Ending, Show, capture, query};
use crate::fault::many;

/// Ways to look.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Print what is decided about each frame, until interrupted.
    Watch {
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
        /// Which decisions.
        #[command(flatten)]
        filter: Filter,
        /// End after so many
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Say why a service is, or is not, seen by a pod; exit code 1 if it is not
    #[command(after_long_help = why::EXAMPLES)]
    Why(why::Why),
    /// Ask everybody on a parent one harmless question, and say who answers by which way
    #[command(after_long_help = ping::EXAMPLES)]
    Ping(ping::Ping),
    /// Write the frames with what was decided about each to a pcapng file, as capture --relay does.
    Capture {
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// Which decisions.
        #[command(flatten)]
        filter: Filter,
        /// The file; it is replaced
        #[arg(long, short, value_name = "FILE")]
        write: PathBuf,
        /// End after so many seconds
        #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
        /// End after so many frames
        #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        count: u64,
    },
}

/// Which decisions are shown.
#[derive(Debug, Args)]
pub struct Filter {
    /// Of this parent alone.
    #[arg(long, value_name = "INTERFACE")]
    parent: Option<String>,
    /// Of this protocol alone.
    #[arg(long, value_name = "NAME")]
    protocol: Option<String>,
    /// With this verdict alone.
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// About frames of this pod alone (NAMESPACE/NAME), or of `host`.
    #[arg(long, value_name = "WHO")]
    from: Option<String>,
}

/// What can become of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Verdict {
    /// It was copied to whoever wants it.
    Relayed,
    /// It went where it goes without us.
    Skipped,
}

impl Verdict {
    const fn name(self) -> &'static str {
        match self {
            Self::Relayed => "relayed",
            Self::Skipped => "skipped",
        }
    }
}

/// Looks at the relay.
pub fn relay(what: &What) -> Ending {
    match what {
        What::Watch { agent, show, filter, count } => watch(agent, show.output, filter, count.unwrap_or(u64::MAX)),
        What::Why(asked) => why::why(asked),
        What::Ping(asked) => ping::ping(asked),
        What::Capture { agent, filter, write, seconds, count } => capture(agent, filter, write, *seconds, *count),
    }
}

/// Hands every decision that passes the filter to `take`, until that ends it. Between two decisions it is asked with `None`.
fn follow(agent: &Agent, filter: &Filter, mut take: impl FnMut(Option<&Value>) -> Option<Ending>) -> Ending {
    let mut path = "/v1/relay/events".to_owned();
    loop {
        let document = match query::document(&agent.socket, &path) {
            Ok(document) => document,
            Err(ending) => return ending,
        };
        let number = |key: &str| document.get(key).and_then(Value::as_u64).unwrap_or(0);
        if number("lost") > 0 {
            output::complain(&format!("came too fast and lost: {}", many(number("lost"), "decision")));
        }
        path = format!("/v1/relay/events?since={}", number("next"));
        let items = document.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for item in items.iter().filter(|item| filter.passes(item)) {
            if let Some(ending) = take(Some(item)) {
                return ending;
            }
        }
        if let Some(ending) = take(None) {
            return ending;
        }
    }
}

fn watch(agent: &Agent, format: Format, filter: &Filter, count: u64) -> Ending {
    let mut shown = 0;
    if matches!(format, Format::Table | Format::Wide)
        && let Some(ending) = print(&heads())
    {
        return ending;
    }
    follow(agent, filter, |item| {
        let item = item?;
        let text = match format {
            Format::Json => output::plain(&item.to_string()) + "\n",
            Format::Yaml => "---\n".to_owned() + &output::yaml(item),
            Format::Name => cell(item, "/number") + "\n",
            Format::Table | Format::Wide => row(item),
        };
        shown += 1;
        print(&text).or_else(|| (shown >= count).then_some(Ending::Fine))
    })
}

/// What a line shows, and how wide; the last column has no width.
const COLUMNS: [(&str, usize); 7] =
    [("TIME", 15), ("PARENT", 10), ("PROTOCOL", 11), ("FROM", 28), ("SOURCE", 28), ("DESTINATION", 24), ("VERDICT", 0)];

fn heads() -> String {
    line(&COLUMNS.map(|(head, _)| head.to_owned()))
}

fn row(item: &Value) -> String {
    let day_and_time = cell(item, "/time");
    let time = day_and_time.split_once('T').map_or("", |(_, time)| time.trim_end_matches('Z')).to_owned();
    let [parent, protocol, from, source, destination] =
        ["/parent", "/protocol", "/from", "/source", "/destination"].map(|pointer| cell(item, pointer));
    line(&[time, parent, protocol, from, source, destination, verdict(item)])
}

fn verdict(item: &Value) -> String {
    let (verdict, reason) = (cell(item, "/verdict"), cell(item, "/reason"));
    if reason.is_empty() { verdict } else { format!("{verdict}: {reason}") }
}

fn line(cells: &[String; 7]) -> String {
    let mut text = String::new();
    for (cell, (_, width)) in cells.iter().zip(COLUMNS) {
        let cell = if cell.is_empty() { "-".to_owned() } else { output::safe(cell) };
        let _ = write!(text, "{cell:width$}  ");
    }
    text.trim_end().to_owned() + "\n"
}

/// `None`: it was printed; else whoever read has gone, or it failed.
fn print(text: &str) -> Option<Ending> {
    match output::write(text) {
        Ok(true) => None,
        Ok(false) => Some(Ending::Fine),
        Err(ending) => Some(ending),
    }
}

/// The same as `capture --relay`, with a filter for more.
fn capture(agent: &Agent, filter: &Filter, file: &Path, seconds: u64, count: u64) -> Ending {
    let verdict = filter.verdict.map(|verdict| verdict.name().to_owned());
    let path = query::with(
        "/v1/capture",
        &[
            ("of", Some("relay".to_owned())),
            ("parent", filter.parent.clone()),
            ("protocol", filter.protocol.clone()),
            ("verdict", verdict),
            ("from", filter.from.clone()),
            ("frames", Some(count.to_string())),
            ("for", Some((seconds * 1000).to_string())),
        ],
    );
    capture::write_to(&agent.socket, &path, file, Duration::from_secs(seconds))
}

impl Filter {
    fn passes(&self, item: &Value) -> bool {
        let verdict = self.verdict.map(Verdict::name);
        let is = |pointer: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| cell(item, pointer) == wanted);
        is("/parent", self.parent.as_deref())
            && is("/protocol", self.protocol.as_deref())
            && is("/verdict", verdict)
            && is("/from", self.from.as_deref())
    }
}
