//! Which kernels there are to test on, and one of them unpacked. Boots nothing.

use std::fs;
use std::path::{Path, PathBuf};

use super::archive::Archive;
use crate::Outcome;

/// A line of kernels, and the Debian release that has it.
pub(super) struct Series {
    pub(super) name: &'static str,
    pub(super) release: &'static str,
    /// The beginning of its versions, as a regular expression.
    version: &'static str,
}

/// The floor of what the datapath needs, what Debian's stable releases run, and the newest there is.
pub(super) const SERIES: [Series; 4] = [
    Series { name: "5.10", release: "bullseye", version: r"5\.10\." },
    Series { name: "6.1", release: "bookworm", version: r"6\.1\." },
    Series { name: "6.12", release: "trixie", version: r"6\.12\." },
    Series { name: "newest", release: "sid", version: "" },
];

/// A kernel on disk.
pub(super) struct Kernel {
    /// As `uname -r` says it.
    pub(super) version: String,
    /// The image that boots.
    pub(super) image: PathBuf,
    /// The folder that has `lib/modules/<version>`.
    pub(super) modules: PathBuf,
}

/// The newest kernel of a series, unpacked below `folder`.
pub(super) fn get(archive: &Archive, series: &Series, folder: &Path) -> Outcome<Kernel> {
    let expression = format!(r"^linux-image-{}[0-9].*-cloud-amd64$", series.version);
    let names = archive.names(&expression)?;
    let versions = names.iter().filter_map(|name| name.strip_prefix("linux-image-"));
    let newest = versions.max_by_key(|version| numbers(version)).ok_or_else(|| {
        format!("Debian's release {} has no kernel {} for cloud machines", series.release, series.name)
    })?;
    let root = folder.join("kernels").join(newest);
    if !root.is_dir() {
        let beside = folder.join("kernels").join(format!(".{newest}"));
        let _ = fs::remove_dir_all(&beside);
        // From 7.0 on the image package is empty and names two others.
        for kind in ["image", "binary", "modules"] {
            for package in
                archive.names(&format!("^linux-{kind}-{}$", newest.replace('.', r"\.").replace('+', r"\+")))?
            {
                archive.unpack(&package, &beside)?;
            }
        }
        fs::rename(&beside, &root).map_err(|error| format!("rename {}: {error}", beside.display()))?;
    }
    let modules = if root.join("usr/lib/modules").is_dir() { root.join("usr") } else { root.clone() };
    let images =
        [root.join("boot").join(format!("vmlinuz-{newest}")), modules.join("lib/modules").join(newest).join("vmlinuz")];
    let image = images.into_iter().find(|image| image.is_file());
    let image = image.ok_or_else(|| format!("no kernel image in {}", root.display()))?;
    Ok(Kernel { version: newest.to_owned(), image, modules })
}

/// The numbers in a version, for comparing.
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}
