//! How does memory that was only needed once go back to the system?

/// Gives free heap pages back; worth it once after start, when large temporaries are gone.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "glibc's call has no safe form")]
        // SAFETY: malloc_trim(3) is thread-safe and takes no pointer.
        let _released = unsafe { libc::malloc_trim(0) };
    }
}
