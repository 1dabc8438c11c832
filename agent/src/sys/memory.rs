//! How does memory that was only needed once go back to the system, and how is little of it needed?

/// Keeps the allocator from one heap per thread, up to eight per CPU: each keeps what its busiest moment needed. Two are
/// plenty for two workers. Once, before there are threads.
pub fn share_heaps() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "glibc's call has no safe form")]
        // SAFETY: mallopt(3) takes two integers, and is called before a second thread runs.
        let _done = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
    }
}

/// Gives free heap pages back; worth it once after start, when large temporaries are gone.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "glibc's call has no safe form")]
        // SAFETY: malloc_trim(3) is thread-safe and takes no pointer.
        let _released = unsafe { libc::malloc_trim(0) };
    }
}
