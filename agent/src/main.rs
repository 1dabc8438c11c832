//! The program: a CNI plugin when a runtime starts it; else it parses arguments, and runs the agent or one of the
//! operator's commands.

use std::process::ExitCode;

use multus_agent::cli::{self, Cli, Command};
use multus_agent::{daemon, thin};

fn main() -> ExitCode {
    if thin::is_asked() {
        return thin::run();
    }
    let cli = Cli::read();
    cli::output::colours(cli.no_color);
    match cli.command {
        Command::Run { config } => match daemon::run(&config) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                cli::output::complain(&error.to_string());
                ExitCode::FAILURE
            }
        },
        command => command.perform().exit(),
    }
}
