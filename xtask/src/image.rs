//! What a node pulls: the two programs and nothing else, as an OCI archive, with its bill of materials and digest beside it.
//!
//! Needs no container engine: an image is three JSON files and a tar archive. The same programs give the same archive, byte
//! for byte: nothing in it is of this machine or of now. (OCI Image Format Specification 1.1; CycloneDX 1.6.)

mod blobs;
mod materials;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::project::{run as start, target};
use crate::{Outcome, elf, only, programs};
use blobs::{Blob, Blobs};

/// Where the programs lie in the image.
const PLACE: &str = "usr/bin";
const PROGRAMS: [&str; 2] = ["multus-agent", "multus-shim"];

/// The task `image`.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let (programs, rest) = option(arguments, "--programs");
    let (into, rest) = option(rest, "--into");
    only(rest, &[])?;
    let programs = match programs {
        Some(folder) => folder,
        None => programs::folder()?,
    };
    let name = format!("multus-ebpf-{}-{}", env!("CARGO_PKG_VERSION"), architecture());
    let folder = match into {
        Some(folder) => folder,
        None => target()?.join("image"),
    };
    let layout = folder.join("layout");
    clean(&layout)?;
    let blobs = Blobs::new(&layout)?;

    let tree = layer(&programs, &folder)?;
    let unpacked = blobs::digest(&tree)?;
    // Without name and time in its head.
    start(Command::new("gzip").args(["--no-name", "--force", "--best"]).arg(&tree))?;
    let layer = blobs.take(&tree.with_extension("tar.gz"))?;
    let config = blobs.put(&config(&unpacked))?;
    let manifest = blobs.put(&manifest(&config, &layer))?;
    write(&layout.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?;
    write(&layout.join("index.json"), &index(&manifest))?;

    let archive = folder.join(format!("{name}.oci.tar"));
    pack(&layout, &["oci-layout", "index.json", "blobs"], &archive)?;
    write(&folder.join(format!("{name}.digest")), &format!("{}\n", manifest.digest))?;
    write(&folder.join(format!("{name}.cdx.json")), &materials::bill()?)?;
    println!("{}  {} bytes", archive.display(), size(&archive)?);
    println!("{}", manifest.digest);
    Ok(())
}

/// The folder after this option, if it comes first.
fn option<'a>(arguments: &'a [String], name: &str) -> (Option<PathBuf>, &'a [String]) {
    match arguments {
        [option, folder, rest @ ..] if option == name => (Some(PathBuf::from(folder)), rest),
        all => (None, all),
    }
}

/// The file system: two programs in folders that belong to root.
fn layer(programs: &Path, folder: &Path) -> Outcome<PathBuf> {
    let tree = folder.join("tree");
    clean(&tree)?;
    let place = tree.join(PLACE);
    fs::create_dir_all(&place).map_err(|error| format!("make {}: {error}", place.display()))?;
    for name in PROGRAMS {
        let program = programs.join(name);
        let bytes = fs::read(&program)
            .map_err(|error| format!("read {}: {error}; `cargo xtask build` makes it", program.display()))?;
        // There is no loader in the image.
        if elf::needs_loader(&bytes).map_err(|reason| format!("check {}: {reason}", program.display()))? {
            return Err(format!("{} is dynamically linked; `cargo xtask build` makes static ones", program.display()));
        }
        fs::copy(&program, place.join(name)).map_err(|error| format!("copy {name}: {error}"))?;
    }
    let layer = folder.join("layer.tar");
    pack(&tree, &["usr"], &layer)?;
    Ok(layer)
}

/// A tar archive without anything of this machine: GNU tar with fixed order, owner, mode and time.
fn pack(folder: &Path, what: &[&str], archive: &Path) -> Outcome {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0"]);
    tar.args(["--mode=u=rwX,go=rX"]).arg("--file").arg(archive).arg("--directory").arg(folder).args(what);
    start(&mut tar)
}

fn config(layer: &str) -> String {
    format!(
        "{{\"architecture\":\"{}\",\"os\":\"linux\",\"config\":{{\"Entrypoint\":[\"/{PLACE}/multus-agent\"],\
         \"Env\":[\"PATH=/{PLACE}\"],\"WorkingDir\":\"/\",\"Labels\":{{{}}}}},\
         \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{layer}\"]}}}}",
        architecture(),
        annotations(),
    )
}

fn manifest(config: &Blob, layer: &Blob) -> String {
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{},\
         \"layers\":[{}],\"annotations\":{{{}}}}}",
        config.descriptor("application/vnd.oci.image.config.v1+json"),
        layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip"),
        annotations(),
    )
}

fn index(manifest: &Blob) -> String {
    let descriptor = manifest.descriptor("application/vnd.oci.image.manifest.v1+json");
    let platform = format!("\"platform\":{{\"architecture\":\"{}\",\"os\":\"linux\"}}", architecture());
    let tag = format!("\"annotations\":{{\"org.opencontainers.image.ref.name\":\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let descriptor = descriptor.trim_end_matches('}');
    format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\
         \"manifests\":[{descriptor},{platform},{tag}}}]}}"
    )
}

fn annotations() -> String {
    let of = |name: &str, value: &str| format!("\"org.opencontainers.image.{name}\":\"{value}\"");
    [
        of("title", "multus-ebpf"),
        of("version", env!("CARGO_PKG_VERSION")),
        of("licenses", env!("CARGO_PKG_LICENSE")),
        of("source", env!("CARGO_PKG_REPOSITORY")),
    ]
    .join(",")
}

/// This machine's, in the words of OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn clean(folder: &Path) -> Outcome {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(|error| format!("remove {}: {error}", folder.display()))?;
    }
    fs::create_dir_all(folder).map_err(|error| format!("make {}: {error}", folder.display()))
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| format!("write {}: {error}", path.display()))
}

fn size(path: &Path) -> Outcome<u64> {
    fs::metadata(path).map(|file| file.len()).map_err(|error| format!("look at {}: {error}", path.display()))
}
