//! Does a pair of CNI plugin and daemon do what the CNI specification, Multus's users and common sense demand?
//!
//! Runs every clause against the two programs it is given, in labs of their own, and prints a table: clause, verdict. It
//! judges by what the outside sees (answers, kernel, files that contracts name, the API server), never by a program's own
//! records, so that the same clauses judge any pair of this kind. Without `--shim` and `--agent` it judges ours.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a clause that does not hold panics")]

mod clause;
mod cni_spec;
mod daemon;
mod multus;
mod node;
mod pair;
mod peers;
mod report;
mod socket;

use std::process::ExitCode;

use pair::Pair;

const USAGE: &str =
    "conformance [--shim PATH --agent PATH] [--flavour ours|multus] [--only FILTER] [--jobs N] [--list]";

fn main() -> ExitCode {
    let wanted = match Wanted::read(std::env::args().skip(1)) {
        Ok(wanted) => wanted,
        Err(sentence) => {
            eprintln!("conformance: {sentence}\nusage: {USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut clauses: Vec<_> = [cni_spec::clauses(), multus::clauses(), peers::clauses()].concat();
    clauses.retain(|clause| wanted.only.is_empty() || wanted.only.iter().any(|part| clause.id.contains(part.as_str())));
    if clauses.is_empty() {
        eprintln!("conformance: no clause has {} in its name; --list shows all", wanted.only.join(" or "));
        return ExitCode::from(2);
    }
    if wanted.list {
        for clause in &clauses {
            println!("{:<34} {}", clause.id, clause.says);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = wanted.pair.missing() {
        eprintln!("conformance: {reason}");
        return ExitCode::from(2);
    }
    println!("judging {}\n", wanted.pair);
    pair::set(wanted.pair);
    if report::run(&clauses, wanted.jobs) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the command line asks for.
struct Wanted {
    pair: Pair,
    only: Vec<String>,
    jobs: usize,
    list: bool,
}

impl Wanted {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut wanted = Self { pair: Pair::ours(), only: Vec::new(), jobs: 4, list: false };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} takes a value"));
            match argument.as_str() {
                "--shim" => wanted.pair.shim = value()?.into(),
                "--agent" => wanted.pair.agent = value()?.into(),
                "--flavour" => wanted.pair.flavour = value()?.parse()?,
                "--only" => wanted.only.push(value()?),
                "--jobs" => {
                    wanted.jobs = value()?.parse().map_err(|error| format!("--jobs takes a number: {error}"))?;
                }
                "--list" => wanted.list = true,
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        Ok(wanted)
    }
}
