//! The program: a CNI plugin when a runtime starts it; else it parses arguments, and runs the agent or one of the
//! operator's commands.

use std::process::ExitCode;

use clap::Parser;
use multus_agent::cli::{self, Cli, Command};
use multus_agent::{daemon, thin};

fn main() -> ExitCode {
    if thin::is_asked() {
        return thin::run();
    }
    match Cli::parse().command {
        Command::Run { config } => match daemon::run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                cli::output::complain(&error.to_string());
                ExitCode::FAILURE
            }
        },
        Command::Status { agent, show, brief } => cli::status::status(&agent.socket, show.output, brief).exit(),
        Command::Check { asked } => cli::check::check(&asked).exit(),
        Command::Explain { what } => cli::explain::explain(&what).exit(),
        Command::Lint { files, plan } => cli::lint::lint(&files, plan).exit(),
        Command::Relay { what } => cli::relay::relay(&what).exit(),
        Command::Get { what, agent, show } => cli::get::get(&agent.socket, what, show.output).exit(),
    }
}
