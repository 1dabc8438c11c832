//! What a CNI error is: a code of the specification, a sentence, and details. The one conversion every edge uses.
//!
//! Nothing here knows where an error came from.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Error codes: CNI SPEC 1.1, "Error", and ours from 100 upward.
pub mod code {
    /// The configuration asks for a version that is not spoken.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A field of the configuration is not supported.
    pub const UNSUPPORTED_FIELD: u32 = 2;
    /// The container is unknown or gone; nothing needs cleaning.
    pub const UNKNOWN_CONTAINER: u32 = 3;
    /// An environment variable is missing or invalid.
    pub const INVALID_ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// Something could not be decoded.
    pub const DECODE: u32 = 6;
    /// The network configuration is not valid.
    pub const INVALID_CONFIG: u32 = 7;
    /// The network namespace is not one (the Go library's code).
    pub const INVALID_NETNS: u32 = 8;
    /// Try again later.
    pub const TRY_LATER: u32 = 11;
    /// STATUS: not available, ADD cannot be served.
    pub const NOT_AVAILABLE: u32 = 50;
    /// STATUS: not available, and running containers may have limited connectivity.
    pub const LIMITED_CONNECTIVITY: u32 = 51;
    /// A selection in an annotation was refused.
    pub const BAD_ANNOTATION: u32 = 100;
    /// A network is not known.
    pub const UNKNOWN_NETWORK: u32 = 101;
    /// Namespace isolation refuses the network.
    pub const ISOLATION: u32 = 102;
    /// A delegate plugin failed without saying so in the protocol.
    pub const DELEGATE: u32 = 103;
    /// CHECK found that reality differs.
    pub const CHECK: u32 = 104;
    /// Too much was asked at once, or of one request.
    pub const LIMIT: u32 = 105;
    /// The Go library's code for everything else.
    pub const INTERNAL: u32 = 999;

    /// What every code means, and what to do about it, in the order of the numbers: `docs/reference/errors.md` is made
    /// of this.
    #[cfg(feature = "daemon")]
    pub const ALL: &[(u32, &str, &str)] = &[
        (
            INCOMPATIBLE_VERSION,
            "The configuration asks for a version that is not spoken, or the version does not have the verb.",
            "Write a `cniVersion` between 0.3.0 and 1.1.0; CHECK came with 0.4.0, STATUS and GC with 1.1.0.",
        ),
        (
            UNSUPPORTED_FIELD,
            "A field of the configuration is not supported.",
            "Only from a plugin; the agent does not use it.",
        ),
        (
            UNKNOWN_CONTAINER,
            "The container or its pod is unknown or gone; nothing needs cleaning.",
            "Nothing. The runtime may forget the container.",
        ),
        (
            INVALID_ENVIRONMENT,
            "An environment variable is missing or invalid; or the container, or an interface of that name, is there already.",
            "The message lists every variable at once.",
        ),
        (IO, "Reading or writing failed.", "Read the message: it names the file and what the system said."),
        (
            DECODE,
            "Something could not be decoded.",
            "The text the message names is not what it should be. Mostly JSON.",
        ),
        (
            INVALID_CONFIG,
            "The network configuration is not valid.",
            "Correct the NetworkAttachmentDefinition or conf that the message names.",
        ),
        (
            INVALID_NETNS,
            "The network namespace is not one (the Go library's code).",
            "The pod's network namespace is gone or is not one. The runtime will retry.",
        ),
        (
            TRY_LATER,
            "Try again later: the agent is away, or too busy until the deadline; the cluster's own network is not there yet; or the kubelet does not say which devices the pod has.",
            "Nothing. The runtime retries. If it lasts: `multus-agent status`.",
        ),
        (
            NOT_AVAILABLE,
            "STATUS: not available, ADD cannot be served. `/cni`, `/delegate`: the agent may not run plugins itself.",
            "Look at the agent on this node: it cannot attach pods now.",
        ),
        (
            LIMITED_CONNECTIVITY,
            "STATUS: not available, and running containers may have limited connectivity.",
            "From a plugin of the default network: look there.",
        ),
        (
            BAD_ANNOTATION,
            "A selection in an annotation was refused.",
            "Correct the annotation. The message names it, the item and the field.",
        ),
        (
            UNKNOWN_NETWORK,
            "A network is not known.",
            "Create the NetworkAttachmentDefinition, or correct its name or namespace.",
        ),
        (
            ISOLATION,
            "Namespace isolation refuses the network.",
            "Move the network into the pod's namespace, or add its namespace to `globalNamespaces`.",
        ),
        (
            DELEGATE,
            "A delegate plugin failed without saying so in the protocol: not installed, timed out, killed, too much output, no error object; or GC could not clean up everything.",
            "The message names the plugin and carries what it did say.",
        ),
        (
            CHECK,
            "CHECK found that reality differs.",
            "Something changed the pod's interfaces behind the plugin. Re-create the pod.",
        ),
        (
            LIMIT,
            "Too much was asked at once, or of one request: also a device that the pod does not have, or a resource claim that tells none.",
            "Ask for less, or raise the limit that the message names. For a device: request it in the pod's containers, or look at the claim.",
        ),
        (INTERNAL, "The Go library's code for everything else.", "Read the message; it names the action that failed."),
    ];
}

