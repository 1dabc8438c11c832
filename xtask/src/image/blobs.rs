//! The blobs of an OCI layout: files that are called what their bytes hash to. Knows no meaning of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::project::capture;

/// A blob that is in the layout.
pub(super) struct Blob {
    /// `sha256:` and 64 digits.
    pub(super) digest: String,
    size: u64,
}

impl Blob {
    /// What refers to it (OCI Image Format Specification, "OCI Content Descriptors").
    pub(super) fn descriptor(&self, media_type: &str) -> String {
        format!("{{\"mediaType\":\"{media_type}\",\"digest\":\"{}\",\"size\":{}}}", self.digest, self.size)
    }
}

/// `blobs/sha256` of a layout.
pub(super) struct Blobs(PathBuf);

impl Blobs {
    pub(super) fn new(layout: &Path) -> Outcome<Self> {
        let folder = layout.join("blobs/sha256");
        fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        Ok(Self(folder))
    }

    /// Moves a file in.
    pub(super) fn take(&self, file: &Path) -> Outcome<Blob> {
        let digest = digest(file)?;
        let size = fs::metadata(file).map_err(|error| format!("look at {}: {error}", file.display()))?.len();
        let name = digest.trim_start_matches("sha256:");
        fs::rename(file, self.0.join(name)).map_err(|error| format!("move {}: {error}", file.display()))?;
        Ok(Blob { digest, size })
    }

    /// Writes a document.
    pub(super) fn put(&self, text: &str) -> Outcome<Blob> {
        let beside = self.0.join(".beside");
        fs::write(&beside, text).map_err(|error| format!("write {}: {error}", beside.display()))?;
        self.take(&beside)
    }
}

/// `sha256:` and the sum of a file.
pub(super) fn digest(file: &Path) -> Outcome<String> {
    let sum = capture(Command::new("sha256sum").arg("--").arg(file))?;
    let hex = sum.split_whitespace().next().filter(|hex| hex.len() == 64);
    let hex = hex.ok_or_else(|| format!("sha256sum {}: no sum in what it said", file.display()))?;
    Ok(format!("sha256:{hex}"))
}
