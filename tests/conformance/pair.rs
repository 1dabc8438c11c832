//! Which two programs are judged, and in which dialect the daemon wants to be configured and started.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::OnceLock;

use lab::agent;

static PAIR: OnceLock<Pair> = OnceLock::new();

/// How a daemon is started, and which settings it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// `AGENT run --config FILE`; upstream's settings and a few of our own.
    Ours,
    /// `DAEMON -config FILE`; upstream's settings alone.
    Multus,
}

impl FromStr for Flavour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ours" => Ok(Self::Ours),
            "multus" => Ok(Self::Multus),
            _ => Err(format!("unknown flavour {text:?}; known: ours, multus")),
        }
    }
}

/// The CNI plugin and its daemon.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) shim: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) flavour: Flavour,
}

impl Pair {
    /// The two programs of this project.
    pub(crate) fn ours() -> Self {
        Self { shim: agent::program("multus-shim"), agent: agent::program("multus-agent"), flavour: Flavour::Ours }
    }

    /// Why it cannot be judged, or `None` when both programs are there.
    pub(crate) fn missing(&self) -> Option<String> {
        let lost = [&self.shim, &self.agent].into_iter().find(|program| !program.is_file())?;
        Some(format!("no program {}: `cargo xtask build` makes ours, --shim and --agent name others", lost.display()))
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} with {}", self.shim.display(), self.agent.display())
    }
}

/// Says once which pair is judged.
pub(crate) fn set(pair: Pair) {
    drop(PAIR.set(pair));
}

/// The pair that is judged.
pub(crate) fn judged() -> &'static Pair {
    PAIR.get().expect("the pair is set before any clause runs")
}

/// True when the pair that is judged wants upstream's way.
pub(crate) fn is_multus() -> bool {
    judged().flavour == Flavour::Multus
}
