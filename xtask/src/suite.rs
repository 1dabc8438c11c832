//! Everything CI runs, in order, with the time each stage took and how many tests of each kind passed.
//!
//! Tests run in the development profile: overflow checks stay on, and the check artefacts of clippy and the build
//! scripts are shared. Only the two programs are compiled with optimisation, once.

mod tally;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::project::{cargo, is_root, root, text};
use crate::{Outcome, lab, lint, only, programs, setup};
use tally::Tally;

/// One kind of test: what it is called in the totals, and what cargo is asked for.
struct Kind {
    name: &'static str,
    cargo: &'static [&'static str],
    /// Where such tests live; a kind that has none yet is left out.
    folder: &'static str,
}

const UNIT: [Kind; 2] = [
    Kind { name: "unit", cargo: &["--workspace", "--lib", "--bins"], folder: "agent/src" },
    Kind { name: "doc", cargo: &["--workspace", "--doc"], folder: "agent/src" },
];

/// These make namespaces, load programs into the kernel and start the built agent.
const SYSTEM: [Kind; 2] = [
    Kind { name: "kernel", cargo: &["--package=multus-agent", "--test", "*"], folder: "agent/tests" },
    Kind { name: "integration", cargo: &["--package=multus-tests", "--test", "it"], folder: "tests/it" },
];

/// The task `test`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    only(arguments, &["--fast"])?;
    let mut report = Report::default();
    let outcome = if arguments.is_empty() { everything(&mut report) } else { fast(&mut report) };
    report.print();
    outcome?;
    report.verdict()
}

fn fast(report: &mut Report) -> Outcome {
    report.tests(&UNIT)
}

fn everything(report: &mut Report) -> Outcome {
    if !is_root() {
        return Err("the integration tests need root: sudo -E env PATH=\"$PATH\" cargo xtask test \
                    (without root: cargo xtask test --fast)"
            .into());
    }
    report.stage("setup", || setup::run(&[]))?;
    report.stage("build", || programs::build(&[]))?;
    report.stage("lint", lint::run_all)?;
    report.tests(&UNIT)?;
    report.tests(&SYSTEM)?;
    report.judge();
    Ok(())
}

#[derive(Default)]
struct Report {
    stages: Vec<(&'static str, Duration)>,
    tallies: Vec<(&'static str, Tally)>,
    failed: Vec<&'static str>,
}

impl Report {
    /// Runs one stage and remembers its time, also when it fails.
    fn stage(&mut self, name: &'static str, work: impl FnOnce() -> Outcome) -> Outcome {
        println!("\n== {name}");
        let start = Instant::now();
        let outcome = work();
        self.stages.push((name, start.elapsed()));
        outcome
    }

    /// Runs every kind; a failed test does not keep the next kind from running, a failed compilation does.
    fn tests(&mut self, kinds: &[Kind]) -> Outcome {
        for kind in kinds.iter().filter(|kind| root().join(kind.folder).is_dir()) {
            let mut tally = Tally::default();
            let outcome = self.stage(kind.name, || test(kind, &mut tally));
            if tally.results == 0 {
                outcome.clone()?;
            }
            // A test program that died has no result line, so cargo's own word decides.
            if outcome.is_err() {
                self.failed.push(kind.name);
            }
            self.tallies.push((kind.name, tally));
        }
        Ok(())
    }

    /// Runs the conformance suite against our programs; a clause that does not hold fails the run like a test.
    fn judge(&mut self) {
        const NAME: &str = "conformance";
        if self.stage(NAME, || lab::conformance(&[])).is_err() {
            self.failed.push(NAME);
        }
    }

    fn print(&self) {
        println!("\n== totals");
        for (name, time) in &self.stages {
            let tally = self.tallies.iter().find(|(kind, _)| kind == name);
            let tests = tally.map(|(_, tally)| tally.to_string()).unwrap_or_default();
            println!("{name:<12} {:>7.1} s  {tests}", time.as_secs_f64());
        }
        let time: Duration = self.stages.iter().map(|(_, time)| *time).sum();
        println!("{:<12} {:>7.1} s", "all", time.as_secs_f64());
        for (kind, tally) in &self.tallies {
            for reason in &tally.skipped {
                println!("{kind}: {reason}");
            }
        }
    }

    fn verdict(&self) -> Outcome {
        if self.failed.is_empty() { Ok(()) } else { Err(format!("tests failed: {}", self.failed.join(", "))) }
    }
}

/// Passes cargo's own lines through while counting them.
fn test(kind: &Kind, tally: &mut Tally) -> Outcome {
    let command: &mut Command = &mut cargo();
    command.args(["test", "--locked", "--no-fail-fast"]).args(kind.cargo).args(["--", "--show-output"]);
    command.env("MULTUS_BIN_DIR", programs::folder()?).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("run {}: {error}", text(command)))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            if tally.read(&String::from_utf8_lossy(&line)) {
                let mut out = std::io::stdout().lock();
                // A reader that went away must not end the tests half-way: they clean up after themselves.
                let _ = out.write_all(&line).and_then(|()| out.write_all(b"\n"));
            }
        }
    }
    let status = child.wait().map_err(|error| format!("wait for {}: {error}", text(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed: {status}", text(command))) }
}
