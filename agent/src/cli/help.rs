//! The help that people read: the commands in groups, in the order in which they are looked for.

use std::fmt::Write as _;

use clap::builder::styling::Style;
use clap::{ColorChoice, Command, CommandFactory};

use super::Cli;

/// The commands by what one wants; one that is in no group is shown last.
pub const GROUPS: [(&str, &[&str]); 5] = [
    ("Is everything all right?", &["status", "check", "get", "describe"]),
    ("Why does a pod not get its network?", &["explain", "lint", "trace"]),
    ("What is on the wire?", &["top", "relay", "capture"]),
    ("The agent itself", &["config", "log-level", "sysdump", "version"]),
    ("On a node", &["run", "install", "migrate", "uninstall", "drain", "completion", "man"]),
];

/// The tree of commands without what a terminal needs.
pub fn plain_tree() -> Command {
    Cli::command()
}

/// The whole tree of commands, as it is parsed, completed and documented.
pub fn tree() -> Command {
    let tree = plain_tree();
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{}{}\n{{options}}{{after-help}}",
        groups(&tree),
        title("Options")
    );
    tree.help_template(template)
}

/// The same for a program with these arguments: whoever refuses colours gets a help without, too.
pub fn tree_for(mut arguments: impl Iterator<Item = std::ffi::OsString>) -> Command {
    let refused = arguments.any(|argument| argument == "--no-color");
    tree().color(if refused { ColorChoice::Never } else { ColorChoice::Auto })
}

fn groups(tree: &Command) -> String {
    let width = tree.get_subcommands().map(|command| command.get_name().len()).max().unwrap_or(0);
    let mut text = String::new();
    let is_grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others: Vec<_> =
        tree.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).filter(|n| !is_grouped(n)).collect();
    for (heading, names) in GROUPS.iter().copied().chain([("Others", others.as_slice())]) {
        let commands: Vec<_> = names.iter().filter_map(|name| tree.find_subcommand(name)).collect();
        if commands.is_empty() {
            continue;
        }
        let _infallible = writeln!(text, "{}", title(heading));
        for command in commands {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let _infallible = writeln!(text, "  {:width$}  {about}", command.get_name());
        }
        text.push('\n');
    }
    text
}

fn title(text: &str) -> String {
    let style = Style::new().bold();
    format!("{style}{text}:{style:#}").replace("?:", "?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group_and_says_what_it_does() {
        let mut tree = tree();
        tree.clone().debug_assert();
        let help = tree.render_help().to_string();
        assert!(!help.contains("Others:"), "give each command a group:\n{help}");
        for command in tree.get_subcommands_mut() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            assert!((12..90).contains(&about.len()) && !about.ends_with('.'), "{}: {about}", command.get_name());
            let name = command.get_name().to_owned();
            assert!(help.contains(&format!("  {name} ")), "{name} is missing:\n{help}");
        }
    }
}
