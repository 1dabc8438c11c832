//! What a change must pass before a person reads it: formatting, clippy without warnings, the house rules.

use std::process::Command;

use crate::project::{cargo, root, run};
use crate::{Outcome, only, tidy};

/// Checks everything and changes nothing.
pub(crate) fn run_all() -> Outcome {
    run(cargo().args(["fmt", "--all", "--check"]))?;
    ebpf_format(&["--check"])?;
    run(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    // The shim is the agent's crate without its default feature; what only it compiles is looked at here.
    run(cargo().args(["clippy", "--locked", "--package=multus-agent", "--no-default-features"]).args([
        "--lib",
        "--bin=multus-shim",
        "--",
        "--deny",
        "warnings",
    ]))?;
    tidy::run(&[])
}

/// The task `lint`.
pub(crate) fn run_task(arguments: &[String]) -> Outcome {
    only(arguments, &[])?;
    run_all()
}

/// The task `fmt`.
pub(crate) fn format(arguments: &[String]) -> Outcome {
    only(arguments, &[])?;
    run(cargo().args(["fmt", "--all"]))?;
    ebpf_format(&[])
}

/// The eBPF programs are a workspace of their own, which `cargo fmt --all` does not enter.
fn ebpf_format(arguments: &[&str]) -> Outcome {
    let manifest = root().join("multus-ebpf/Cargo.toml");
    if !manifest.is_file() {
        return Ok(());
    }
    let command: &mut Command = &mut cargo();
    run(command.arg("fmt").arg("--manifest-path").arg(manifest).arg("--").args(arguments))
}
