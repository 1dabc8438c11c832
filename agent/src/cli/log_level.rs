//! `log-level`: how much the running agent logs, and more of it for a while.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::output::{self, Format, cell, safe};
use crate::cli::{Agent, Ending, Show, query, time};

const PATH: &str = "/v1/log-level";

/// What to do about it.
#[derive(Debug, Subcommand)]
pub enum What {
    /// Say the level
    Get {
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
    /// Turn the level; it goes back to the configured one by itself
    Set {
        /// The level
        level: Level,
        /// For how long, at most 24h
        #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = time)]
        long: Duration,
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
}

/// The words of `logLevel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Only defects of the agent itself.
    Panic,
    /// Errors and warnings.
    Error,
    /// What is done.
    Verbose,
    /// Everything.
    Debug,
}

/// Says or turns the level.
pub fn log_level(what: &What) -> Ending {
    let (answer, show) = match what {
        What::Get { agent, show } => (query::document(&agent.socket, PATH), show),
        What::Set { level, long, agent, show } => {
            let word = level.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            // Less than a second is a second.
            let order = json!({"level": word, "seconds": long.as_secs().max(1)});
            (query::order(&agent.socket, PATH, &order), show)
        }
    };
    match answer {
        Ok(document) => output::print(&text(&document, show.output)),
        Err(ending) => ending,
    }
}

fn text(document: &Value, format: Format) -> String {
    let level = safe(&cell(document, "/level"));
    match format {
        Format::Json => output::json(document),
        Format::Yaml => output::yaml(document),
        Format::Name => level + "\n",
        Format::Table | Format::Wide => match document["revertsIn"].as_u64() {
            Some(left) => format!("{level}; back to {} in {left} s\n", safe(&cell(document, "/configured"))),
            None => level + "\n",
        },
    }
}
