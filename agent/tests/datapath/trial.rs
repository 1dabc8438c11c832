//! A loaded program, run by the kernel on a frame of ours instead of on traffic (`BPF_PROG_TEST_RUN`).
#![expect(unsafe_code, reason = "aya does not let an XDP program that somebody else loaded be run")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::programs::{ProgramFd, loaded_programs};

use crate::model::Input;

/// A program that somebody has loaded.
pub(crate) struct Trial {
    program: ProgramFd,
}

/// What the kernel says of one run: the answer, the frame and the mark afterwards.
pub(crate) struct Ran {
    pub(crate) answer: i32,
    pub(crate) frame: Vec<u8>,
    pub(crate) mark: u32,
}

/// The part of `union bpf_attr` (linux/bpf.h) that this command takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    program: u32,
    answer: u32,
    frame_size: u32,
    frame_size_after: u32,
    frame: u64,
    frame_after: u64,
    repeat: u32,
    duration: u32,
    context_size: u32,
    context_size_after: u32,
    context: u64,
    context_after: u64,
    flags: u32,
    cpu: u32,
}

const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// Fields of `struct __sk_buff` (linux/bpf.h) that a test run may set, and how long that is.
const MARK_AT: usize = 8;
const INGRESS_AT: usize = 36;
const INDEX_AT: usize = 40;
const SEGMENTS_AT: usize = 164;
const CONTEXT: usize = 192;

impl Trial {
    pub(crate) fn of(id: u32) -> Self {
        let info = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id).unwrap();
        Self { program: info.fd().unwrap() }
    }

    /// Runs a TC program as on the interface `index` of this thread's namespace.
    pub(crate) fn packet(&self, index: u32, input: &Input) -> Ran {
        let mut context = [0u8; CONTEXT];
        let mut set = |at: usize, value: u32| context[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        set(MARK_AT, input.mark);
        set(INGRESS_AT, u32::from(input.forwarded));
        set(INDEX_AT, index);
        set(SEGMENTS_AT, input.segments);
        self.run(&input.frame, &context)
    }

    /// Runs an XDP program.
    pub(crate) fn buffer(&self, frame: &[u8]) -> Ran {
        self.run(frame, &[])
    }

    fn run(&self, frame: &[u8], context: &[u8]) -> Ran {
        let (mut after, mut context_after) = (vec![0u8; 8192], [0u8; CONTEXT]);
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
        let mut attributes = Attributes {
            program: self.program.as_fd().as_raw_fd().cast_unsigned(),
            frame_size: size(frame),
            frame_size_after: size(&after),
            frame: frame.as_ptr() as u64,
            frame_after: after.as_mut_ptr() as u64,
            repeat: 1,
            ..Attributes::default()
        };
        if !context.is_empty() {
            attributes.context_size = size(context);
            attributes.context_size_after = size(&context_after);
            attributes.context = context.as_ptr() as u64;
            attributes.context_after = context_after.as_mut_ptr() as u64;
        }
        // SAFETY: the attributes point at live buffers of the stated sizes, and the kernel writes to the two that are ours
        // to write.
        let done =
            unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<Attributes>()) };
        assert_eq!(done, 0, "test run: {}: {frame:02x?}", io::Error::last_os_error());
        after.truncate(usize::try_from(attributes.frame_size_after).unwrap());
        let mark = u32::from_ne_bytes(context_after[MARK_AT..MARK_AT + 4].try_into().unwrap());
        Ran { answer: attributes.answer.cast_signed(), frame: after, mark }
    }
}
