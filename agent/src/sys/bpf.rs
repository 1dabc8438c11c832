//! What do the values of a per-CPU array say, many in one call? `BPF_MAP_LOOKUP_BATCH`, which aya does not wrap.
//!
//! Knows bytes and sizes, and not what is counted. Loads and attaches nothing.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Commands of bpf(2), `enum bpf_cmd` of the kernel's `linux/bpf.h`.
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
/// `enum bpf_map_type`: a per-CPU array.
const PERCPU_ARRAY: u32 = 6;
/// Most words of one call's buffer: 1 MiB, so that a machine of many CPUs costs calls and not memory.
const MOST_WORDS: usize = 1 << 17;

/// The part of `union bpf_attr` that batches use; `before` and `last` are `in_batch` and `out_batch` there.
#[repr(C)]
#[derive(Debug, Default)]
struct Batch {
    before: u64,
    last: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that asks for information.
#[repr(C)]
#[derive(Debug, Default)]
struct Ask {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// The beginning of `struct bpf_map_info`.
#[repr(C)]
#[derive(Debug, Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// A per-CPU array whose values are whole 64-bit words.
#[derive(Debug)]
pub struct PerCpuWords {
    map: OwnedFd,
    /// Words of one value, of one CPU.
    words: usize,
    /// CPUs that the kernel keeps a value for.
    cpus: usize,
}

impl PerCpuWords {
    /// The map behind `map`, by a descriptor of its own.
    ///
    /// # Errors
    /// It is no per-CPU array of whole words, or the kernel does not say what it is.
    pub fn of(map: impl AsFd) -> io::Result<Self> {
        let map = map.as_fd().try_clone_to_owned()?;
        let info = info(map.as_raw_fd())?;
        if info.kind != PERCPU_ARRAY || info.key_size != 4 || info.value_size == 0 || info.value_size % 8 != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no per-CPU array of words: {info:?}")));
        }
        Ok(Self { map, words: usize::try_from(info.value_size / 8).unwrap_or(usize::MAX), cpus: possible_cpus()? })
    }

    /// Hands the words of the entries 0 to `entries`, each summed over the CPUs, to `take`, in order; with as few calls as
    /// the buffer allows.
    ///
    /// # Errors
    /// The kernel has no batches for per-CPU arrays (before 5.13: `ENOTSUPP`, or `EINVAL` before 5.6), or the call failed.
    pub fn sums(&self, entries: u32, mut take: impl FnMut(u32, &[u64])) -> io::Result<()> {
        let each = self.words.saturating_mul(self.cpus).max(1);
        let most = u32::try_from(MOST_WORDS / each).unwrap_or(u32::MAX).clamp(1, entries.max(1));
        let room = usize::try_from(most).unwrap_or(usize::MAX);
        let (mut keys, mut values) = (vec![0_u32; room], vec![0_u64; room.saturating_mul(each)]);
        let mut sum = vec![0_u64; self.words];
        let mut read = 0;
        while read < entries {
            let got = self.batch(read.checked_sub(1), most.min(entries - read), &mut keys, &mut values)?;
            if got == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the map ends after {read} entries")));
            }
            for (key, value) in keys.iter().zip(values.chunks_exact(each)).take(got) {
                sum.fill(0);
                for part in value.chunks_exact(self.words) {
                    sum.iter_mut().zip(part).for_each(|(total, word)| *total = total.wrapping_add(*word));
                }
                take(*key, &sum);
            }
            read = read.saturating_add(u32::try_from(got).unwrap_or(u32::MAX));
        }
        Ok(())
    }

    /// The entries that follow `after`, at most `most`; says how many there were.
    fn batch(&self, after: Option<u32>, most: u32, keys: &mut [u32], values: &mut [u64]) -> io::Result<usize> {
        let wanted = usize::try_from(most).unwrap_or(usize::MAX);
        if keys.len() < wanted || values.len() < wanted.saturating_mul(self.words).saturating_mul(self.cpus) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the buffers are too small"));
        }
        let (before, mut last) = (after.unwrap_or_default(), 0_u32);
        let mut ask = Batch {
            before: after.map_or(0, |_| address(&raw const before)),
            last: address(&raw mut last),
            keys: address(keys.as_mut_ptr()),
            values: address(values.as_mut_ptr()),
            count: most,
            map_fd: u32::try_from(self.map.as_raw_fd()).unwrap_or(u32::MAX),
            ..Batch::default()
        };
        // SAFETY: the kernel reads a key of 4 bytes (checked by `of`) at `before` and writes one at `last`; at `keys`
        // and `values` it writes at most `count` keys and `count` values, each of the map's value size, which is whole
        // words, for every possible CPU: both were just seen to have room for that. All outlive the call.
        #[expect(unsafe_code, reason = "libc has no form of bpf(2)")]
        let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_LOOKUP_BATCH, &raw mut ask, size_of::<Batch>()) };
        let got = usize::try_from(ask.count).unwrap_or(usize::MAX).min(wanted);
        match io::Error::last_os_error() {
            _ if done == 0 => Ok(got),
            // The end of the map: what came before it is there.
            error if error.raw_os_error() == Some(libc::ENOENT) => Ok(got),
            error => Err(error),
        }
    }
}

fn info(map: RawFd) -> io::Result<MapInfo> {
    let mut info = MapInfo::default();
    let mut ask = Ask {
        bpf_fd: u32::try_from(map).unwrap_or(u32::MAX),
        info_len: u32::try_from(size_of::<MapInfo>()).unwrap_or_default(),
        info: address(&raw mut info),
    };
    // SAFETY: the kernel writes at most `info_len` bytes at `info`, which is that long and outlives the call; any bytes are
    // integers.
    #[expect(unsafe_code, reason = "libc has no form of bpf(2)")]
    let done = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &raw mut ask, size_of::<Ask>()) };
    if done == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
}

/// As bpf(2) wants a pointer.
fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.expose_provenance()).unwrap_or_default()
}

/// How many CPUs may ever be there: a per-CPU value has a part for each (sysfs, `devices/system/cpu/possible`).
fn possible_cpus() -> io::Result<usize> {
    let text = fs::read_to_string("/sys/devices/system/cpu/possible")?;
    count(text.trim())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("possible CPUs: {:?}", text.trim())))
}

/// How many numbers are in a list such as `0-3,8`.
fn count(list: &str) -> Option<usize> {
    list.split(',').try_fold(0_usize, |sum, range| {
        let (lowest, highest) = range.split_once('-').unwrap_or((range, range));
        let (lowest, highest) = (lowest.parse::<usize>().ok()?, highest.parse::<usize>().ok()?);
        sum.checked_add(highest.checked_sub(lowest)?.checked_add(1)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn possible_cpus_are_lists_of_ranges() {
        for (list, cpus) in
            [("0", Some(1)), ("0-1", Some(2)), ("0-3,8", Some(5)), ("", None), ("0-x", None), ("3-0", None)]
        {
            assert_eq!(count(list), cpus, "{list}");
        }
    }
}
