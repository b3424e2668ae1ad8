//! A cell that is filled at its first use, in a process that may be forked meanwhile.

use std::sync::OnceLock;

/// What is in `cell`, built first if it is empty. Built beside it, not in it: a process that is forked
/// while another thread is in there would wait for that thread, which it does not have. Two threads
/// may both build it; one result is kept.
pub fn filled_beside<T>(cell: &OnceLock<T>, build: impl FnOnce() -> T) -> &T {
    cell.get().unwrap_or_else(|| {
        let built = build();
        cell.get_or_init(|| built)
    })
}
