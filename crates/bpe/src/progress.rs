//! How far a long job is, and the wish that it stop: a few atomics that workers touch once per
//! chunk of work (never once per word) and that any other thread may read at any time.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Nothing has begun.
    Waiting,
    /// Counting pretokens; the unit is bytes of input.
    Counting,
    /// Merging pairs; the unit is merges.
    Merging,
    /// Encoding; the unit is bytes of input.
    Encoding,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Waiting => "waiting",
            Phase::Counting => "counting",
            Phase::Merging => "merging",
            Phase::Encoding => "encoding",
        }
    }

    fn from_u8(value: u8) -> Phase {
        match value {
            1 => Phase::Counting,
            2 => Phase::Merging,
            3 => Phase::Encoding,
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
    cancelled: AtomicBool,
}

impl Progress {
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a phase. `total` is 0 where nobody can know it (a pipe).
    pub fn begin(&self, phase: Phase, total: u64) {
        self.done.store(0, Relaxed);
        self.total.store(total, Relaxed);
        self.phase.store(phase as u8, Relaxed);
    }

    /// Reports `amount` more units done, and says whether to go on: [`Error::Cancelled`] if not.
    pub fn advance(&self, amount: u64) -> Result<()> {
        self.done.fetch_add(amount, Relaxed);
        self.check()
    }

    pub fn check(&self) -> Result<()> {
        if self.cancelled.load(Relaxed) {
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    pub fn cancel(&self) {
        self.cancelled.store(true, Relaxed);
    }

    /// (phase, units done, units in all)
    pub fn snapshot(&self) -> (Phase, u64, u64) {
        let phase = Phase::from_u8(self.phase.load(Relaxed));
        (phase, self.done.load(Relaxed), self.total.load(Relaxed))
    }
}
