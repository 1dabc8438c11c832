//! The operator's commands: each asks the running agent over its socket and prints what it says.
//!
//! Never reads kernel state itself. Exit codes: 0 fine, 1 problem found, 2 usage, 3 agent not reachable, 4 timed out.

pub mod check;
pub mod explain;
pub mod get;
pub mod lint;
pub mod output;
pub mod pcapng;
pub mod query;
pub mod relay;
pub mod status;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Node agent of multus-ebpf: more network interfaces for pods, and eBPF on them.
#[derive(Debug, Parser)]
#[command(name = "multus-agent", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent on this node.
    Run {
        /// The daemon's configuration (JSON, the keys of Multus and ours).
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say how the agent is, worst subsystem first; exit code 1 if something is wrong.
    Status {
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
        /// One line only.
        #[arg(long)]
        brief: bool,
    },
    /// List what the agent knows.
    Get {
        /// What to list.
        what: get::What,
        /// Where the agent is.
        #[command(flatten)]
        agent: Agent,
        /// How to print it.
        #[command(flatten)]
        show: Show,
    },
    /// Check this node and say what is wrong with it and what to do; exit code 1 for errors, 3 without an agent.
    #[command(
        after_long_help = "Examples:\n  multus-agent check\n  multus-agent check --pre\n  multus-agent check --category networks,ipam -o short\n  multus-agent check --wait 30s\n\nEvery check is explained in docs/reference/checks.md."
    )]
    Check {
        /// What to check.
        #[command(flatten)]
        asked: check::Asked,
    },
    /// Say what would be attached to a pod, why, and what an ADD would be refused with.
    Explain {
        /// Whose networks.
        #[command(subcommand)]
        what: explain::What,
    },
    /// Find what is wrong with manifests of pods, workloads and networks, without an agent; exit code 1 if an ADD would fail.
    #[command(
        after_long_help = "Examples:\n  multus-agent lint manifests/\n  multus-agent lint --config daemon-config.json --partial web.yaml\n  kubectl get net-attach-def -A -o yaml | multus-agent lint -\n\nEvery finding has a stable code, explained in docs/reference/lint.md."
    )]
    Lint {
        /// The manifests.
        #[command(flatten)]
        files: explain::Files,
        /// Print for each pod what would be attached, too.
        #[arg(long)]
        plan: bool,
    },
    /// Look at the relay at work.
    Relay {
        /// In which way.
        #[command(subcommand)]
        what: relay::What,
    },
}

/// Where the agent is.
#[derive(Debug, Args)]
pub struct Agent {
    /// The agent's socket.
    #[arg(long, env = "MULTUS_SOCKET", value_name = "PATH", default_value = "/run/multus/multus.sock")]
    pub socket: PathBuf,
}

/// How documents are printed.
#[derive(Debug, Args)]
pub struct Show {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = output::Format::Table)]
    pub output: output::Format,
}

/// How a command ended.
#[derive(Debug)]
pub enum Ending {
    /// Exit code 0.
    Fine,
    /// Exit code 1: what was asked for was told, and it is not well.
    Problem,
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
            Self::NotReachable(text) => (3, Some(text)),
            Self::TimedOut(text) => (4, Some(text)),
        };
        if let Some(text) = text {
            output::complain(&text);
        }
        ExitCode::from(code)
    }
}
