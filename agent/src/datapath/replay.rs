//! How does a frame of the agent's reach one member of a parent, and nobody else? Through the parent's receive path, where
//! the relay's copies go.
//!
//! Never sends: the program that does it takes frames for members alone, and only of protocols that they have.

use std::sync::PoisonError;

use aya::programs::{TestRun, TestRunOptions};

use super::error::brief;
use super::object::{self, REPLAY};
use super::{Datapath, DatapathError, Mode};

/// Where the interface's index is in `struct __sk_buff` (linux/bpf.h); a shorter context counts as filled up with zeros.
const IFINDEX_AT: usize = 40;

impl Datapath {
    /// Gives `frame` to the member of the parent with index `parent` whose MAC is its destination. False: there is no
    /// such member, or it does not have the frame's protocol relayed. The calling thread is in the parent's namespace.
    ///
    /// # Errors
    /// What the kernel said: frames beyond some 3 500 bytes do not fit the test run of most (`EINVAL`), the parent may be
    /// gone.
    pub fn replay(&self, parent: u32, frame: &[u8]) -> Result<bool, DatapathError> {
        if self.settings.mode != Mode::Full {
            return Ok(false);
        }
        let mut context = [0; IFINDEX_AT + 4];
        for (byte, value) in context.iter_mut().skip(IFINDEX_AT).zip(parent.to_ne_bytes()) {
            *byte = value;
        }
        let options = TestRunOptions { data_in: Some(frame), ctx_in: Some(&context), ..TestRunOptions::new() };
        let mut parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        let done = object::classifier(&mut parents.object, REPLAY)?.test_run(options);
        let done = done.map_err(|error| DatapathError::Replay { parent, reason: brief(&error) })?;
        Ok(done.return_value == 1)
    }
}
