//! Threads that may be refused: a system or a container lets a user have only so many
//! (RLIMIT_NPROC, cgroups). No result depends on their number, so a job makes do with fewer.

use std::any::Any;
use std::cell::OnceCell;
use std::ops::Deref;
use std::rc::Rc;
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

/// Threads of a job's own, or the calling thread where there cannot be another.
pub enum Pool {
    Own(ThreadPool),
    Caller(Rc<ThreadPool>),
}

impl Deref for Pool {
    type Target = ThreadPool;

    fn deref(&self) -> &ThreadPool {
        match self {
            Self::Own(pool) => pool,
            Self::Caller(pool) => pool,
        }
    }
}

/// A pool of up to `threads` threads.
///
/// # Errors
/// There cannot be a single one, and the calling thread works for another pool.
pub fn pool(threads: usize) -> Result<Pool> {
    let mut threads = threads.max(1);
    loop {
        match ThreadPoolBuilder::new().num_threads(threads).build() {
            Ok(pool) => return Ok(Pool::Own(pool)),
            Err(_) if threads > 1 => threads /= 2,
            Err(_) => return pool_of_caller(),
        }
    }
}

thread_local!(static CALLER: OnceCell<Rc<ThreadPool>> = const { OnceCell::new() });

/// The pool of the calling thread alone. A thread joins one pool in its life: it is kept.
fn pool_of_caller() -> Result<Pool> {
    CALLER.with(|kept| {
        if let Some(pool) = kept.get() {
            return Ok(Pool::Caller(Rc::clone(pool)));
        }
        let built = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
        let pool = Rc::new(built.map_err(|error| {
            Error::invalid(format!(
                "cannot start a thread ({error}): end other programs, or allow more (ulimit -u)"
            ))
        })?);
        Ok(Pool::Caller(Rc::clone(kept.get_or_init(|| pool))))
    })
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

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;

    #[test]
    fn the_calling_thread_is_a_pool_too_and_again() {
        for _ in 0..3 {
            let pool = pool_of_caller().expect("one thread is here");
            assert_eq!(pool.current_num_threads(), 1);
            let here = std::thread::current().id();
            assert_eq!(pool.broadcast(|_| std::thread::current().id()), [here]);
            let sum: u64 = pool.install(|| (0..10_000u64).into_par_iter().sum());
            assert_eq!(sum, 49_995_000);
        }
    }
}
