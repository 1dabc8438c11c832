//! What the shim, the CLI and the agent say to each other over the socket: the messages of one conversation, protocol 1.
//!
//! A conversation is a row of plain HTTP/1.1 requests on one connection. The shim opens with a [`Call`]; the agent
//! answers each request with a [`Step`]: run this delegate, or the end. The shim posts each [`Outcome`] back. The end
//! of the connection is the end of the conversation, whoever caused it.

pub mod http;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cni::request::Command;
use crate::fault::CniError;
use crate::names::{ContainerId, IfName, NetnsId, NetnsPath, PluginName};

/// The newest protocol number this build speaks. A release that raises it still speaks the one before: while a node is
/// updated, or put back, a plugin of one release is answered by the agent of its neighbour.
pub const PROTOCOL: u32 = 1;
/// The oldest protocol number this build speaks.
pub const OLDEST_PROTOCOL: u32 = 1;
/// The socket's file name in the socket folder.
pub const SOCKET: &str = "multus.sock";
/// Where a conversation begins.
pub const CALL_PATH: &str = "/v1/cni";
/// Where the outcomes of delegates go, on the same connection.
pub const OUTCOME_PATH: &str = "/v1/cni/outcome";
/// Most bytes of a configuration on stdin.
pub const MOST_STDIN: usize = 1 << 20;
/// Most bytes of a plugin's standard output.
pub const MOST_STDOUT: usize = 1 << 20;
/// Most bytes of a plugin's standard error that are kept.
pub const MOST_STDERR: usize = 4 << 10;
/// Most bytes of one HTTP body, either way: a configuration, escaped, and some room.
pub const MOST_BODY: usize = 8 << 20;

/// The shim's opening: what the runtime gave it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// [`PROTOCOL`] of the shim.
    pub protocol: u32,
    /// The oldest protocol it speaks as well, where that is an older one; the call is one of that protocol, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u32>,
    /// The shim's version, for skew to be seen.
    pub shim: String,
    /// The `CNI_*` variables, nothing else of the environment.
    pub env: BTreeMap<String, String>,
    /// Standard input, byte for byte (JSON is UTF-8).
    pub config: String,
    /// Milliseconds until the shim gives up.
    pub timeout_ms: u64,
    /// The same call was made before, to an agent that ended before it answered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// Which namespace `CNI_NETNS` is where the runtime is; the agent may see another one, or none, under that path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_id: Option<NetnsId>,
}

impl Call {
    /// The protocol of this conversation: the newest that both sides speak. `None`: there is no such.
    pub fn agreed(&self) -> Option<u32> {
        let oldest = self.oldest.unwrap_or(self.protocol).max(OLDEST_PROTOCOL);
        let newest = self.protocol.min(PROTOCOL);
        (oldest <= newest).then_some(newest)
    }
}

/// The agent's answer to every request of a conversation.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "lowercase")]
pub enum Step {
    /// Run a delegate and post its [`Outcome`].
    Run(Job),
    /// The request succeeded; print this, if anything, and exit 0.
    Done {
        /// The text for standard output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<String>,
    },
    /// The request failed; print the error object and exit 1.
    Fail {
        /// The error object.
        error: CniError,
    },
}

/// One run of one delegate plugin.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// Counts up within a conversation; the outcome repeats it.
    pub id: u32,
    /// The plugin's file name, looked up in `binDir` and `CNI_PATH` of whoever runs it.
    pub plugin: PluginName,
    /// `CNI_COMMAND`.
    pub verb: Command,
    /// `CNI_CONTAINERID`; another container than the conversation's only with [`Command::Del`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerId>,
    /// `CNI_NETNS`; under the rule of `container`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<NetnsPath>,
    /// `CNI_IFNAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ifname: Option<IfName>,
    /// `CNI_ARGS`.
    #[serde(default)]
    pub args: String,
    /// Standard input, byte for byte.
    pub stdin: String,
    /// Milliseconds the plugin may take.
    pub timeout_ms: u64,
}

/// How a delegate ended.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// [`Job::id`].
    pub id: u32,
    /// The exit code, if it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<i32>,
    /// Standard output, at most [`MOST_STDOUT`] bytes.
    #[serde(default)]
    pub stdout: String,
    /// The end of standard error, at most [`MOST_STDERR`] bytes.
    #[serde(default)]
    pub stderr: String,
    /// Why there is no exit code, or why the output does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// Milliseconds it took.
    #[serde(default)]
    pub took_ms: u64,
}

/// What went wrong around a plugin, rather than in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Problem {
    /// No such file in any folder searched; the text lists them.
    NotFound(String),
    /// It could not be started; the text says why.
    NotStarted(String),
    /// It ran past its time and was ended.
    TimedOut,
    /// It was ended by this signal.
    Signal(i32),
    /// It printed more than [`MOST_STDOUT`] bytes and was ended.
    TooMuchOutput,
    /// The job broke a rule of the shim; the text says which.
    Refused(String),
}

/// A whole request from upstream's shim (`POST /cni`) or the dynamic-networks controller (`POST /delegate`). Go writes
/// nothing at all as `null`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpstreamRequest {
    /// The environment, all of it.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    /// Standard input in base64.
    #[serde(default)]
    pub config: Option<String>,
    /// What a pod wishes for the one network; `/delegate` alone.
    #[serde(default, rename = "interfaceAttributes", skip_serializing_if = "Option::is_none")]
    pub attributes: Option<InterfaceAttributes>,
}

/// What a pod wishes for one network that is attached while it runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InterfaceAttributes {
    /// Addresses, with or without prefix length.
    #[serde(default)]
    pub ips: Option<Vec<String>>,
    /// Hardware address.
    #[serde(default)]
    pub mac: Option<String>,
    /// What goes into `args.cni` of every plugin.
    #[serde(default, rename = "cni-args")]
    pub cni_args: Option<serde_json::Value>,
}

/// Reads a duration as Go writes it: `120s`, `1m30s`, `250ms`. `None`: it is not one.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?;
        sum = sum.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_agree_on_the_newest_protocol_that_both_speak() {
        let call = |protocol, oldest| Call {
            protocol,
            oldest,
            shim: String::new(),
            env: BTreeMap::new(),
            config: String::new(),
            timeout_ms: 0,
            again: false,
            netns_id: None,
        };
        for (protocol, oldest, agreed) in [
            (PROTOCOL, None, Some(PROTOCOL)),
            (PROTOCOL + 1, Some(PROTOCOL), Some(PROTOCOL)),
            (PROTOCOL + 2, Some(OLDEST_PROTOCOL), Some(PROTOCOL)),
            (PROTOCOL + 1, None, None),
            (PROTOCOL + 2, Some(PROTOCOL + 1), None),
            (OLDEST_PROTOCOL - 1, None, None),
            (OLDEST_PROTOCOL - 1, Some(0), None),
        ] {
            assert_eq!(call(protocol, oldest).agreed(), agreed, "{protocol} {oldest:?}");
        }
    }

    #[test]
    fn durations_are_go_s() {
        for (text, ms) in [("120s", 120_000), ("1m30s", 90_000), ("250ms", 250), ("0.5s", 500), ("1h", 3_600_000)] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "1", "s", "1d", "-1s", "1s ", "1.2.3s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
