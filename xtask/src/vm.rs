//! The kernel tests on other kernels: Debian's, each booted in a machine of software, with nothing but the tests in it.
//!
//! Nothing is installed on this machine: packages are unpacked below `target/vm`. Reads no test's mind: what the test
//! program prints and how it ends is the outcome.

mod archive;
mod initramfs;
mod kernel;
mod run;

use std::fs;
use std::path::{Path, PathBuf};

use crate::project::{capture, cargo, target};
use crate::{Outcome, setup};
use kernel::{SERIES, Series};

/// The task `vm`: all kernels, or `--kernel SERIES`; other arguments go to the test program.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (series, rest) = chosen(arguments)?;
    setup::need_for_vm()?;
    let folder = target()?.join("vm");
    fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
    let test = test_program()?;
    let archive = archive::Archive::open(&folder, &series)?;
    let mut failed = Vec::new();
    for series in series {
        let kernel = kernel::get(&archive, series, &folder)?;
        let image = initramfs::make(&kernel, &test, rest, &folder)?;
        println!("\n== {} ({})", series.name, kernel.version);
        match run::boot(&kernel, &image)? {
            run::End::Passed => {}
            end => failed.push(format!("{}: {end}", series.name)),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

/// The kernels named, and the arguments for the test program.
fn chosen(arguments: &[String]) -> Outcome<(Vec<&'static Series>, &[String])> {
    let Some(("--kernel", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) else {
        return Ok((SERIES.iter().collect(), arguments));
    };
    let known = || SERIES.map(|series| series.name).join(", ");
    let (name, rest) = rest.split_first().ok_or_else(|| format!("--kernel wants one of {}", known()))?;
    let series = SERIES.iter().find(|series| series.name == name);
    Ok((vec![series.ok_or_else(|| format!("no kernel {name:?}; known: {}", known()))?], rest))
}

/// Builds the kernel tests and says where they are.
fn test_program() -> Outcome<PathBuf> {
    let build = ["test", "--locked", "--package=multus-agent", "--test=datapath", "--no-run", "--message-format=json"];
    let messages = capture(cargo().args(build))?;
    let key = "\"executable\":\"";
    let program = messages.lines().filter(|line| line.contains("\"name\":\"datapath\"")).find_map(|line| {
        let (_, after) = line.split_once(key)?;
        after.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    program.ok_or_else(|| "cargo named no test program `datapath`".into())
}

/// Writes `bytes`, with the path in what it says when that fails.
fn write(path: &Path, bytes: &[u8]) -> Outcome {
    fs::write(path, bytes).map_err(|error| format!("write {}: {error}", path.display()))
}
