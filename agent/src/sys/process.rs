//! What does this process use of the machine? Read from `/proc/self`; changes nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clock;

/// Ticks of a second in `/proc/<pid>/stat`: `USER_HZ`, 100 on every architecture we build for.
const TICKS: u32 = 100;
/// A control group without a limit of its own says this much or more, or `max` (cgroup v1: `PAGE_COUNTER_MAX` pages).
const NO_LIMIT: u64 = 1 << 62;

/// What the process uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub resident: u64,
    /// Address space in bytes.
    pub virtual_memory: u64,
    /// Time of all CPUs, in user and kernel mode.
    pub cpu: Duration,
    /// When it started, since the Unix epoch.
    pub started: Duration,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Descriptors it may have open.
    pub most_descriptors: u64,
}

/// Looks now; what cannot be read is 0.
pub fn usage() -> Usage {
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}")).unwrap_or_default();
    let (status, stat, limits) = (read("status"), read("stat"), read("limits"));
    let kib = |name: &str| number_after(&status, name) * 1024;
    // The one that lists them is open, too.
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, |list| list.count().saturating_sub(1));
    // The program's name may hold blanks and brackets; what follows it is field 3 (proc(5)).
    let fields: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    let ticks = |field: usize| fields.get(field - 3).copied().unwrap_or(0);
    Usage {
        resident: kib("VmRSS:"),
        virtual_memory: kib("VmSize:"),
        cpu: seconds(ticks(14) + ticks(15)),
        started: boot_time() + seconds(ticks(22)),
        threads: number_after(&status, "Threads:"),
        descriptors: u64::try_from(descriptors).unwrap_or(0),
        most_descriptors: number_after(&limits, "Max open files"),
    }
}

/// Memory that the process's control group may have, in bytes; `None`: there is no limit, or it cannot be seen.
pub fn memory_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let version_2 = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let root = Path::new("/sys/fs/cgroup");
    let below = root.join(version_2.trim_start_matches('/')).join("memory.max");
    let files = [below, root.join("memory.max"), root.join("memory/memory.limit_in_bytes")];
    let text = files.iter().find_map(|file| fs::read_to_string(file).ok())?;
    text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
}

fn seconds(ticks: u64) -> Duration {
    Duration::from_millis(ticks.saturating_mul(u64::from(1000 / TICKS)))
}

fn boot_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(clock::since_boot())
}

fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let before = usage();
        let _more = fs::File::open("/proc/self/stat").unwrap();
        let after = usage();
        assert!(before.resident > 1 << 20 && before.virtual_memory > before.resident, "{before:?}");
        assert!(before.threads >= 1 && before.most_descriptors > before.descriptors, "{before:?}");
        assert!(after.descriptors > before.descriptors, "{before:?} {after:?}");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.checked_sub(before.started);
        assert!(age.is_some_and(|age| age < Duration::from_hours(1)), "{before:?}");
    }
}