/// A CNI error object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CniError {
    /// One of [`code`], or a delegate's own.
    pub code: u32,
    /// One sentence: the action that failed, the object, the field, the value.
    pub msg: String,
    /// The remedy, or what else helps; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
}

impl CniError {
    /// An error without details.
    pub fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { code, msg: msg.into(), details: String::new() }
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn remedy(mut self, details: impl Into<String>) -> Self {
        self.details = details.into();
        self
    }

    /// The same error with what to do about it, where it does not say so itself.
    #[must_use]
    pub fn or_remedy(self, details: &str) -> Self {
        if self.details.is_empty() { self.remedy(details) } else { self }
    }

    /// The same error with `context: ` before its sentence.
    #[must_use]
    pub fn within(mut self, context: impl fmt::Display) -> Self {
        self.msg = format!("{context}: {}", self.msg);
        self
    }

    /// The object a plugin prints, pretty, in the version the request spoke (CNI SPEC 1.1, "Error").
    pub fn print(&self, cni_version: &str) -> String {
        let mut object = serde_json::json!({ "cniVersion": cni_version, "code": self.code, "msg": self.msg });
        if let (false, Some(map)) = (self.details.is_empty(), object.as_object_mut()) {
            map.insert("details".into(), self.details.clone().into());
        }
        serde_json::to_string_pretty(&object).unwrap_or_default()
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.msg)?;
        if !self.details.is_empty() {
            write!(out, "; {}", self.details)?;
        }
        Ok(())
    }
}

impl std::error::Error for CniError {}

/// `value` in double quotes, control characters escaped, cut after 64 bytes: the only way foreign text gets into a sentence.
pub fn quote(value: &str) -> String {
    const MOST: usize = 64;
    let mut cut = value.len().min(MOST);
    while !value.is_char_boundary(cut) {
        cut -= 1;
    }
    let (head, tail) = value.split_at(cut);
    format!("\"{}\"{}", escape(head), if tail.is_empty() { "" } else { "…" })
}

/// So many of something, in words: `1 pod`, `2 pods`.
pub fn many<N: Copy + fmt::Display + PartialEq + From<u8>>(count: N, thing: &str) -> String {
    let s = if count == N::from(1) { "" } else { "s" };
    format!("{count} {thing}{s}")
}

/// Is `c` invisible, does it break lines, or does it turn the direction of what follows?
pub fn is_hidden(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `value` with control characters, quotes and direction marks escaped, uncut.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if c.is_control() || is_hidden(c) || c == '"' || c == '\\' {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_cut_and_escaped() {
        assert_eq!(quote("net1"), "\"net1\"");
        assert_eq!(quote("a\n\u{1b}b"), "\"a\\n\\u{1b}b\"");
        assert_eq!(quote("\u{202e}x"), "\"\\u{202e}x\"");
        let long = quote(&"ä".repeat(100));
        assert!(long.ends_with('…') && long.chars().count() == 32 + 3, "{long}");
    }

    #[test]
    fn the_printed_object_has_the_specification_keys() {
        let text = CniError::new(code::INVALID_CONFIG, "no").remedy("do").print("1.1.0");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value, serde_json::json!({"cniVersion": "1.1.0", "code": 7, "msg": "no", "details": "do"}));
    }
}
