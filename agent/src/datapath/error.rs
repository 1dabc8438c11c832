//! What can go wrong between the agent and the kernel's eBPF, said with the action and the value.

use std::io;
use std::path::PathBuf;

use super::attachment::Mac;
use crate::sys::netns::NetnsError;

/// Why the datapath could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    /// The pin folder could not be made or read.
    #[error("{action} {path:?}: {source}")]
    Pins {
        /// What was tried.
        action: &'static str,
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is pinned needs a bpffs.
    #[error(
        "datapath.bpffs {0:?} is not on a bpffs: mount one (mount -t bpf bpf /sys/fs/bpf) and share it with the agent, which looks for it now and then"
    )]
    NoBpffs(PathBuf),
    /// A pinned map of another layout lies where ours belongs; it was not touched.
    #[error(
        "reuse pinned map {path:?}: its {what} is {found}, this agent needs {needed}; remove the pin or use another datapath.bpffs"
    )]
    Layout {
        /// The pin.
        path: PathBuf,
        /// Which property differs.
        what: &'static str,
        /// What the pinned map has.
        found: u32,
        /// What the programs of this agent use.
        needed: u32,
    },
    /// The kernel took an object or program not; the text carries the verifier's last words.
    #[error("load eBPF {what}: {reason}")]
    Load {
        /// Object or program.
        what: &'static str,
        /// The loader's error.
        reason: String,
    },
    /// A map did not take or give an entry.
    #[error("{action} map {map}: {reason}")]
    Map {
        /// What was tried.
        action: &'static str,
        /// The map's name.
        map: &'static str,
        /// The kernel's error.
        reason: String,
    },
    /// A map has no room for one more entry.
    #[error("map {map} is full")]
    Full {
        /// The map's name.
        map: &'static str,
    },
    /// A program could not be attached.
    #[error("attach {program} to {interface:?} by {method}: {reason}")]
    Attach {
        /// The program's name.
        program: &'static str,
        /// The interface's name.
        interface: String,
        /// `tcx` or `clsact`.
        method: &'static str,
        /// The kernel's error.
        reason: String,
    },
    /// A frame could not be given to a member.
    #[error("give a frame to a member of the parent with index {parent}: {reason}")]
    Replay {
        /// Interface index of the parent.
        parent: u32,
        /// The kernel's error.
        reason: String,
    },
    /// It cannot be seen whether programs are on an interface.
    #[error("look at the programs on {interface:?}: {reason}")]
    Unseen {
        /// The interface's name.
        interface: String,
        /// The kernel's error.
        reason: String,
    },
    /// Two members of one parent cannot be told apart.
    #[error("its hardware address {mac} is that of another pod on {parent:?}: give it one of its own")]
    SameMac {
        /// The address.
        mac: Mac,
        /// The parent's name.
        parent: String,
    },
    /// The interface is not in the namespace where it was announced.
    #[error("find interface {interface:?} in {netns:?}: there is none")]
    NoInterface {
        /// The interface's name.
        interface: String,
        /// The namespace's path.
        netns: PathBuf,
    },
    /// The pod's namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The configuration names a protocol that the relay does not know.
    #[error("relay protocol {name:?} is not known: use one of {known}")]
    UnknownProtocol {
        /// As written.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// A protocol of the operator's own is sent where another one is.
    #[error(
        "datapath.relay.custom.{name}: group {group} port {port} belongs to protocol {other:?}: use that one, or another group"
    )]
    CustomProtocol {
        /// The protocol's name.
        name: String,
        /// Its group.
        group: String,
        /// Its port.
        port: u16,
        /// Whose group it is.
        other: String,
    },
    /// Every stamp is given out.
    #[error("attach eBPF programs: {0} attachments already have them, and no more can be told apart")]
    NoInstance(u32),
}

impl DatapathError {
    /// Whether the pod's namespace or interface is gone, so that nothing is left to do there.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Netns(NetnsError::Gone(_)) | Self::NoInterface { .. })
    }
}

/// An error with everything that caused it, on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

/// A loader's error in a few words: its first line, and the last two of the verifier's log, which say what it minded.
/// The whole log goes to the debug log alone.
pub(super) fn brief(error: &(dyn std::error::Error + 'static)) -> String {
    let text = chain(error);
    tracing::debug!(error = %text, "the kernel refused an eBPF object");
    shorten(&text)
}

fn shorten(text: &str) -> String {
    const LINE: usize = 96;
    // How long the verifier took and how far it came is not what it minded.
    let is_tally =
        |line: &str| ["processed ", "stack depth ", "verification time "].iter().any(|w| line.starts_with(w));
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !is_tally(line));
    let first = lines.next().unwrap_or_default();
    let rest: Vec<&str> = lines.collect();
    let last = rest.iter().skip(rest.len().saturating_sub(2)).copied();
    let cut = |line: &str| match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    };
    let between = if rest.len() > 2 { " … " } else { "; " };
    let last: Vec<String> = last.map(cut).collect();
    if last.is_empty() { cut(first) } else { format!("{}{between}{}", cut(first), last.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifier_log_is_cut_to_its_ends() {
        let log = "the BPF_PROG_LOAD syscall failed. Verifier output: 0: R1=ctx() R10=fp0\n; let x = 1;\n1: (b7) r0 = 0\n\
                   invalid access to packet\nprocessed 5 insns (limit 1000000)\n\n";
        let expected = "the BPF_PROG_LOAD syscall failed. Verifier output: 0: R1=ctx() R10=fp0 … \
                        1: (b7) r0 = 0; invalid access to packet";
        assert_eq!(shorten(log), expected);
        assert_eq!(shorten("one line"), "one line");
        assert_eq!(shorten("one\ntwo"), "one; two");
        assert_eq!(shorten(""), "");
    }

    #[test]
    fn a_hostile_log_stays_short() {
        for log in ["x".repeat(100_000), "é".repeat(9000), format!("{}\n", "long ".repeat(90)).repeat(5000)] {
            let words = shorten(&log);
            assert!(words.chars().count() <= 300 && !words.contains('\n'), "{}", words.len());
        }
    }
}
