//! Which compiler and linker build the eBPF programs, and what they need. Builds no eBPF program itself.
//!
//! A rustup nightly that has `rust-src` is preferred: it is what eBPF developers have. Otherwise Debian 12's own set
//! does, which comes with `core` compiled for the bpf target and needs no nightly.

use std::env;
use std::process::Command;

use crate::Outcome;
use crate::ebpf::{self, LLVM};
use crate::project::{capture, cargo, find_program};

use super::need::Need;

/// The newest linker that takes the LLVM of both routes.
const LINKER_VERSION: &str = "0.13.0";

/// Debian's set: a compiler with `core` for the bpf target.
const COMPILER: [Need; 3] = [
    Need { package: "rustc-web", found_as: &["/usr/bin/rustc"] },
    Need { package: "cargo-web", found_as: &["/usr/bin/cargo"] },
    Need { package: "libstd-rust-web-dev-bpf", found_as: &["/usr/lib/rustlib/bpfel-unknown-none/lib"] },
];

/// What compiling the linker against Debian's LLVM needs; not needed once it is there.
const LINKER: [Need; 5] = [
    Need { package: "llvm-22-dev", found_as: &["/usr/lib/llvm-22/bin/llvm-config"] },
    Need { package: "libpolly-22-dev", found_as: &["/usr/lib/llvm-22/lib/libPolly.a"] },
    Need { package: "libzstd-dev", found_as: &["/usr/include/zstd.h"] },
    Need { package: "zlib1g-dev", found_as: &["/usr/include/zlib.h"] },
    Need { package: "g++", found_as: &["g++", "c++"] },
];

/// Who compiles and links the eBPF programs.
pub(super) struct Route {
    compiler: Compiler,
    /// What `bpf-linker --version` says, where there is one.
    linker: Option<String>,
}

enum Compiler {
    /// A rustup nightly with `rust-src`.
    Nightly,
    /// Debian's packages.
    Debian,
}

/// Decides, and says so.
pub(super) fn route() -> Route {
    let linker = installed_linker();
    let found = linker.is_some().then(|| find_program("bpf-linker")).flatten();
    if let Some(name) = ebpf::nightly(found.as_deref()) {
        println!("have        {name} with rust-src: it builds the eBPF programs");
        return Route { compiler: Compiler::Nightly, linker };
    }
    println!("have        no rustup nightly with rust-src that fits: Debian's compiler builds the eBPF programs");
    Route { compiler: Compiler::Debian, linker }
}

/// What the linker on PATH calls itself; `None` when there is none that starts.
pub(super) fn installed_linker() -> Option<String> {
    capture(Command::new("bpf-linker").arg("--version")).ok().map(|version| version.trim().to_owned())
}

impl Route {
    /// Whether the linker there is will do. Beside a nightly that is any: a person chose the two to fit.
    pub(super) fn has_linker(&self) -> bool {
        match (&self.linker, &self.compiler) {
            (None, _) => false,
            (Some(_), Compiler::Nightly) => true,
            (Some(version), Compiler::Debian) => *version == wanted_linker(),
        }
    }

    /// Packages of this route.
    pub(super) fn needs(&self) -> impl Iterator<Item = &'static Need> {
        let compiler = if matches!(self.compiler, Compiler::Debian) { &COMPILER[..] } else { &[] };
        let linker = if self.has_linker() { &[] } else { &LINKER[..] };
        compiler.iter().chain(linker)
    }

    /// Whether what is installed fits together.
    pub(super) fn verify(&self) -> Outcome {
        let Compiler::Debian = self.compiler else { return Ok(()) };
        let version = capture(Command::new("/usr/bin/rustc").arg("-vV"))?;
        match ebpf::compiler_llvm(&version) {
            Some(LLVM) => Ok(()),
            Some(other) => Err(format!(
                "/usr/bin/rustc uses LLVM {other}, and bpf-linker {LINKER_VERSION} is built for {LLVM}; \
                 instead: rustup toolchain install nightly --profile minimal --component rust-src"
            )),
            None => Err("/usr/bin/rustc does not say which LLVM it uses".into()),
        }
    }
}

/// The linker we build.
pub(super) fn wanted_linker() -> String {
    format!("bpf-linker {LINKER_VERSION}")
}

/// Compiles the linker against Debian's LLVM, into cargo's own folder for programs.
pub(super) fn install_linker() -> Command {
    let llvm = format!("/usr/lib/llvm-{LLVM}");
    let mut path = std::ffi::OsString::from(format!("{llvm}/bin:"));
    path.push(env::var_os("PATH").unwrap_or_default());
    let mut command = cargo();
    command.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--force"]);
    command.args(["--no-default-features", "--features", &format!("llvm-{LLVM}")]);
    command.env("PATH", path).env("LLVM_PREFIX", &llvm).env("LLVM_SYS_221_PREFIX", &llvm);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_llvm_of_a_compiler() {
        assert_eq!(ebpf::compiler_llvm("rustc 1.96.0\nhost: x\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(ebpf::compiler_llvm("rustc 1.96.0\n"), None);
    }

    #[test]
    fn the_llvm_of_a_linker() {
        assert_eq!(ebpf::library_llvm("\tlinux-vdso.so.1 (0x0)\n\tlibLLVM.so.22.1 => /x (0x0)\n"), Some(22));
        assert_eq!(ebpf::library_llvm("\tlibLLVM-14.so.1 => /x (0x0)\n"), Some(14));
        assert_eq!(ebpf::library_llvm("\tstatically linked\n"), None);
    }

    #[test]
    fn a_linker_in_place_needs_no_llvm() {
        let packages = |compiler, linker: Option<&str>| {
            let route = Route { compiler, linker: linker.map(str::to_owned) };
            route.needs().map(|need| need.package).collect::<Vec<_>>()
        };
        let wanted = wanted_linker();
        assert!(!packages(Compiler::Debian, Some(&wanted)).contains(&"llvm-22-dev"));
        assert!(packages(Compiler::Debian, Some("bpf-linker 0.9.0")).contains(&"llvm-22-dev"));
        assert!(packages(Compiler::Nightly, None).contains(&"llvm-22-dev"));
        assert!(packages(Compiler::Nightly, Some("bpf-linker 0.14.0")).is_empty());
    }
}
