//! Which versions of the CNI specification are spoken, and what each of them can do.
//!
//! Nothing here reads a configuration.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fault::{CniError, code, quote};

/// A version of the CNI specification; ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Version {
    V0_1_0,
    V0_2_0,
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    /// Every version spoken, oldest first.
    pub const SUPPORTED: [Self; 7] =
        [Self::V0_1_0, Self::V0_2_0, Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// The newest version spoken.
    pub const NEWEST: Self = Self::V1_1_0;

    /// Reads a `cniVersion`. Empty means 0.1.0, as a missing one does (CNI SPEC 1.1, "Version considerations").
    ///
    /// # Errors
    /// Code 1 with the versions spoken in the details.
    pub fn parse(text: &str) -> Result<Self, CniError> {
        if text.is_empty() {
            return Ok(Self::V0_1_0);
        }
        Self::SUPPORTED.into_iter().find(|version| version.as_str() == text).ok_or_else(|| {
            CniError::new(code::INCOMPATIBLE_VERSION, format!("cniVersion {} is not spoken", quote(text)))
                .remedy(format!("use one of {}", Self::list()))
        })
    }

    /// Reads a `cniVersion` that may be newer than any there is; true: it is, and the newest stands in for it.
    pub fn clamped(text: &str) -> Option<(Self, bool)> {
        if let Ok(version) = Self::parse(text) {
            return Some((version, false));
        }
        let numbers: Vec<u32> = text.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        (numbers.len() == 3 && numbers.as_slice() > [1, 1, 0].as_slice()).then_some((Self::NEWEST, true))
    }

    /// The text, for example `0.3.1`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V0_1_0 => "0.1.0",
            Self::V0_2_0 => "0.2.0",
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }

    /// CHECK, and `prevResult` on DEL and CHECK, came with 0.4.0.
    pub fn has_check(self) -> bool {
        self >= Self::V0_4_0
    }

    /// GC came with 1.1.0.
    pub fn has_gc(self) -> bool {
        self >= Self::V1_1_0
    }

    /// STATUS came with 1.1.0.
    pub fn has_status(self) -> bool {
        self >= Self::V1_1_0
    }

    /// The versions spoken, `0.1.0, 0.2.0, …`.
    pub fn list() -> String {
        Self::SUPPORTED.map(Self::as_str).join(", ")
    }

    /// What a plugin prints for VERSION, with its newline (CNI SPEC 1.1, "VERSION Success").
    pub fn reply() -> String {
        let versions = Self::SUPPORTED.map(Self::as_str).join("\",\"");
        format!("{{\"cniVersion\":\"{}\",\"supportedVersions\":[\"{versions}\"]}}\n", Self::NEWEST)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl TryFrom<String> for Version {
    type Error = CniError;
    fn try_from(text: String) -> Result<Self, CniError> {
        Self::parse(&text)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_exactly() {
        for version in Version::SUPPORTED {
            assert_eq!(Version::parse(version.as_str()), Ok(version));
        }
        assert_eq!(Version::parse(""), Ok(Version::V0_1_0));
        for bad in ["1.2.0", "0.3", "v1.0.0", " 1.0.0", "1.1.0\n", "0.3.2"] {
            let error = Version::parse(bad).unwrap_err();
            assert_eq!(error.code, code::INCOMPATIBLE_VERSION, "{bad}");
            assert!(error.msg.contains(&quote(bad)) && error.details.contains("1.1.0"), "{error}");
        }
    }

    #[test]
    fn abilities_follow_the_version() {
        let table = [
            (Version::V0_3_1, false, false),
            (Version::V0_4_0, true, false),
            (Version::V1_0_0, true, false),
            (Version::V1_1_0, true, true),
        ];
        for (version, check, gc) in table {
            assert_eq!((version.has_check(), version.has_gc(), version.has_status()), (check, gc, gc), "{version}");
        }
    }

    #[test]
    fn the_reply_lists_every_version() {
        let reply: serde_json::Value = serde_json::from_str(&Version::reply()).unwrap();
        assert_eq!(reply["cniVersion"], "1.1.0");
        assert_eq!(reply["supportedVersions"].as_array().unwrap().len(), 7);
        assert!(Version::reply().ends_with("}\n"));
    }
}
