//! What a bare Debian 12 with rustup needs before it can build and test everything, and how it gets there.
//!
//! Each step looks first and says one line. When everything is there it starts no package manager and takes no time.

pub(crate) mod kubernetes;
mod need;
mod toolchain;

use std::path::Path;
use std::process::Command;

use crate::project::{capture, find_program, is_root, run as start};
use crate::{Outcome, only};
use need::{Need, PROGRAMS, VM};

/// The task `setup`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    only(arguments, &["--check"])?;
    let change = arguments.is_empty();
    rust(change)?;
    let route = toolchain::route();
    packages(&route, change)?;
    route.verify()?;
    linker(&route, change)?;
    kubernetes::libraries(change)?;
    bpffs(change)
}

/// rustup's minimal profile leaves out two programs that `lint` runs.
fn rust(change: bool) -> Outcome {
    let root = capture(Command::new("rustc").args(["--print", "sysroot"]))?;
    let programs = Path::new(root.trim()).join("bin");
    let missing: Vec<&str> = [("cargo-clippy", "clippy"), ("cargo-fmt", "rustfmt")]
        .into_iter()
        .filter(|(program, _)| !programs.join(program).is_file())
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        println!("have        rust with clippy and rustfmt");
        return Ok(());
    }
    let command = format!("rustup component add {}", missing.join(" "));
    if !change || find_program("rustup").is_none() {
        return Err(format!("missing: {}; get them with: {command}", missing.join(", ")));
    }
    println!("installing  {}", missing.join(", "));
    start(Command::new("rustup").args(["component", "add"]).args(&missing))?;
    println!("done        {}", missing.join(", "));
    Ok(())
}

/// What `vm` needs beyond all that.
pub(crate) fn need_for_vm() -> Outcome {
    install(&VM.iter().collect::<Vec<_>>(), true)
}

fn packages(route: &toolchain::Route, change: bool) -> Outcome {
    install(&PROGRAMS.iter().chain(route.needs()).collect::<Vec<_>>(), change)
}

fn install(needs: &[&Need], change: bool) -> Outcome {
    let missing: Vec<&str> = needs.iter().filter(|need| !need.is_met()).map(|need| need.package).collect();
    if missing.is_empty() {
        println!("have        {} packages", needs.len());
        return Ok(());
    }
    let list = missing.join(" ");
    let command = format!("apt-get install --no-install-recommends {list}");
    if !change || !is_root() || find_program("apt-get").is_none() {
        return Err(format!("missing: {list}; as root: {command}"));
    }
    println!("installing  {list}");
    start(apt().args(["--quiet=2", "update"]))?;
    start(apt().args(["--quiet=2", "--yes", "--no-install-recommends", "install"]).args(&missing))?;
    if let Some(need) = needs.iter().find(|need| !need.is_met()) {
        return Err(format!("installed {}, and still found none of {:?}", need.package, need.found_as));
    }
    println!("done        {list}");
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    // Nobody may be there to answer a question.
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["--option", "Dpkg::Use-Pty=0"]);
    command
}

fn linker(route: &toolchain::Route, change: bool) -> Outcome {
    let wanted = toolchain::wanted_linker();
    if route.has_linker() {
        println!("have        bpf-linker");
        return Ok(());
    }
    if !change {
        return Err(format!("missing: {wanted}; get it with: cargo xtask setup"));
    }
    println!("installing  {wanted} (compiles for some minutes)");
    start(&mut toolchain::install_linker())?;
    // A folder that is not on PATH would make the build fail later, and with worse words.
    match toolchain::installed_linker() {
        Some(version) if version == wanted => println!("done        {wanted}"),
        other => return Err(format!("installed {wanted}, but PATH finds {}", other.as_deref().unwrap_or("none"))),
    }
    Ok(())
}

/// Where the datapath pins its maps. Only tests and the demo need it, so it is no failure without root, or in a
/// container that may not mount.
fn bpffs(change: bool) -> Outcome {
    const PLACE: &str = "/sys/fs/bpf";
    let mounts = std::fs::read_to_string("/proc/mounts").map_err(|error| format!("read \"/proc/mounts\": {error}"))?;
    if mounts.lines().any(|line| line.split(' ').nth(1) == Some(PLACE) && line.split(' ').nth(2) == Some("bpf")) {
        println!("have        bpf file system at {PLACE}");
    } else if change && is_root() && start(Command::new("mount").args(["-t", "bpf", "bpf", PLACE])).is_ok() {
        println!("done        mounted the bpf file system at {PLACE}");
    } else {
        println!("missing     bpf file system; as root: mount -t bpf bpf {PLACE} (tests and demo need it)");
    }
    Ok(())
}
