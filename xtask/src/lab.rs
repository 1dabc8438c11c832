//! How the lab's own programs are started: the demo and the bench. What they do is theirs.

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

fn start(program: &str, profile: &[&str], arguments: &[String]) -> Outcome {
    if !is_root() {
        return Err(format!(
            "makes network namespaces and needs root: sudo -E env PATH=\"$PATH\" cargo xtask {program}"
        ));
    }
    setup::run(&[])?;
    programs::build(&[])?;
    let command = &mut cargo();
    command.args(["run", "--quiet", "--locked", "--package=multus-tests", "--bin", program]).args(profile);
    run(command.arg("--").args(arguments).env("MULTUS_BIN_DIR", programs::folder()?))
}
