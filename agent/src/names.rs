//! Which strings may cross a boundary: interface names, container ids, plugin names, network references, namespaces.
//!
//! Every constructor validates; nobody else does. Nothing here performs I/O.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::fault::quote;

/// A string that is not what a name of its kind may be; the text names the value and what fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName {
    kind: &'static str,
    value: String,
    fits: &'static str,
}

impl fmt::Display for BadName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} is not valid: {}", self.kind, quote(&self.value), self.fits)
    }
}

impl std::error::Error for BadName {}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $kind:literal, $fits:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// Validates `value`.
            pub fn new(value: impl Into<String>) -> Result<Self, BadName> {
                let value = value.into();
                let check: fn(&str) -> bool = $check;
                if check(&value) { Ok(Self(value)) } else { Err(BadName { kind: $kind, value, fits: $fits }) }
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(value: String) -> Result<Self, BadName> {
                Self::new(value)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// A network interface name: 1 to 15 bytes, not `.` or `..`, without `/`, `:`, white space or control characters
    /// (the kernel's `dev_valid_name`, and libcni's check).
    IfName,
    "interface name",
    "use 1 to 15 characters without '/', ':' or white space",
    |s| {
        !s.is_empty()
            && s.len() <= 15
            && s != "."
            && s != ".."
            && s.chars().all(|c| c != '/' && c != ':' && !c.is_whitespace() && !c.is_control())
    }
);

name!(
    /// A container id as CNI defines it: alphanumeric first, then alphanumerics, `_`, `.`, `-` (CNI SPEC 1.1, "Parameters").
    ContainerId,
    "container id",
    "start with a letter or digit; then letters, digits, '_', '.' or '-', at most 255 in all",
    is_cni_name
);

name!(
    /// The name of a CNI network, with the character set of [`ContainerId`].
    NetworkName,
    "network name",
    "start with a letter or digit; then letters, digits, '_', '.' or '-', at most 255 in all",
    is_cni_name
);

name!(
    /// The file name of a CNI plugin; never a path (the shape of CVE-2021-20206).
    PluginName,
    "plugin type",
    "name a plugin's file, without '/', not '.' or '..', at most 255 printable characters",
    |s| {
        !s.is_empty()
            && s.len() <= 255
            && s != "."
            && s != ".."
            && s.chars().all(|c| c != '/' && c != '\\' && !c.is_control() && !c.is_whitespace())
    }
);

name!(
    /// A device as its device plugin or DRA driver names it, such as `0000:03:02.1`: 1 to 255 bytes, printable, without
    /// white space.
    DeviceId,
    "device id",
    "use 1 to 255 printable characters without white space",
    |s| !s.is_empty() && s.len() <= 255 && !s.chars().any(|c| c.is_control() || c.is_whitespace())
);

name!(
    /// A Kubernetes object or namespace name (RFC 1123 subdomain: NAD object names may contain dots).
    ObjectName,
    "object name",
    "use lower-case letters, digits, '-' and '.', starting and ending with a letter or digit, at most 253",
    |s| {
        let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        s.len() <= 253
            && s.chars().all(|c| alnum(c) || c == '-' || c == '.')
            && s.chars().next().is_some_and(alnum)
            && s.chars().last().is_some_and(alnum)
    }
);

impl IfName {
    /// What every runtime calls a pod's first interface.
    pub fn eth0() -> Self {
        Self("eth0".to_owned())
    }
}

impl ObjectName {
    /// The namespace of the cluster's own pods, where Multus looks for networks unless told otherwise.
    pub fn kube_system() -> Self {
        Self("kube-system".to_owned())
    }
}

fn is_cni_name(s: &str) -> bool {
    s.len() <= 255
        && s.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && s.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The path of a network namespace as the runtime gave it: absolute, without `..`, at most 4095 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetnsPath(PathBuf);

impl NetnsPath {
    /// Validates `value`; whether a namespace is there is found out when it is opened.
    pub fn new(value: impl Into<String>) -> Result<Self, BadName> {
        let value = value.into();
        let fits = value.starts_with('/')
            && value.len() <= 4095
            && !value.split('/').any(|part| part == "..")
            && !value.chars().any(char::is_control);
        if fits {
            Ok(Self(PathBuf::from(value)))
        } else {
            Err(BadName { kind: "network namespace", value, fits: "give an absolute path without '..'" })
        }
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

impl TryFrom<String> for NetnsPath {
    type Error = BadName;
    fn try_from(value: String) -> Result<Self, BadName> {
        Self::new(value)
    }
}

impl From<NetnsPath> for String {
    fn from(path: NetnsPath) -> Self {
        path.0.to_string_lossy().into_owned()
    }
}

impl fmt::Display for NetnsPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(out)
    }
}

/// Which network namespace a path leads to: the numbers of its file on nsfs (namespaces(7), "The /proc/pid/ns/ directory").
/// Two of the same machine since the same boot are the same namespace, or the older one is gone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetnsId(String);

impl NetnsId {
    /// That of a file, by its device and inode.
    pub fn of(device: u64, inode: u64) -> Self {
        Self(format!("{device}:{inode}"))
    }
}

/// Which NetworkAttachmentDefinition: `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NadRef {
    /// Namespace of the object.
    pub namespace: ObjectName,
    /// Name of the object.
    pub name: ObjectName,
}

impl NadRef {
    /// Validates both parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Result<Self, BadName> {
        Ok(Self { namespace: ObjectName::new(namespace)?, name: ObjectName::new(name)? })
    }
}

impl fmt::Display for NadRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// Which pod a request is about, as the runtime named it in `CNI_ARGS`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: ObjectName,
    /// Name of the pod.
    pub name: ObjectName,
    /// UID, where the runtime gave one (containerd 1.6, CRI-O 1.20 and newer).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl fmt::Display for PodRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// A hardware address as the kernel and CNI write it: `aa:bb:cc:dd:ee:ff`.
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names() {
        for good in ["net1", "eth0", "a", "Data_1", "abcdefghijklmno"] {
            assert!(IfName::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "abcdefghijklmnop", "a\u{1b}"] {
            assert!(IfName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn container_ids_cannot_leave_a_folder() {
        for good in ["a", "0f1e", "pod_1.2-3"] {
            assert!(ContainerId::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "-a", ".a", "a b"] {
            assert!(ContainerId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn plugin_names_are_never_paths() {
        assert!(PluginName::new("host-local").is_ok());
        for bad in ["", ".", "..", "/bin/sh", "../bridge", "a/b", "a\nb"] {
            assert!(PluginName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn device_ids_are_one_printable_word() {
        for good in ["0000:03:02.1", "mlx5_core.sf.4", "/dev/vfio/12", "ä"] {
            assert!(DeviceId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\n", "a\0", &"x".repeat(256)] {
            assert!(DeviceId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_quotes_the_value_escaped() {
        let text = IfName::new("a\u{1b}[31m").unwrap_err().to_string();
        assert!(text.contains("\\u{1b}"), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn namespaces_are_absolute() {
        assert!(NetnsPath::new("/run/netns/a").is_ok());
        for bad in ["", "run/netns/a", "/run/../etc", "/a\nb"] {
            assert!(NetnsPath::new(bad).is_err(), "{bad}");
        }
    }
}
