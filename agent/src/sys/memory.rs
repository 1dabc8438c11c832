//! How does memory that was only needed once go back to the system, how is little of it needed, and may maps have theirs?

/// What glibc's allocator reads, once, before `main` (glibc manual, "Memory Allocation Tunables").
#[cfg(target_env = "gnu")]
const TUNABLES: &str = "GLIBC_TUNABLES";

/// One heap, and no cache per thread. A heap per thread keeps what its busiest moment needed. What a thread caches counts
/// as in use: after a burst such leftovers lie all over the heap, and each keeps a page of it that could go back.
#[cfg(target_env = "gnu")]
const FRUGAL: &str = "glibc.malloc.tcache_count=0:glibc.malloc.arena_max=1";

/// Starts the program anew, as the same process, with an allocator that gives back what a burst needed. It can only be
/// told through the environment. Returns when that is so already, when the operator has told it something himself, where
/// the program's file cannot be found, or where the C library takes the word away again (`AT_SECURE`, ld.so(8)): it would
/// start anew for ever. Before anything is open.
pub fn start_frugal() {
    #[cfg(target_env = "gnu")]
    {
        use std::os::unix::process::CommandExt;
        use std::{env, process};

        #[expect(unsafe_code, reason = "std does not tell")]
        // SAFETY: getauxval(3) takes a number and gives one.
        let is_secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
        if is_secure || env::var_os(TUNABLES).is_some() {
            return;
        }
        let Ok(program) = env::current_exe() else { return };
        let mut given = env::args_os();
        let name = given.next().unwrap_or_else(|| program.clone().into());
        // Only a failure returns, and then it goes on as it is.
        let _failed = process::Command::new(program).arg0(name).args(given).env(TUNABLES, FRUGAL).exec();
    }
}

/// Gives free heap pages back; worth it when large temporaries, or a burst, are gone.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "glibc's call has no safe form")]
        // SAFETY: malloc_trim(3) is thread-safe and takes no pointer.
        let _released = unsafe { libc::malloc_trim(0) };
    }
}

/// Lifts the limit of locked memory, which kernels before 5.11 hold eBPF maps against. Takes `CAP_SYS_RESOURCE` where the
/// limit is lower; where that is missing it stays, and maps that do not fit are refused later (setrlimit(2)).
pub fn lock_as_needed() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    #[expect(unsafe_code, reason = "std has no call for it")]
    // SAFETY: `limit` is a whole structure that lives through the call.
    let _refused = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}
