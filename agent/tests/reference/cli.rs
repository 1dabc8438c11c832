//! `cli.md`: every command and option, from the tree that is parsed.

use std::fmt::Write as _;

use clap::{Arg, Command};
use multus_agent::cli::help;

use crate::block::{page, table};

/// Options that are described once for all commands.
const COMMON: [&str; 5] = ["help", "version", "socket", "output", "no_color"];

#[test]
fn the_command_reference_says_every_command_and_option() {
    let mut tree = help::tree();
    tree.build();
    let mut commands = String::new();
    for command in shown(&tree) {
        describe(command, &mut commands);
    }
    page("cli.md", &[("summary", summary(&tree)), ("commands", commands)]);
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn text(styled: Option<&clap::builder::StyledStr>) -> String {
    // A bar would end the cell of a table.
    styled.map(ToString::to_string).unwrap_or_default().replace('|', "\\|")
}

fn summary(tree: &Command) -> String {
    let mut rows = Vec::new();
    for (group, names) in help::GROUPS {
        let mut title = group.to_owned();
        for command in names.iter().filter_map(|name| shown(tree).find(|command| command.get_name() == *name)) {
            let anchor = anchor(command);
            let name = format!("[`{}`](#{anchor})", command.get_name());
            rows.push(vec![std::mem::take(&mut title), name, text(command.get_about())]);
        }
    }
    table(&["", "command", "what it does"], rows)
}

/// The anchor that a forge makes of the title.
fn anchor(command: &Command) -> String {
    command.get_bin_name().unwrap_or(command.get_name()).replace(' ', "-")
}

fn describe(command: &Command, out: &mut String) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let about = text(command.get_long_about().or(command.get_about()));
    let _ = write!(out, "### {name}\n\n{about}.\n\n");
    if shown(command).next().is_some() {
        shown(command).for_each(|command| describe(command, out));
        return;
    }
    let usage = command.clone().render_usage().to_string();
    let _ = write!(out, "```text\n{}\n```\n\n", usage.trim_start_matches("Usage:").trim());
    let arguments: Vec<_> =
        command.get_arguments().filter(|a| !COMMON.contains(&a.get_id().as_str()) && !a.is_hide_set()).collect();
    if !arguments.is_empty() {
        out.push_str(&table(&["option", "default", "meaning"], arguments.into_iter().map(row)));
        out.push('\n');
    }
    if let Some(examples) = command.get_after_long_help() {
        let examples = examples.to_string();
        let examples: Vec<_> = examples
            .lines()
            .filter(|line| *line != "Examples:")
            .map(|line| line.strip_prefix("  ").unwrap_or(line))
            .collect();
        let _ = write!(out, "```console\n{}\n```\n\n", examples.join("\n").trim());
    }
}

fn row(argument: &Arg) -> Vec<String> {
    let values = argument.get_value_names().unwrap_or_default().join(" ");
    let flag = match (argument.get_short(), argument.get_long()) {
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (None, Some(long)) => format!("--{long}"),
        _ => String::new(),
    };
    let takes = argument.get_action().takes_values();
    let name = match (flag.is_empty(), takes) {
        (true, _) => values,
        (false, true) => format!("{flag} {values}"),
        (false, false) => flag,
    };
    let default: Vec<_> =
        argument.get_default_values().iter().map(|value| format!("`{}`", value.to_string_lossy())).collect();
    let mut meaning = text(argument.get_help());
    let possible: Vec<_> = argument
        .get_possible_values()
        .into_iter()
        .filter(|value| !value.is_hide_set() && takes)
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !possible.is_empty() {
        meaning = format!("{meaning}: {}", possible.join(", "));
    }
    if let Some(variable) = argument.get_env() {
        let _ = write!(meaning, " (environment: `{}`)", variable.to_string_lossy());
    }
    vec![format!("`{name}`"), if takes { default.join(", ") } else { String::new() }, meaning]
}
