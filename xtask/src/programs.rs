//! What we ship: two static programs in `target/release`, and the limits the shim must keep.
//!
//! A plain `cargo build` cannot link statically, because procedural macros are dynamic libraries. Naming the host as
//! the target keeps the flag away from them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::project::{capture, cargo, cargo_home, root, run, target};
use crate::{Outcome, elf, only};

/// The shim is read from disk for every request of the runtime.
const SHIM_MOST_BYTES: u64 = 1536 * 1024;

/// Every crate that may end up in the shim, or run while it is compiled.
const SHIM_CRATES: [&str; 13] = [
    "itoa",
    "libc",
    "memchr",
    "multus-agent",
    "proc-macro2",
    "quote",
    "serde",
    "serde_core",
    "serde_derive",
    "serde_json",
    "syn",
    "unicode-ident",
    "zmij",
];

/// Builds both programs, checks them and puts them in place.
pub(crate) fn build(arguments: &[String]) -> Outcome {
    only(arguments, &[])?;
    check_shim_crates()?;
    let host = host()?;
    let target = target()?;
    let built = target.join(&host);
    compile(&host, &["--release", "--bin", "multus-agent"])?;
    compile(&host, &["--profile", "shim", "--no-default-features", "--bin", "multus-shim"])?;

    let release = target.join("release");
    let agent = place(&built.join("release/multus-agent"), &release)?;
    let shim = place(&built.join("shim/multus-shim"), &release)?;
    if shim > SHIM_MOST_BYTES {
        return Err(format!("multus-shim has {shim} bytes; it may have {SHIM_MOST_BYTES}"));
    }
    println!("multus-agent  {:>8.2} MiB  static", mebibytes(agent));
    println!("multus-shim   {:>8.2} MiB  static, limit {:.2}", mebibytes(shim), mebibytes(SHIM_MOST_BYTES));
    Ok(())
}

fn compile(host: &str, which: &[&str]) -> Outcome {
    let mut flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    flags.push_str(" -Ctarget-feature=+crt-static");
    // The same sources give the same programs, wherever they lie.
    for (place, name) in [(root(), "/multus-ebpf"), (cargo_home(), "/cargo")] {
        let _ = write!(flags, " --remap-path-prefix={}={name}", place.display());
    }
    let command = &mut cargo();
    command.args(["build", "--locked", "--package", "multus-agent", "--target", host]).args(which);
    run(command.env("RUSTFLAGS", flags.trim()))
}

fn host() -> Outcome<String> {
    let version = capture(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "read `rustc -vV`: no host line in it".into())
}

/// Copies a program that needs no loader into `folder`; a running one keeps its old file. Returns its size.
fn place(program: &Path, folder: &Path) -> Outcome<u64> {
    let shown = program.display();
    let bytes = fs::read(program).map_err(|error| format!("read {shown}: {error}"))?;
    match elf::needs_loader(&bytes) {
        Ok(false) => {}
        Ok(true) => return Err(format!("{shown} is dynamically linked")),
        Err(reason) => return Err(format!("check {shown}: {reason}")),
    }
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let (beside, place) = (folder.join(format!(".{name}.{}", std::process::id())), folder.join(&*name));
    fs::create_dir_all(folder)
        .and_then(|()| fs::copy(program, &beside))
        .and_then(|_| fs::rename(&beside, &place))
        .map_err(|error| format!("put {shown} at {}: {error}", place.display()))?;
    Ok(bytes.len() as u64)
}

fn check_shim_crates() -> Outcome {
    let tree = capture(cargo().args([
        "tree",
        "--locked",
        "--package=multus-agent",
        "--no-default-features",
        "--edges=normal,build",
        "--prefix=none",
        "--format={p}",
    ]))?;
    let strangers = strangers(&tree);
    if strangers.is_empty() { Ok(()) } else { Err(format!("multus-shim may not depend on {}", strangers.join(", "))) }
}

fn strangers(tree: &str) -> Vec<&str> {
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    crates.into_iter().filter(|name| !SHIM_CRATES.contains(name)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "sizes of programs, shown with two decimals")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}

/// The folder where the built programs are.
pub(crate) fn folder() -> Outcome<PathBuf> {
    Ok(target()?.join("release"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_crate_in_the_shim_is_named() {
        assert_eq!(strangers("multus-agent v0.1.0 (path)\nlibc v0.2.1\nlibc v0.2.1 (*)\n"), Vec::<&str>::new());
        assert_eq!(strangers("libc v0.2.1\ntokio v1.0.0\nmio v1.0.0\n"), ["mio", "tokio"]);
    }
}
