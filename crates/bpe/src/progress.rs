//! How far a long job has come, and whether it should stop: a few atomics that workers touch once
//! per chunk of work (never once per word) and that any other thread may read at any time.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};

/// What a job is doing, and so the unit that its progress is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing has started.
    Waiting,
    /// Counting pretokens; the unit is bytes of input.
    Counting,
    /// Merging pairs; the unit is merges.
    Merging,
    /// Encoding; the unit is bytes of input.
    Encoding,
    /// Reading what is finished already; the unit is bytes of it.
    Checking,
}

impl Phase {
    /// In lower case, for a line of progress.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Counting => "counting",
            Phase::Merging => "merging",
            Phase::Encoding => "encoding",
            Phase::Checking => "checking",
        }
    }

    fn from_u8(value: u8) -> Phase {
        match value {
            1 => Phase::Counting,
            2 => Phase::Merging,
            3 => Phase::Encoding,
            4 => Phase::Checking,
            _ => Phase::Waiting,
        }
    }
}

/// Shared by the thread that watches a job and the threads that do it.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    done: AtomicU64,
    total: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

impl Progress {
    /// The progress of a job that has not started.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a phase. `total` is 0 where it cannot be known (a pipe).
    pub fn begin(&self, phase: Phase, total: u64) {
        self.done.store(0, Relaxed);
        self.total.store(total, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// Reports `amount` more units done.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the job is to stop.
    pub fn advance(&self, amount: u64) -> Result<()> {
        self.done.fetch_add(amount, Relaxed);
        self.check()
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the job is to stop.
    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Relaxed) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Calls `work`, a thread's part of the job: meanwhile [`check_thread`] on it is
    /// [`check`](Self::check), for what is deep inside and takes long.
    pub(crate) fn watched<R>(&self, work: impl FnOnce() -> R) -> R {
        let before = WATCHED.replace(Some(Arc::clone(&self.cancelled)));
        let _restore = Restore(before);
        work()
    }

    /// Asks the job to stop: it fails with [`Error::Cancelled`] at its next step.
    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// The phase, the units done in it, and the units in all (0 where nobody knows).
    pub fn snapshot(&self) -> (Phase, u64, u64) {
        let phase = Phase::from_u8(self.phase.load(Relaxed));
        (phase, self.done.load(Relaxed), self.total.load(Relaxed))
    }
}

thread_local!(static WATCHED: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) });

/// Puts back, also after a panic, which job the thread worked for before.
struct Restore(Option<Arc<AtomicBool>>);

impl Drop for Restore {
    fn drop(&mut self) {
        WATCHED.replace(self.0.take());
    }
}

/// Whether the job that this thread works for is to go on; without one, always.
///
/// # Errors
/// [`Error::Cancelled`] if the job is to stop.
pub(crate) fn check_thread() -> Result<()> {
    match WATCHED.with_borrow(|job| job.as_ref().is_some_and(|cancelled| cancelled.load(Relaxed))) {
        true => Err(Error::Cancelled),
        false => Ok(()),
    }
}
