//! Every command that a page, an alert, a dashboard or a message of ours tells people to type is there, with what it is
//! told: the sub-command, each option, and each word where only some words fit.

use std::fs;

use clap::{Arg, Command};
use multus_agent::cli::help;

use crate::block::root;
use crate::links::collect;

/// Where people read what to type.
const PLACES: [&str; 8] =
    ["docs", "deploy", "agent/src", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"];
const PROGRAM: &str = "multus-agent ";
/// Made from the commands themselves; the examples in it are those of the code.
const GENERATED: &str = "reference/cli.md";
/// Behind these words the program is spoken of, or its package.
const NO_COMMAND: [&str; 5] = ["the ", "another ", "a ", "-p ", "--package "];

#[test]
fn every_command_that_people_are_told_to_type_is_there() {
    let mut files = Vec::new();
    for place in PLACES {
        collect(&root().join(place), &mut files);
    }
    files.retain(|path| !path.ends_with(GENERATED));
    let tree = help::tree();
    let (mut faults, mut seen) = (Vec::new(), 0);
    for path in &files {
        for (number, line) in fs::read_to_string(path).unwrap().lines().enumerate() {
            for told in commands(line) {
                seen += 1;
                if let Err(fault) = judged(&tree, &told) {
                    faults.push(format!("{}:{}: {told}: {fault}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(seen > 100, "commands are found at all: {seen}");
    assert!(faults.is_empty(), "commands that are not there:\n{}", faults.join("\n"));
}

/// What follows the program's name, to where the command ends: at the end of a code span, a sentence or a pipe.
fn commands(line: &str) -> Vec<String> {
    let follows = |at: usize| &line[at + PROGRAM.len()..];
    let is_word = |at: usize| {
        let before = &line[..at];
        !before.ends_with(|c: char| c.is_alphanumeric() || "-/_".contains(c))
            && !NO_COMMAND.iter().any(|word| before.ends_with(word))
    };
    let starts = line.match_indices(PROGRAM).map(|(at, _)| at).filter(|at| is_word(*at));
    let told = starts.map(|at| follows(at).split(['`', '|', '>', '"', '#', '(', ')', '<']).next().unwrap_or_default());
    told.map(|told| told.split("  ").next().unwrap_or_default().trim_end_matches(['.', ',', ':', ';', '\\']).to_owned())
        .filter(|told| told.starts_with(|c: char| c.is_ascii_lowercase() || c == '-'))
        .collect()
}

/// Follows the words of a command as far as they are ours; prose may go on behind them.
fn judged(tree: &Command, told: &str) -> Result<(), String> {
    let mut words = told.split_whitespace().map(|word| word.trim_end_matches(['.', ',', ':', ';', '…'])).peekable();
    let mut command = tree;
    while let Some(next) = words.peek().and_then(|word| command.find_subcommand(word)) {
        command = next;
        words.next();
    }
    if std::ptr::eq(command, tree) && !words.peek().is_some_and(|word| word.starts_with('-')) {
        return Err("there is no such sub-command".to_owned());
    }
    let mut places = command.get_positionals();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else {
            if let Some(place) = places.next() {
                fits(place, word)?;
            }
            continue;
        };
        let (name, value) = option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value)));
        let is_called = |arg: &&Arg| match name.strip_prefix('-') {
            Some(long) => arg.get_long() == Some(long),
            None => arg.get_short().is_some_and(|short| name == short.to_string()),
        };
        let mut known = command.get_arguments().chain(tree.get_arguments());
        let is_general = ["help", "-help", "h", "-version", "V"].contains(&name);
        match known.find(is_called) {
            Some(arg) if arg.get_action().takes_values() => match value.or_else(|| words.next()) {
                Some(value) => fits(arg, value)?,
                None => return Err(format!("{word} wants a value")),
            },
            Some(_) => {}
            None if is_general => {}
            None => return Err(format!("there is no {word}")),
        }
    }
    Ok(())
}

/// Only where some words alone fit; `WORD` in capitals stands for one of them.
fn fits(arg: &Arg, value: &str) -> Result<(), String> {
    let possible = arg.get_possible_values();
    let is_hole = value.chars().all(|c| c.is_ascii_uppercase());
    let is_one = |word: &str| possible.iter().any(|known| known.matches(word, true));
    if possible.is_empty() || is_hole || value.split(['|', ',']).all(is_one) {
        return Ok(());
    }
    Err(format!("{value} does not fit"))
}

#[test]
fn what_is_not_there_is_found() {
    let tree = help::tree();
    for told in
        ["status --brief", "get attachments -o json", "check --category networks,ipam -o short", "get WHAT", "relay"]
    {
        assert_eq!(judged(&tree, told), Ok(()), "{told}");
    }
    for told in ["statsu", "status --breif", "get pods", "get attachments -o jsonn", "check --wait"] {
        assert!(judged(&tree, told).is_err(), "{told}");
    }
    let line = "`multus-agent get relay`: who; `kubectl exec X -- multus-agent status --brief` and /multus-agent no";
    assert_eq!(commands(line), ["get relay", "status --brief"]);
}
