//! Threads that may be refused: a system or a container lets a user have only so many
//! (RLIMIT_NPROC, cgroups). No result depends on their number, so a job makes do with fewer.

use std::any::Any;
use std::thread::{Builder, Scope, ScopedJoinHandle};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Starts `work` on up to `threads` threads, on as many as there can be.
pub fn start<'scope, T, F>(
    scope: &'scope Scope<'scope, '_>,
    threads: usize,
    work: F,
) -> Vec<ScopedJoinHandle<'scope, T>>
where
    T: Send + 'scope,
    F: FnOnce() -> T + Send + Clone + 'scope,
{
    let started = |_| Builder::new().spawn_scoped(scope, work.clone()).ok();
    (0..threads).map_while(started).collect()
}

/// A pool of up to `threads` threads.
///
/// # Errors
/// There cannot be a single one.
pub fn pool(threads: usize) -> Result<ThreadPool> {
    let mut threads = threads.max(1);
    loop {
        match ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => return Ok(pool),
            Err(_) if threads > 1 => threads /= 2,
            Err(error) => return Err(no_thread(&error.to_string())),
        }
    }
}

/// The refusal of the only thread that a job needs.
pub fn no_thread(reason: &str) -> Error {
    Error::invalid(format!(
        "cannot start a thread ({reason}): end other programs, or allow more (ulimit -u)"
    ))
}

/// What a thread that panicked said.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let what = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    format!("internal error, please report it: {what}")
}
