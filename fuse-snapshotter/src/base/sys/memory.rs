//! Freed memory that the allocator keeps.
#![expect(unsafe_code, reason = "malloc_trim(3) has no safe interface")]

/// Gives freed memory back to the system. Otherwise glibc keeps it, for each thread that has ever freed anything:
/// after the merge of a tree that is several times what the tree needs. This takes some milliseconds. It does
/// nothing where there is no glibc.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: the allocator has locks for it, and changes nothing that is in use.
        unsafe { libc::malloc_trim(0) };
    }
}
