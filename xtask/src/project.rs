//! Where the project is, and how other programs are started. Knows no task.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Outcome;

/// The folder that holds the workspace.
pub(crate) fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

/// The folder cargo builds into, as its own configuration and environment say.
pub(crate) fn target() -> Outcome<PathBuf> {
    let metadata = capture(cargo().args(["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    // One known key of one known document: a JSON parser would be this crate's only dependency.
    let after = metadata.split_once("\"target_directory\":\"").map(|(_, after)| after);
    match after.and_then(|after| after.split_once('"')) {
        Some((folder, _)) => Ok(PathBuf::from(folder)),
        None => Err("read cargo metadata: no target_directory in it".into()),
    }
}

/// Where cargo keeps the sources of crates.
pub(crate) fn cargo_home() -> PathBuf {
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cargo");
    env::var_os("CARGO_HOME").map_or_else(home, PathBuf::from)
}

/// Cargo in the workspace, with the environment the person started us from.
///
/// `cargo run` adds variables for the package it runs. Build scripts that watch those (ring's does) would otherwise be
/// run again at every change between this cargo and the person's own.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    for (name, _) in env::vars_os() {
        if is_of_the_running_package(&name) {
            command.env_remove(name);
        }
    }
    command
}

fn is_of_the_running_package(name: &OsString) -> bool {
    let Some(name) = name.to_str() else { return false };
    let whole = ["CARGO", "CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"];
    whole.contains(&name) || ["CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|prefix| name.starts_with(prefix))
}

/// Runs a program that speaks for itself; says what was run when it fails.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| format!("run {}: {error}", text(command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed: {status}", text(command))) }
}

/// Runs a program and returns what it printed.
pub(crate) fn capture(command: &mut Command) -> Outcome<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| format!("run {}: {error}", text(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{} failed: {}: {}", text(command), output.status, complaint.trim()))
}

/// The command line as a person would type it.
pub(crate) fn text(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Where `program` is: on PATH, or where system programs live that a person's PATH leaves out.
pub(crate) fn find_program(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Whether we may do what needs root.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}
