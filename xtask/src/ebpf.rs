//! How are the eBPF objects built, and with which of the possible toolchains?
//!
//! The one code path for it: `cargo xtask ebpf` and the agent's build script (which includes this file) both come
//! here. Standard library only. Installs nothing; `cargo xtask setup` does.

#[path = "ebpf/lean.rs"]
mod lean;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const BIN: &str = "multus-ebpf";

/// What a build left behind.
pub struct Built {
    /// The silent object.
    pub object: PathBuf,
    /// The object that writes a line for every relay decision.
    pub tracing: PathBuf,
    /// Which toolchain was used, for people.
    pub toolchain: String,
}

/// A compiler for the eBPF target, and the linker that goes with it.
pub struct Toolchain {
    kind: Kind,
    linker: PathBuf,
}

enum Kind {
    /// rustup's nightly with `rust-src`: builds `core` itself. Holds the toolchain's name.
    Rustup(String),
    /// Debian's rustc-web with its prebuilt `core` for the target.
    Debian,
}

impl Toolchain {
    /// Finds a complete toolchain: rustup's nightly with rust-src first, else Debian's; in both cases with bpf-linker.
    ///
    /// The error says in one line what is missing and what to do.
    pub fn find() -> Result<Self, String> {
        let Some(linker) = find_program("bpf-linker") else {
            return Err(
                "no eBPF linker: bpf-linker is neither in PATH nor in cargo's bin folder; run `cargo xtask setup`"
                    .to_owned(),
            );
        };
        if let Some(name) = nightly(Some(&linker)) {
            return Ok(Self { kind: Kind::Rustup(name), linker });
        }
        if has_debian_core() {
            return Ok(Self { kind: Kind::Debian, linker });
        }
        Err(format!(
            "no eBPF compiler: neither a rustup nightly with rust-src nor Debian's rustc-web with a core for {TARGET}; run `cargo xtask setup`"
        ))
    }

