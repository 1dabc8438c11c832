//! `top`: what goes on right now: rates and percentiles between two looks, as a table that stays in its place and follows
//! keys.

mod keys;
mod rates;
mod screen;
mod table;
#[cfg(feature = "tui")]
mod tui;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::output::{self, Format};
use crate::cli::{Agent, Ending, query};
use keys::{Choice, HELP};
use screen::{Frame, Screen};
use table::Table;

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent top                            interfaces of pods, the busiest first
  multus-agent top networks --sort group      networks by their share of multicast and broadcast
  multus-agent top delegates --interval 10s   which plugin is slow right now
  multus-agent top relay --once -o json";

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
    /// In the order in which a key goes through them.
    const ALL: [Self; 4] = [Self::Attachments, Self::Networks, Self::Relay, Self::Delegates];

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
    let ending = runtime.block_on(watch(agent, what, format, look, sort)).unwrap_or_else(|ending| ending);
    // A question that an agent leaves unanswered keeps nobody who wants to go.
    runtime.shutdown_background();
    ending
}

/// A document, and when it came.
type Shot = (Value, Instant);

/// A question that is under way.
type Question = Pin<Box<dyn Future<Output = Result<Shot, Ending>>>>;

/// Asks for a document.
fn ask(agent: &Agent, what: What) -> Question {
    let socket = agent.socket.clone();
    Box::pin(async move {
        let asked = tokio::task::spawn_blocking(move || query::document(&socket, what.path())).await;
        let document = asked.map_err(|error| Ending::Failed(format!("ask the agent: {error}")))??;
        Ok((document, Instant::now()))
    })
}

/// The answer to the question that is under way; without one there is none.
async fn answer(question: &mut Option<Question>) -> Result<Shot, Ending> {
    match question {
        Some(asked) => asked.await,
        None => std::future::pending().await,
    }
}

/// The last two documents of what is looked at.
#[derive(Debug, Default)]
struct Shots {
    before: Option<Shot>,
    after: Option<Shot>,
}

impl Shots {
    fn push(&mut self, shot: Shot) {
        self.before = self.after.replace(shot);
    }

    /// What happened between them, sorted, and in how many seconds.
    fn table(&self, choice: &Choice) -> Option<(Table, f64)> {
        let ((before, then), (after, now)) = (self.before.as_ref()?, self.after.as_ref()?);
        let seconds = now.saturating_duration_since(*then).as_secs_f64();
        let mut table = choice.what.table(before, after, seconds);
        table.sort(choice.sort, choice.reverse);
        Some((table, seconds))
    }
}

async fn watch(agent: &Agent, what: What, format: Format, look: &Look, sort: Option<usize>) -> Result<Ending, Ending> {
    let mut left = if look.once { 1 } else { look.count.unwrap_or(u64::MAX) };
    let interval = look.interval.max(SHORTEST);
    let mut choice = Choice { what, sort, reverse: false, above: 0 };
    let mut shots = Shots::default();
    // Heard all the time, also while the agent is asked: otherwise who ends it in that moment is not heard at all.
    let mut interrupted = std::pin::pin!(screen::interrupted());
    shots.push(tokio::select! {
        first = ask(agent, what) => first?,
        () = &mut interrupted => return Ok(Ending::Fine),
    });
    // Only what a person watches stays in its place.
    let mut screen = Screen::begin(format == Format::Table && left > 1);
    let (mut pressed, mut resized) = (screen.keys(), screen::Resized::hear());
    // Never more than one question is under way, however often the view is changed.
    let (mut question, mut asked) = (None, what);
    let mut due = tokio::time::Instant::now() + interval;
    while left > 0 {
        tokio::select! {
            () = tokio::time::sleep_until(due), if question.is_none() => {
                asked = choice.what;
                question = Some(ask(agent, asked));
                continue;
            }
            shot = answer(&mut question) => {
                question = None;
                let shot = shot?;
                due = tokio::time::Instant::now();
                if asked.path() == choice.what.path() {
                    shots.push(shot);
                    left -= u64::from(shots.before.is_some());
                    due += interval;
                }
            }
            Some(key) = pressed.recv() => {
                let by = shots.table(&choice).map_or(0, |(table, _)| table.by());
                let Some(chosen) = choice.after(key, by) else { break };
                if chosen.what.path() != choice.what.path() {
                    shots = Shots::default();
                    due = tokio::time::Instant::now();
                }
                choice = chosen;
            }
            () = resized.again(), if screen.stays() => {}
            () = &mut interrupted => break,
        }
        if !show(&mut screen, format, &mut choice, &shots)? {
            break;
        }
    }
    Ok(Ending::Fine)
}

/// Shows what there is; false when nobody reads any more.
fn show(screen: &mut Screen, format: Format, choice: &mut Choice, shots: &Shots) -> Result<bool, Ending> {
    let name = choice.what.name();
    let Some((table, seconds)) = shots.table(choice) else {
        return screen.waits(&format!("{name}, the first look takes a moment"), HELP);
    };
    choice.above = choice.above.min(table.len().saturating_sub(1));
    match format {
        Format::Json => screen.say(&(output::plain(&document(choice.what, seconds, &table).to_string()) + "\n")),
        Format::Yaml => screen.say(&("---\n".to_owned() + &output::yaml(&document(choice.what, seconds, &table)))),
        _ => {
            let from = if choice.reverse { ", reversed" } else { "" };
            let title = format!("{name}, {seconds:.1} s, by {}{from}", table.sorted_by().to_lowercase());
            screen.show(&Frame { title, table: &table, above: choice.above, help: HELP })
        }
    }
}

fn document(what: What, seconds: f64, table: &Table) -> Value {
    json!({
        "apiVersion": "multus-ebpf.io/v1", "kind": "Top", "what": what.name(), "seconds": seconds, "items": table.items(),
    })
}
