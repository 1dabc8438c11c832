//! What is wrong with a node, judged from facts: the list of checks, and what each makes of the facts.
//!
//! Checks are data: category, name, description, how bad a failure is, whether waiting may help, and a function of the
//! facts. Nothing here looks at anything; `ops::checks` does.

pub mod facts;
mod judges;
mod list;

use serde::Serialize;

pub use facts::Facts;
pub use list::CHECKS;

/// What belongs together; in the order in which one looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "docs/reference/checks.md describes them")]
pub enum Category {
    Agent,
    Kernel,
    Privileges,
    CniInstall,
    PrimaryCni,
    ApiAccess,
    Networks,
    Parents,
    Ipam,
    PodState,
    Relay,
    Datapath,
    Resources,
    Versions,
    Leftovers,
}

impl Category {
    /// All of them, in order.
    pub const ALL: [Self; 15] = [
        Self::Agent,
        Self::Kernel,
        Self::Privileges,
        Self::CniInstall,
        Self::PrimaryCni,
        Self::ApiAccess,
        Self::Networks,
        Self::Parents,
        Self::Ipam,
        Self::PodState,
        Self::Relay,
        Self::Datapath,
        Self::Resources,
        Self::Versions,
        Self::Leftovers,
    ];

    /// As it is written on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Kernel => "kernel",
            Self::Privileges => "privileges",
            Self::CniInstall => "cni-install",
            Self::PrimaryCni => "primary-cni",
            Self::ApiAccess => "api-access",
            Self::Networks => "networks",
            Self::Parents => "parents",
            Self::Ipam => "ipam",
            Self::PodState => "pod-state",
            Self::Relay => "relay",
            Self::Datapath => "datapath",
            Self::Resources => "resources",
            Self::Versions => "versions",
            Self::Leftovers => "leftovers",
        }
    }

    /// The category of that name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.as_str() == name)
    }
}

/// How bad a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works, but look at it.
    Warning,
    /// Pods fail, or will.
    Error,
}

/// One check.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Where it belongs.
    pub category: Category,
    /// Its name, and the anchor in docs/reference/checks.md.
    pub name: &'static str,
    /// What is the case when it succeeds.
    pub about: &'static str,
    /// How bad it is when it fails.
    pub severity: Severity,
    /// May it succeed soon without anybody's doing?
    pub may_pass: bool,
    /// Judges.
    pub judge: fn(&Facts) -> Verdict,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be; what was seen, or nothing more to say.
    Fine(String),
    /// It cannot be told from here, or does not matter here: why.
    Skipped(&'static str),
    /// It is not: everything that is wrong.
    Wrong(Vec<Problem>),
}

/// One thing that is wrong: the cause with its names, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub cause: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into() }
    }
}

impl Verdict {
    fn fine() -> Self {
        Self::Fine(String::new())
    }

    /// Wrong, if there are problems.
    fn of(problems: Vec<Problem>) -> Self {
        if problems.is_empty() { Self::fine() } else { Self::Wrong(problems) }
    }

    fn wrong(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Wrong(vec![Problem::new(cause, remedy)])
    }
}

/// Every check of `categories` (all of them, where none is named), judged.
pub fn judge<'a>(facts: &'a Facts, categories: &'a [Category]) -> impl Iterator<Item = (&'static Check, Verdict)> + 'a {
    let is_asked = |check: &&Check| categories.is_empty() || categories.contains(&check.category);
    CHECKS.iter().filter(is_asked).map(|check| (check, (check.judge)(facts)))
}
