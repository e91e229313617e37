//! What the allocator keeps.
#![expect(unsafe_code, reason = "malloc_trim(3) has no safe interface")]

/// Gives memory that was freed back to the system. glibc keeps it otherwise, for each thread that has ever freed anything:
/// after a tree has been merged that is several times what the tree needs. Takes some milliseconds; where there is no glibc
/// it does nothing.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the allocator has locks for it, and changes nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}
