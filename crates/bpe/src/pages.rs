//! Memory that is there before it is used.

use std::hint::black_box;

/// `len` copies of `value`, every page of them written to.
///
/// `vec![0; len]` gets pages lazily. One that is read before it is written is mapped to a shared
/// page of zeros first and replaced later, and for the replacement the kernel interrupts every
/// other core that runs a thread of the process. Tables that look before they write meet that at
/// every page; it took a quarter of the time of training on two cores.
pub fn filled<T: Copy>(value: T, len: usize) -> Vec<T> {
    let mut filled = Vec::with_capacity(len);
    // The compiler may not see zeros, or it makes `vec![0; len]` of it.
    filled.resize(len, black_box(value));
    filled
}
