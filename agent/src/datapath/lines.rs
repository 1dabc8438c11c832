//! Where do the tracing object's lines go? Into the agent's log, by a thread that lives as long as the datapath is open.
//!
//! Only opened with `datapath.log`. The ring buffer between the kernel and the thread is bounded: when it is full, the
//! programs drop lines, never frames.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;

use super::error::{DatapathError, brief};

/// How long a line may wait.
const PERIOD: Duration = Duration::from_millis(100);

/// The thread that carries the lines; it ends soon after this is dropped.
#[derive(Debug)]
pub(super) struct Lines {
    _running: Sender<()>,
}

/// Carries the lines of the object's programs to the log, each at the level the program gave it.
pub(super) fn follow(object: &mut Ebpf) -> Result<Lines, DatapathError> {
    let refused = |reason: String| DatapathError::Load { what: "log of the tracing object", reason };
    let mut logger = EbpfLogger::init(object).map_err(|error| refused(brief(&error)))?;
    let (running, ended) = channel();
    let carry = move || {
        loop {
            logger.flush();
            if ended.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    };
    let started: io::Result<_> = thread::Builder::new().name("ebpf-log".to_owned()).spawn(carry);
    started.map_err(|error| refused(format!("start a thread: {error}")))?;
    Ok(Lines { _running: running })
}
