//! What passes on an attachment, on a parent or through the relay, as a pcapng file that comes piece by piece.
//!
//! Ends by itself: when its time is over, when it has as much as was asked for, when whoever reads is gone, or with its
//! interface. Decides nothing about frames, and keeps nothing.

mod frames;
pub mod pcapng;
mod relay;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::ops::context::Context;
use crate::sys::packet::LONGEST_FRAME;
use pcapng::{Frame, Writer};

/// How many captures at once.
const MOST_CAPTURES: usize = 4;
/// How many pieces wait for whoever reads; what comes beyond is lost, and counted by the kernel.
const PIECES: usize = 16;
/// A piece is handed out when it is this long, or this old.
const PIECE: usize = 32 << 10;
const PIECE_TIME: Duration = Duration::from_millis(100);

/// The most that can be asked for: time, bytes, frames, bytes of a frame.
pub const MOST_TIME: Duration = Duration::from_hours(1);
/// See [`MOST_TIME`].
pub const MOST_BYTES: u64 = 256 << 20;
/// See [`MOST_TIME`].
pub const MOST_FRAMES: u64 = 1_000_000;
/// See [`MOST_TIME`].
pub const MOST_SNAP: usize = LONGEST_FRAME;
/// The least bytes of a frame that are kept: its headers.
pub const LEAST_SNAP: usize = 64;

/// How many captures there may be.
#[derive(Debug)]
pub struct Captures(Arc<Semaphore>);

impl Default for Captures {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MOST_CAPTURES)))
    }
}

/// Of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Of {
    /// Everything on one interface of a pod: namespace, name, interface.
    Attachment(String, String, String),
    /// Everything on the link below attachments.
    Parent(String),
    /// What the relay decides.
    Relay(Decisions),
}

/// Which of the relay's decisions; what is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decisions {
    /// On this parent.
    pub parent: Option<String>,
    /// About this protocol.
    pub protocol: Option<String>,
    /// With this verdict: `relayed` or `skipped`.
    pub verdict: Option<String>,
    /// About frames of this pod (`NAMESPACE/NAME`), or of `host`.
    pub from: Option<String>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Of what.
    pub of: Of,
    /// How long; at most [`MOST_TIME`].
    pub long: Duration,
    /// How many bytes of file; at most [`MOST_BYTES`].
    pub bytes: u64,
    /// How many frames; at most [`MOST_FRAMES`].
    pub frames: u64,
    /// How many bytes of each frame, from [`LEAST_SNAP`] to [`MOST_SNAP`].
    pub snap: usize,
}

/// Why there is no capture.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// There are enough.
    #[error("{MOST_CAPTURES} captures are under way already; wait for one to end")]
    Busy,
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// The kernel refused.
    #[error("capture on {0}: {1}")]
    Refused(String, #[source] io::Error),
}

/// Begins one; its pieces are whole blocks.
///
/// # Errors
/// It cannot begin: why.
pub async fn begin(context: &Arc<Context>, wanted: Wanted) -> Result<mpsc::Receiver<Bytes>, CaptureError> {
    let permit = Arc::clone(&context.captures.0).try_acquire_owned().map_err(|_none_left| CaptureError::Busy)?;
    let (to, pieces) = mpsc::channel(PIECES);
    let film = Film {
        to,
        writer: Writer::default(),
        given: Instant::now(),
        end: Instant::now() + wanted.long,
        bytes_left: wanted.bytes,
        frames_left: wanted.frames,
        seen: 0,
        _permit: permit,
    };
    match wanted.of {
        Of::Relay(decisions) => relay::begin(context, decisions, wanted.snap, film)?,
        Of::Attachment(..) | Of::Parent(_) => {
            let source = frames::Source::open(context, &wanted.of, wanted.snap).await?;
            tokio::spawn(source.shoot(Arc::clone(context), film));
        }
    }
    Ok(pieces)
}

/// What is being written.
struct Film {
    to: mpsc::Sender<Bytes>,
    writer: Writer,
    given: Instant,
    end: Instant,
    bytes_left: u64,
    frames_left: u64,
    seen: u64,
    _permit: OwnedSemaphorePermit,
}

/// Why a capture is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    Time,
    Frames,
    Bytes,
    Gone,
    NoReader,
}

impl Over {
    const fn text(self) -> &'static str {
        match self {
            Self::Time => "its time was over",
            Self::Frames => "it had as many frames as were asked for",
            Self::Bytes => "it was as large as was asked for",
            Self::Gone => "the interface was gone",
            Self::NoReader => "nobody read it any more",
        }
    }
}

impl Film {
    /// Takes a frame in; says when that was the last.
    async fn take(&mut self, frame: &Frame) -> Option<Over> {
        self.writer.frame(frame);
        self.seen += 1;
        self.frames_left = self.frames_left.saturating_sub(1);
        let is_full = self.writer.len() as u64 >= self.bytes_left;
        if (is_full || self.writer.len() >= PIECE || self.given.elapsed() >= PIECE_TIME) && !self.give().await {
            return Some(Over::NoReader);
        }
        if is_full {
            return Some(Over::Bytes);
        }
        (self.frames_left == 0).then_some(Over::Frames)
    }

    /// Hands out what there is; false: nobody takes it before the end.
    async fn give(&mut self) -> bool {
        self.given = Instant::now();
        if self.writer.is_empty() {
            return !self.to.is_closed();
        }
        let piece = self.writer.take();
        self.bytes_left = self.bytes_left.saturating_sub(piece.len() as u64);
        let given = tokio::time::timeout_at(self.end + PIECE_TIME, self.to.send(Bytes::from(piece))).await;
        given.is_ok_and(|given| given.is_ok())
    }

    /// Writes how it was, and ends.
    async fn close(mut self, interface: &str, (had, lost): (u64, u64), over: Over) {
        if over != Over::NoReader {
            self.writer.statistics(
                interface,
                now(),
                (had, lost),
                &format!("the capture ended because {}", over.text()),
            );
            let piece = Bytes::from(self.writer.take());
            let _nobody = tokio::time::timeout(Duration::from_secs(2), self.to.send(piece)).await;
        }
    }
}

/// Nanoseconds of the Unix epoch.
fn now() -> u64 {
    nanos(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
