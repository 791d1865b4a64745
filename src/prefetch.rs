//! Memory that is asked for before it is read.

/// Asks for the line of memory that a number lies in, so that it is in the second-level cache when it is read. The first one
/// can wait for a few lines at once only.
#[inline(always)]
pub(crate) fn ask<T>(number: &T) {
    #[cfg(target_arch = "x86_64")]
    safe_arch::prefetch_t1(number);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = number;
}
