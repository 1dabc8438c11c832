//! What a node is like, for somebody who checks it: kernel, capabilities, memory, folders, addresses in use, and what the
//! plugin says of its version.
//!
//! Looks and changes nothing; everything read is bounded. What cannot be seen is `None`, and what that means is for others.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Most bytes of a file that is looked into.
const MOST_BYTES: u64 = 64 << 10;
/// Most entries of a folder.
const MOST_ENTRIES: usize = 65_536;
/// How long a plugin may take to say its version.
const PATIENCE: Duration = Duration::from_secs(2);

/// `uname -r`.
pub fn kernel_release() -> String {
    text("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// Does the kernel describe its types (`CONFIG_DEBUG_INFO_BTF`)?
pub fn has_btf() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// The effective capabilities of this process (`CapEff` of proc(5)).
pub fn capabilities() -> Option<u64> {
    let status = text("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

/// Bytes in use and the limit of this process's control group, where it has one (cgroup v2, else v1). What the kernel
/// keeps of files that nobody used lately is not in use: it goes before anybody is ended.
pub fn memory() -> Option<(u64, u64)> {
    let groups = text("/proc/self/cgroup")?;
    let path = |line: &str| line.rsplit(':').next().map(|path| path.trim_start_matches('/').to_owned());
    let v2 = groups.lines().find(|line| line.starts_with("0::")).and_then(path);
    let v1 = groups.lines().find(|line| line.contains(":memory:")).and_then(path);
    let root = Path::new("/sys/fs/cgroup");
    // In a container the group's own files are at the root of the mount.
    let places = [
        v2.map(|group| (root.join(group), "memory.current", "memory.max")),
        Some((root.to_owned(), "memory.current", "memory.max")),
        v1.map(|group| (root.join("memory").join(group), "memory.usage_in_bytes", "memory.limit_in_bytes")),
        Some((root.join("memory"), "memory.usage_in_bytes", "memory.limit_in_bytes")),
    ];
    let number = |path: PathBuf| text(path)?.trim().parse::<u64>().ok();
    // Without a limit v2 says "max", v1 a number that no machine has.
    places.into_iter().flatten().find_map(|(folder, used, limit)| {
        let limit = number(folder.join(limit)).filter(|limit| *limit < 1 << 60)?;
        let cached = text(folder.join("memory.stat")).and_then(|all| {
            let line = |name: &str| all.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            line("total_inactive_file ").or_else(|| line("inactive_file "))
        });
        Some((number(folder.join(used))?.saturating_sub(cached.unwrap_or_default()), limit))
    })
}

/// The names in `folder`; `None` where it cannot be read.
pub fn names(folder: &Path) -> Option<BTreeSet<String>> {
    let entries = fs::read_dir(folder).ok()?.flatten().take(MOST_ENTRIES);
    Some(entries.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The addresses that host-local keeps in `folder`, each with the container that has it. A folder that is not there yet
/// has none; `None` where the one above it cannot be seen either.
pub fn allocations(folder: &Path) -> Option<Vec<(IpAddr, String)>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return folder.parent().filter(|above| above.is_dir()).map(|_| Vec::new());
    };
    let allocation = |entry: fs::DirEntry| {
        let address: IpAddr = entry.file_name().to_str()?.parse().ok()?;
        let owner = text(entry.path()).unwrap_or_default();
        Some((address, owner.lines().next().unwrap_or_default().trim().to_owned()))
    };
    Some(entries.flatten().take(MOST_ENTRIES).filter_map(allocation).collect())
}

/// The same without their containers: only names are read.
pub fn addresses(folder: &Path) -> Option<BTreeSet<IpAddr>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return folder.parent().filter(|above| above.is_dir()).map(|_| BTreeSet::new());
    };
    let address = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    Some(entries.flatten().take(MOST_ENTRIES).filter_map(address).collect())
}

/// What `program` says of itself when it is started without arguments and without `CNI_COMMAND`: the first line of its
/// standard error.
///
/// # Errors
/// It cannot be started, or does not end.
pub fn introduction(program: &Path) -> Result<String, String> {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let until = Instant::now() + PATIENCE;
    while child.try_wait().map_err(|error| error.to_string())?.is_none() {
        if Instant::now() >= until {
            drop(child.kill());
            drop(child.wait());
            return Err(format!("it does not end within {} s", PATIENCE.as_secs()));
        }
        thread::sleep(Duration::from_millis(2));
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take() {
        drop(stderr.take(MOST_BYTES).read_to_string(&mut said));
    }
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_seen() {
        assert!(kernel_release().contains('.'), "{}", kernel_release());
        assert!(capabilities().is_some());
        assert!(memory().is_none_or(|(used, limit)| used > 0 && limit > 0));
    }

    #[test]
    fn allocations_are_read_as_host_local_writes_them() {
        let folder = std::env::temp_dir().join(format!("survey-{}", std::process::id()));
        assert_eq!(allocations(&folder.join("a/b")), None);
        fs::create_dir_all(folder.join("net")).unwrap();
        for (file, content) in
            [("10.0.0.5", "abc\r\neth0"), ("fd00::5", "def"), ("lock", ""), ("last_reserved_ip.0", "10.0.0.5")]
        {
            fs::write(folder.join("net").join(file), content).unwrap();
        }
        let mut found = allocations(&folder.join("net")).unwrap();
        found.sort();
        let wanted =
            [("10.0.0.5", "abc"), ("fd00::5", "def")].map(|(ip, owner)| (ip.parse().unwrap(), owner.to_owned()));
        assert_eq!(found, wanted);
        assert_eq!(allocations(&folder.join("none")), Some(Vec::new()));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_program_that_says_nothing_or_is_none_is_no_failure_of_ours() {
        assert_eq!(introduction(Path::new("/bin/true")).as_deref(), Ok(""));
        assert!(introduction(Path::new("/nonexistent")).is_err());
    }
}
