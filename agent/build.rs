//! Where do the embedded eBPF objects come from? From the one code path of `cargo xtask ebpf`, into `OUT_DIR`.
//!
//! Does nothing for the shim's build, which has no datapath.

use std::env;
use std::path::{Path, PathBuf};
use std::process::exit;

#[path = "../xtask/src/ebpf.rs"]
#[allow(dead_code, unreachable_pub, clippy::exit, reason = "the file is xtask's; the build script uses a part of it")]
mod ebpf;

fn main() {
    if env::var_os("CARGO_FEATURE_DAEMON").is_none() {
        println!("cargo::rerun-if-changed=build.rs");
        return;
    }
    let Some(manifest) = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) else { return };
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else { return };
    let root = manifest.parent().unwrap_or(Path::new(".."));
    for part in [
        "multus-ebpf/src",
        "multus-ebpf/Cargo.toml",
        "multus-ebpf/Cargo.lock",
        "multus-ebpf-common/src",
        "multus-ebpf-common/Cargo.toml",
        "xtask/src/ebpf.rs",
        "xtask/src/ebpf",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
    }
    if let Err(error) = ebpf::build(root, &cache(&out), &out) {
        println!("cargo::error={}", error.lines().next().unwrap_or_default());
        eprintln!("{error}");
        exit(1);
    }
}

/// `ebpf` in the folder that cargo builds into, which cargo marks; `out` itself where there is no mark.
fn cache(out: &Path) -> PathBuf {
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.map_or_else(|| out.to_path_buf(), |target| target.join("ebpf"))
}