    /// What this is, for people.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Rustup(name) => format!("rustup {name} with rust-src, {}", self.linker.display()),
            Kind::Debian => format!("Debian rustc-web with prebuilt core, {}", self.linker.display()),
        }
    }

    fn cargo(&self) -> Command {
        match &self.kind {
            Kind::Rustup(name) => {
                let mut command = clean("rustup");
                command.args(["run", name, "cargo", "build", "-Zbuild-std=core"]);
                command
            }
            Kind::Debian => {
                let mut command = clean("/usr/bin/cargo");
                command.arg("build").env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }
}

/// Builds both objects of the `multus-ebpf` crate under `root` into `out`.
///
/// Cargo works in `cache`, which every caller of one workspace shares: the programs are the same whatever the agent is
/// compiled for, and compiling them takes longer than linking the agent. The error carries the compiler's own words.
pub fn build(root: &Path, cache: &Path, out: &Path) -> Result<Built, String> {
    let toolchain = Toolchain::find()?;
    let object = compile(&toolchain, root, (cache, out), "silent", &[])?;
    let tracing = compile(&toolchain, root, (cache, out), "tracing", &["--features", "log"])?;
    Ok(Built { object, tracing, toolchain: toolchain.describe() })
}

/// `cargo xtask ebpf`: builds into `target/ebpf` and prints what came out.
#[allow(dead_code, reason = "the agent's build script includes this file and has no use for it")]
pub fn run(root: &Path) -> Result<(), String> {
    let out = root.join("target/ebpf");
    let built = build(root, &out, &out)?;
    println!("built with {}", built.toolchain);
    for path in [&built.object, &built.tracing] {
        let size = fs::metadata(path).map_err(|e| format!("read the size of {}: {e}", path.display()))?.len();
        println!("{size:>8} bytes  {}", path.display());
    }
    Ok(())
}

fn compile(
    toolchain: &Toolchain,
    root: &Path,
    (cache, out): (&Path, &Path),
    variant: &str,
    features: &[&str],
) -> Result<PathBuf, String> {
    let target_dir = cache.join(variant);
    let crate_dir = root.join(BIN);
    let output = toolchain
        .cargo()
        .current_dir(&crate_dir)
        .args(["--release", "--locked", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .args(features)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", flags(root))
        .output()
        .map_err(|e| format!("start the eBPF build with {}: {e}", toolchain.describe()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("build the {variant} eBPF object with {}:\n{words}", toolchain.describe()));
    }
    let built = target_dir.join(TARGET).join("release").join(BIN);
    let object = out.join(format!("{BIN}-{variant}.o"));
    let bytes = fs::read(&built).map_err(|e| format!("read {}: {e}", built.display()))?;
    let lean = lean::without_debug_information(&bytes).ok_or_else(|| format!("{}: no eBPF object", built.display()))?;
    fs::write(&object, lean).map_err(|e| format!("write {}: {e}", object.display()))?;
    Ok(object)
}

/// Debug information becomes BTF, with names that are the same wherever the sources lie.
fn flags(root: &Path) -> String {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let flags = format!("-Cdebuginfo=2 -Clink-arg=--btf --remap-path-prefix={}=/multus-ebpf", root.display());
    home.map_or(flags.clone(), |home| format!("{flags} --remap-path-prefix={}=/cargo", home.display()))
}

/// A command without what the outer cargo, rustc and rustup put into the environment.
fn clean(program: &str) -> Command {
    const KEPT: &[&str] = &["CARGO_HOME", "CARGO_NET_OFFLINE", "CARGO_TERM_COLOR"];
    const OURS: &[&str] = &[
        "DEBUG",
        "HOST",
        "LD_LIBRARY_PATH",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC",
        "RUSTDOC",
        "RUSTDOCFLAGS",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "TARGET",
    ];
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let cargos = text.starts_with("CARGO") && !KEPT.contains(&text) && !is_registry_setting(text);
        if cargos || text.starts_with("RUSTC_") || OURS.contains(&text) {
            command.env_remove(&name);
        }
    }
    command
}

/// How crates are fetched is the user's business and holds for the nested build too.
fn is_registry_setting(name: &str) -> bool {
    ["CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_REGISTRY_", "CARGO_SOURCE_"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

/// The LLVM of the linker that set-up builds.
pub const LLVM: u32 = 22;

/// The name of a rustup nightly that has the sources of `core`, and whose LLVM `linker` reads (the one set-up would
/// build, when there is none): bitcode is read by the same or a newer LLVM.
pub fn nightly(linker: Option<&Path>) -> Option<String> {
    let list = text_of(clean("rustup").args(["toolchain", "list"]))?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let readable = match linker {
        Some(linker) => linker_llvm(linker),
        None => Some(LLVM),
    };
    names.filter(|name| name.starts_with("nightly")).find(|name| is_complete(name, readable)).map(str::to_owned)
}

fn is_complete(nightly: &str, readable: Option<u32>) -> bool {
    let ask = |question: &[&str]| text_of(clean("rustup").args(["run", nightly, "rustc"]).args(question));
    let Some(sysroot) = ask(&["--print", "sysroot"]) else { return false };
    let has_sources = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir();
    let fits = |llvm| readable.is_none_or(|readable| llvm <= readable);
    has_sources && ask(&["-vV"]).and_then(|version| compiler_llvm(&version)).is_some_and(fits)
}

/// The LLVM a compiler uses, from its `-vV`.
pub fn compiler_llvm(version: &str) -> Option<u32> {
    version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()?.parse().ok()
}

/// The LLVM a linker is dynamically linked to; `None` when it brings its own, which its maker has chosen to fit.
fn linker_llvm(linker: &Path) -> Option<u32> {
    library_llvm(&text_of(clean("ldd").arg(linker))?)
}

/// The LLVM among a program's libraries, as `ldd` lists them: `libLLVM.so.22.1`, or `libLLVM-14.so.1` of old.
pub fn library_llvm(libraries: &str) -> Option<u32> {
    let library = libraries.lines().find_map(|line| line.trim().strip_prefix("libLLVM"))?;
    library.trim_start_matches(['-', '.', 's', 'o']).split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Whether Debian's compiler is there with a prebuilt `core` for the target.
fn has_debian_core() -> bool {
    let Some(sysroot) = text_of(clean("/usr/bin/rustc").args(["--print", "sysroot"])) else { return false };
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib");
    Path::new("/usr/bin/cargo").is_file()
        && fs::read_dir(libraries).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|e| e.file_name().to_string_lossy().starts_with("libcore-")))
        })
}

/// A program in `PATH` or in cargo's bin folder.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    env::split_paths(&path)
        .chain(cargo_home.into_iter().chain(home).map(|folder| folder.join("bin")))
        .map(|folder| folder.join(OsStr::new(name)))
        .find(|candidate| candidate.is_file())
}

fn text_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project;

    /// The agent embeds the objects, so its image has one digest only if they have.
    #[test]
    fn the_objects_are_the_same_wherever_the_sources_lie() -> Result<(), String> {
        let elsewhere = env::temp_dir().join(format!("multus-ebpf-elsewhere-{}", std::process::id()));
        let outcome = from_elsewhere(&elsewhere);
        let _ = fs::remove_dir_all(&elsewhere);
        outcome
    }

    fn from_elsewhere(elsewhere: &Path) -> Result<(), String> {
        let (root, cache) = (project::root(), project::target()?.join("ebpf"));
        fs::create_dir_all(elsewhere).map_err(|error| format!("make {}: {error}", elsewhere.display()))?;
        for folder in [BIN, "multus-ebpf-common"] {
            project::run(Command::new("cp").arg("--archive").arg(root.join(folder)).arg(elsewhere))?;
        }
        let toolchain = Toolchain::find()?;
        // One cache for both, so only our own crates are compiled; here last, as the next build finds it.
        let built = |root: &Path| {
            let object = compile(&toolchain, root, (&cache, elsewhere), "silent", &[])?;
            fs::read(&object).map_err(|error| format!("read {}: {error}", object.display()))
        };
        let (there, here) = (built(elsewhere)?, built(&root)?);
        assert!(there == here, "{} bytes there, {} here, and not the same ones", there.len(), here.len());
        Ok(())
    }
}
