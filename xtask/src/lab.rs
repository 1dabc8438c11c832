//! How the lab's own programs are started: the demo, the bench, the conformance suite. What they do is theirs.

use crate::project::{cargo, is_root, run};
use crate::{Outcome, programs, setup};

/// Shows the product at work; `--keep` leaves the node standing.
pub(crate) fn demo(arguments: &[String]) -> Outcome {
    start("demo", &[], arguments)
}

/// Measures; optimised, because a slow instrument measures itself.
pub(crate) fn bench(arguments: &[String]) -> Outcome {
    start("bench", &["--release"], arguments)
}

/// Judges a pair of shim and daemon, by default ours; the suite's own table says how it went.
pub(crate) fn conformance(arguments: &[String]) -> Outcome {
    // Programs given by path need no building of ours.
    let is_foreign = arguments.iter().any(|argument| argument == "--agent" || argument == "--list");
    needs_root("conformance")?;
    if !is_foreign {
        setup::run(&[])?;
        programs::build(&[])?;
    }
    // Its fake plugins are programs of their own beside it.
    run(cargo().args(["build", "--quiet", "--locked", "--package=multus-tests", "--bins"]))?;
    let command = &mut cargo();
    command.args(["run", "--quiet", "--locked", "--package=multus-tests", "--bin=conformance"]);
    run(command.arg("--").args(arguments).env("MULTUS_BIN_DIR", programs::folder()?))
}

fn start(program: &str, profile: &[&str], arguments: &[String]) -> Outcome {
    needs_root(program)?;
    setup::run(&[])?;
    programs::build(&[])?;
    let command = &mut cargo();
    command.args(["run", "--quiet", "--locked", "--package=multus-tests", "--bin", program]).args(profile);
    run(command.arg("--").args(arguments).env("MULTUS_BIN_DIR", programs::folder()?))
}

fn needs_root(task: &str) -> Outcome {
    if is_root() {
        return Ok(());
    }
    Err(format!("makes network namespaces and needs root: sudo -E env PATH=\"$PATH\" cargo xtask {task}"))
}
