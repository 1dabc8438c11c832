//! The operator's commands: each asks the running agent over its socket and prints what it says.
//!
//! Never reads kernel state itself. Exit codes: 0 fine, 1 problem found, 2 usage, 3 agent not reachable, 4 timed out.

pub mod capture;
pub mod check;
pub mod config;
pub mod describe;
pub mod drain;
pub mod explain;
pub mod explanation;
pub mod get;
pub mod help;
pub mod install;
pub mod lint;
pub mod listing;
pub mod log_level;
pub mod migrate;
pub mod node;
pub mod output;
pub mod pour;
pub mod query;
pub mod relay;
pub mod sections;
pub mod shell;
pub mod status;
pub mod sysdump;
pub mod top;
pub mod trace;
pub mod version;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, FromArgMatches, Parser, Subcommand};

/// Node agent of multus-ebpf: more network interfaces for pods, and eBPF on them.
#[derive(Debug, Parser)]
#[command(name = "multus-agent", version, arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "Exit codes: 0 fine, 1 problem found, 2 usage, 3 agent not reachable, 4 timed out.")]
pub struct Cli {
    /// No colours, as with the environment's NO_COLOR
    #[arg(long, global = true, help_heading = "Output")]
    pub no_color: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads the program's arguments; help, version and usage errors end the program here.
    pub fn read() -> Self {
        let matches = help::tree_for(std::env::args_os()).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent on this node
    Run {
        /// The daemon's configuration (JSON, the keys of Multus and ours)
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say how the agent is, worst subsystem first; exit code 1 if something is wrong
    #[command(after_long_help = status::EXAMPLES)]
    Status {
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
        /// One line: ok, or the worst with its reason; warnings are no problem then
        #[arg(long)]
        brief: bool,
        /// Look again until all is well; exit code 4 if that takes too long
        #[arg(long)]
        wait: bool,
        /// How long --wait waits, such as 30s or 2m
        #[arg(long, value_name = "TIME", default_value = "60s", value_parser = time, requires = "wait")]
        timeout: Duration,
    },
    /// List what the agent knows: attachments, networks, delegates, programs, refusals and more
    #[command(after_long_help = get::EXAMPLES)]
    Get {
        /// What to list
        what: listing::What,
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
    /// Write one archive with all that is known of this node, without secrets
    #[command(after_long_help = sysdump::EXAMPLES)]
    Sysdump(sysdump::Sysdump),
    /// Write what passes to a pcapng file, with a comment for each frame: who, which way, why
    #[command(after_long_help = capture::EXAMPLES)]
    Capture(capture::Capture),
    /// Check this node: what is wrong with it, and what to do; exit code 3 without an agent
    #[command(after_long_help = check::EXAMPLES)]
    Check {
        /// What to check.
        #[command(flatten)]
        asked: check::Asked,
    },
    /// Say what would be attached to a pod and why, or what its ADD would be refused with
    Explain {
        /// Whose networks.
        #[command(subcommand)]
        what: explain::What,
    },
    /// Find what is wrong with manifests of pods, workloads and networks, without an agent
    #[command(after_long_help = lint::EXAMPLES)]
    Lint {
        /// The manifests.
        #[command(flatten)]
        files: lint::Files,
        /// Print for each pod what would be attached, too
        #[arg(long)]
        plan: bool,
    },
    /// Say all that is known about one attachment, network, parent, service and more
    #[command(after_long_help = describe::EXAMPLES)]
    Describe {
        /// What it is
        what: listing::What,
        /// Its name, as `get -o name` has it; a beginning means all below it, an end is enough if only one has it
        name: String,
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
    /// Put the CNI plugin on this host; the agent writes the runtime's conf
    #[command(after_long_help = install::INSTALL_EXAMPLES)]
    Install {
        /// Which host.
        #[command(flatten)]
        host: install::Host,
        /// The CNI plugin; without it the one beside this program, or the image's
        #[arg(long, value_name = "FILE")]
        shim: Option<PathBuf>,
    },
    /// Take everything off this host again, and put its files back as they were
    #[command(after_long_help = install::UNINSTALL_EXAMPLES)]
    Uninstall(install::Uninstall),
    /// Change this host over from Multus while its pods run, and back
    #[command(after_long_help = migrate::EXAMPLES)]
    Migrate(migrate::Migrate),
    /// Let no new pods in, and answer when nobody is at work any more
    #[command(after_long_help = drain::EXAMPLES)]
    Drain {
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
        /// How long to wait
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
        timeout: Duration,
    },
    /// Show, check and explain the agent's configuration
    #[command(after_long_help = config::EXAMPLES)]
    Config {
        /// What to do with it.
        #[command(subcommand)]
        what: config::What,
    },
    /// Say how much the agent logs, and turn it for a while
    LogLevel {
        /// What to do about it.
        #[command(subcommand)]
        what: log_level::What,
    },
    /// Say this program's version and the running agent's; exit code 1 if they differ
    Version {
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
    /// Print what a shell needs to complete commands
    #[command(after_long_help = shell::COMPLETION_EXAMPLES)]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
        /// Where to put it.
        #[command(flatten)]
        folder: shell::Folder,
    },
    /// Print the manual for man(1), or put its pages into a folder
    #[command(after_long_help = shell::MAN_EXAMPLES)]
    Man {
        /// Where to put it.
        #[command(flatten)]
        folder: shell::Folder,
    },
    /// Show what the last requests did, step by step, and how long each step took
    #[command(after_long_help = trace::EXAMPLES)]
    Trace {
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
        /// Which requests.
        #[command(flatten)]
        wanted: trace::Wanted,
    },
    /// Show live rates and percentiles of interfaces, networks, relay or plugins
    #[command(after_long_help = top::EXAMPLES)]
    Top {
        /// What to look at
        #[arg(default_value = "attachments")]
        what: top::What,
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
        /// How to look.
        #[command(flatten)]
        look: top::Look,
    },
    /// Look at the relay at work
    Relay {
        /// In which way.
        #[command(subcommand)]
        what: relay::What,
    },
}

impl Command {
    /// Does what an operator's command says. `Run` is the daemon's, and not of them.
    pub fn perform(self) -> Ending {
        match self {
            Self::Run { .. } => Ending::Fine,
            Self::Status { agent, show, brief, wait, timeout } => {
                let look = status::Look { format: show.output, brief, patience: wait.then_some(timeout) };
                status::status(&agent.socket, look)
            }
            Self::Install { host, shim } => install::install(&host, shim.as_deref()),
            Self::Uninstall(asked) => install::uninstall(&asked),
            Self::Migrate(asked) => migrate::migrate(&asked),
            Self::Drain { agent, show, timeout } => drain::drain(&agent.socket, timeout, show.output),
            Self::Config { what } => config::config(&what),
            Self::LogLevel { what } => log_level::log_level(&what),
            Self::Version { agent, show } => version::version(&agent.socket, show.output),
            Self::Completion { shell, folder } => shell::completion(shell, &folder),
            Self::Man { folder } => shell::man(&folder),
            Self::Sysdump(asked) => sysdump::sysdump(&asked),
            Self::Capture(asked) => capture::capture(&asked),
            Self::Check { asked } => check::check(&asked),
            Self::Explain { what } => explain::explain(&what),
            Self::Lint { files, plan } => lint::lint(&files, plan),
            Self::Trace { agent, show, wanted } => trace::trace(&agent, show.output, &wanted),
            Self::Top { what, agent, show, look } => top::top(&agent, what, show.output, &look),
            Self::Relay { what } => relay::relay(&what),
            Self::Describe { what, name, agent, show } => describe::describe(&agent.socket, what, &name, show.output),
            Self::Get { what, agent, show } => get::get(&agent.socket, what, show.output),
        }
    }
}

/// The longest time that any command takes: clocks can still add it.
const LONGEST: Duration = Duration::from_hours(24);

/// A time as the configuration writes it.
fn time(text: &str) -> Result<Duration, String> {
    let time = crate::wire::duration(text).filter(|time| *time <= LONGEST);
    time.ok_or_else(|| "write a time such as 500ms, 30s, 2m or 1h, at most 24h".to_owned())
}

/// Where the agent is.
#[derive(Debug, Args)]
pub struct Agent {
    /// The agent's socket
    #[arg(
        long,
        help_heading = "Where the agent is",
        env = "MULTUS_SOCKET",
        value_name = "PATH",
        default_value = "/run/multus/multus.sock"
    )]
    pub socket: PathBuf,
}

/// How documents are printed.
#[derive(Debug, Args)]
pub struct Show {
    /// How to print it
    #[arg(short, long, help_heading = "Output", value_enum, value_name = "FORMAT", default_value_t = output::Format::Table)]
    pub output: output::Format,
}

/// How a command ended.
#[derive(Debug)]
pub enum Ending {
    /// Exit code 0.
    Fine,
    /// Exit code 1: what was asked for was told, and it is not well.
    Problem,
    /// Exit code 2: what was asked for makes no sense.
    Usage(String),
    /// Exit code 3.
    NotReachable(String),
    /// Exit code 4.
    TimedOut(String),
    /// Exit code 1: the command itself failed.
    Failed(String),
}

impl Ending {
    /// Says what went wrong, and becomes the exit code.
    pub fn exit(self) -> ExitCode {
        let (code, text) = match self {
            Self::Fine => (0, None),
            Self::Problem => (1, None),
            Self::Failed(text) => (1, Some(text)),
            Self::Usage(text) => (2, Some(text)),
            Self::NotReachable(text) => (3, Some(text)),
            Self::TimedOut(text) => (4, Some(text)),
        };
        if let Some(text) = text {
            output::complain(&text);
        }
        ExitCode::from(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_long_as_clocks_can_count() {
        assert_eq!((time("90s"), time("24h")), (Ok(Duration::from_secs(90)), Ok(LONGEST)));
        for bad in ["", "5", "25h", "5000000000000000h", "-1s"] {
            assert!(time(bad).is_err_and(|why| why.contains("24h")), "{bad}");
        }
    }
}
