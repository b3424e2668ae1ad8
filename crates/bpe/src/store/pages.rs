//! Memory made ready before it is used: its pages, and its cache lines.

use std::hint::black_box;

/// `len` copies of `value`, every page of them written to.
///
/// `vec![0; len]` gets its pages lazily. A page that is read before it is written is mapped to a
/// shared page of zeros first and replaced later, and to replace it the kernel interrupts every
/// other core that runs a thread of the process. Tables that look before they write pay that for
/// every page: a quarter of the time of training on two cores.
pub fn filled<T: Copy>(value: T, len: usize) -> Vec<T> {
    let mut filled = Vec::with_capacity(len);
    // If the compiler saw zeros, it would turn this into `vec![0; len]`.
    filled.resize(len, black_box(value));
    filled
}

/// Asks the processor to load `place` into its caches, without waiting for it: for tables larger
/// than the caches, when it is known early which entry will be read. It made encoding on one core
/// 15 to 25 % faster, where look-ups waited for the third-level cache.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch changes nothing that a program can see, and a reference is valid.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place; // no stable instruction
}
