//! `capture`: what passes on an attachment, on a parent or through the relay, as a pcapng file with a comment for each frame.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use crate::cli::{Agent, Ending, output, pour, query, time};
use crate::fault::{many, quote};

/// Shown with the long help.
pub const EXAMPLES: &str = "Examples:
  multus-agent capture --attachment home/camera/net1 -w camera.pcapng
  multus-agent capture --parent eth0 --for 10s -w - | tshark -r - -T fields -e ip.src -e frame.comment
  multus-agent capture --relay --dropped -w relay.pcapng      what the relay did not carry, and why

The comment of a frame says who it is from and which way it went; with --relay, what the relay decided and why. The agent
ends a capture at its caps, and when the pod is gone; frames that came too fast are counted in the file's statistics.
The relay's frames are kept up to 256 bytes.";

/// What is asked for.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("of").required(true).multiple(true).args(["attachment", "parent", "relay"]))]
pub struct Capture {
    /// Where the agent is.
    #[command(flatten)]
    agent: Agent,
    /// Everything on a pod's interface
    #[arg(long, value_name = "NAMESPACE/POD/INTERFACE", conflicts_with_all = ["parent", "relay"], help_heading = "What")]
    attachment: Option<String>,
    /// Everything on the link below attachments; with --relay, decisions on it alone
    #[arg(long, value_name = "INTERFACE", help_heading = "What")]
    parent: Option<String>,
    /// What the relay decides about each discovery frame
    #[arg(long, help_heading = "What")]
    relay: bool,
    /// Only what the relay did not carry
    #[arg(long, requires = "relay", help_heading = "What")]
    dropped: bool,
    /// Only this protocol
    #[arg(long, value_name = "NAME", requires = "relay", help_heading = "What")]
    protocol: Option<String>,
    /// How much, and where to.
    #[command(flatten)]
    caps: Caps,
}

/// How much is captured, and where it goes.
#[derive(Debug, Args)]
struct Caps {
    /// The file, which is replaced; - is standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// How many bytes of each frame: 64 to 9216
    #[arg(long, value_name = "N", default_value_t = 9216, value_parser = clap::value_parser!(u64).range(64..=9216),
        help_heading = "How much")]
    snaplen: u64,
    /// How large the file may grow, in MiB: 1 to 256
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=256),
        help_heading = "How much")]
    max_size: u64,
    /// How many frames: 1 to 1000000
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000),
        help_heading = "How much")]
    max_frames: u64,
    /// How long, up to 1h
    #[arg(long = "for", value_name = "TIME", default_value = "60s", value_parser = time, help_heading = "How much")]
    long: Duration,
}

/// Captures.
pub fn capture(asked: &Capture) -> Ending {
    let of = match (&asked.attachment, asked.relay) {
        (Some(_), _) => None,
        (None, true) => Some("relay".to_owned()),
        (None, false) => Some("parent".to_owned()),
    };
    let Caps { write, snaplen, max_size, max_frames, long } = &asked.caps;
    let path = query::with(
        "/v1/capture",
        &[
            ("attachment", asked.attachment.clone()),
            ("of", of),
            ("parent", asked.parent.clone()),
            ("verdict", asked.dropped.then(|| "skipped".to_owned())),
            ("protocol", asked.protocol.clone()),
            ("snaplen", Some(snaplen.to_string())),
            ("size", Some((max_size << 20).to_string())),
            ("frames", Some(max_frames.to_string())),
            ("for", Some(long.as_millis().max(1).to_string())),
        ],
    );
    write_to(&asked.agent.socket, &path, write, *long)
}

/// Writes the capture at `path` to `file`, and says how much that was.
pub fn write_to(socket: &Path, path: &str, file: &Path, long: Duration) -> Ending {
    let mut tally = Tally::default();
    // The agent says something at the latest when the time is over.
    let poured = pour::pour(socket, path, file, long + Duration::from_secs(10), |piece| tally.read(piece));
    if let Err(ending) = poured {
        return ending;
    }
    let lost = if tally.lost > 0 { format!(", {} more came too fast and are lost", tally.lost) } else { String::new() };
    let why = output::safe(&tally.end);
    output::complain(&format!("{} in {}{lost}; {why}", many(tally.frames, "frame"), quote(&file.to_string_lossy())));
    Ending::Fine
}

/// What a capture's blocks say of it.
#[derive(Debug, Default)]
struct Tally {
    frames: u64,
    lost: u64,
    end: String,
    /// The beginning of a block whose end has not come yet.
    rest: Vec<u8>,
}

impl Tally {
    fn read(&mut self, piece: &[u8]) {
        self.rest.extend_from_slice(piece);
        while let Some((kind, length)) = word(&self.rest, 0).zip(word(&self.rest, 4)) {
            let Some(length) = usize::try_from(length).ok().filter(|length| (12..=self.rest.len()).contains(length))
            else {
                return;
            };
            let block: Vec<u8> = self.rest.drain(..length).collect();
            match kind {
                6 => self.frames += 1,
                5 => self.statistics(&block),
                _ => {}
            }
        }
    }

    /// Reads the options of an interface statistics block: 1 is the comment, 5 what was lost.
    fn statistics(&mut self, block: &[u8]) {
        let mut at = 20;
        while let Some(head) = word(block, at) {
            let (code, length) = (head & 0xffff, usize::try_from(head >> 16).unwrap_or_default());
            let value = block.get(at + 4..at + 4 + length).unwrap_or_default();
            match (code, value.try_into()) {
                (0, _) => return,
                (1, _) => self.end = String::from_utf8_lossy(value).into_owned(),
                (5, Ok(lost)) => self.lost = u64::from_le_bytes(lost),
                _ => {}
            }
            at += 4 + length.next_multiple_of(4);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}
