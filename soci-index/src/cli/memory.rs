//! What the allocator keeps.
#![expect(unsafe_code, reason = "the allocator's settings have no safe interface")]

/// Allocations of this size and more, in bytes, are given back to the system when they are freed.
const GIVEN_BACK: libc::c_int = 256 << 10;

/// Makes glibc give large allocations back. By itself it raises the size from which it does so to that of the largest
/// allocation it has seen, up to 32 MiB, and then keeps what each thread had for zTOCs: several times of what
/// `--max-memory` allows.
pub(crate) fn give_back() {
    // SAFETY: sets a number in the allocator, which has a lock for it; nothing else runs yet. If it is refused, nothing has
    // changed.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK) };
}
