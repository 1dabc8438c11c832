//! What does the log know about a path, and how is that written, so that a torn log is told from a whole one?
//!
//! Opens no file.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sys::checksum::checksum;

/// Version and checksum come first.
const HEAD: &str = "multus-ebpf revert 1 ";

/// What is known about one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What was there before the first change.
    pub before: Before,
    /// In which states we may have left it, the newest last.
    pub left: Vec<Left>,
}

/// What was there before us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Before {
    /// Nothing.
    Nothing,
    /// A file; its content is beside the log.
    File {
        /// The content's file name.
        kept: String,
        /// Its checksum.
        sum: u64,
        /// The lower twelve bits of its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A symbolic link.
    Link {
        /// Where it leads, as it is written.
        target: PathBuf,
    },
}

/// How we leave a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Left {
    /// With nothing there.
    Nothing,
    /// As a file with this content.
    File {
        /// Its checksum.
        sum: u64,
    },
    /// As a folder that was made.
    Folder,
}

impl Left {
    /// As a file with this content.
    pub fn file(bytes: &[u8]) -> Self {
        Self::File { sum: checksum(bytes) }
    }
}

/// The log with these entries.
pub(super) fn print(entries: &BTreeMap<PathBuf, Entry>) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(entries)?;
    let mut text = format!("{HEAD}{:016x}\n", checksum(&body)).into_bytes();
    text.extend_from_slice(&body);
    Ok(text)
}

/// The entries of a log.
pub(super) fn read(text: &[u8]) -> io::Result<BTreeMap<PathBuf, Entry>> {
    let end = text.iter().position(|&byte| byte == b'\n').ok_or_else(|| torn("the revert log has no first line"))?;
    let (head, body) = text.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let sum = std::str::from_utf8(head).ok().and_then(|head| head.strip_prefix(HEAD));
    let sum = sum.and_then(|sum| u64::from_str_radix(sum, 16).ok());
    match sum {
        None => Err(torn("the revert log is of another version")),
        Some(sum) if sum != checksum(body) => Err(torn("the revert log is damaged: its checksum differs")),
        Some(_) => serde_json::from_slice(body).map_err(|error| torn(&format!("decode the revert log: {error}"))),
    }
}

/// What says that something of the log cannot be used.
pub(super) fn torn(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}
