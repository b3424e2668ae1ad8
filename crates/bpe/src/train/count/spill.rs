//! Counting in bounded memory: a table that has grown too large becomes a sorted run in a temporary
//! file without a name, which disappears whatever happens; in the end the runs are merged into one.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::sync::{Mutex, PoisonError};

use super::sorted_run::{self, CHECK_EVERY, EntryReader};
use super::table::CountTable;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// A process may open few files: so many runs are merged into one.
const MAX_RUNS: usize = 64;

/// The tables that did not fit into memory.
#[derive(Default)]
pub struct Spill {
    runs: Mutex<Vec<SortedRun>>,
}

/// Strings in ascending order with their counts, on the disk.
pub struct SortedRun {
    file: File,
    entries: u64,
}

impl Spill {
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Writes a table to a run of its own, and empties it.
    ///
    /// # Errors
    /// The disk is full, or `progress` says stop.
    pub fn write(&self, table: &mut CountTable, progress: &Progress) -> Result<()> {
        let mut out = SortedRunWriter::create()?;
        table.for_each_sorted(progress, |string, count| out.push(string, count, progress))?;
        *table = CountTable::default();
        let run = out.finish()?;
        let mut runs = self.lock();
        runs.push(run);
        if runs.len() == MAX_RUNS {
            let merged = sum(std::mem::take(&mut *runs), 0, progress)?;
            runs.push(merged);
        }
        Ok(())
    }

    /// The sum of all runs, without what is rarer than `min_count`.
    ///
    /// # Errors
    /// The disk is full, or `progress` says stop.
    pub fn sum(self, min_count: u64, progress: &Progress) -> Result<SortedRun> {
        let runs = std::mem::take(&mut *self.lock());
        sum(runs, min_count, progress)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SortedRun>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SortedRun {
    /// How many strings it holds.
    pub fn entries(&self) -> u64 {
        self.entries
    }
}

fn sum(runs: Vec<SortedRun>, min_count: u64, progress: &Progress) -> Result<SortedRun> {
    let mut out = SortedRunWriter::create()?;
    merge(runs, progress, |string, count| match count >= min_count {
        true => out.push(string, count, progress),
        false => Ok(()),
    })?;
    out.finish()
}

/// Calls `visit` with each string of all runs, in ascending order, and the sum of its counts.
///
/// # Errors
/// Those of `visit`, a run that cannot be read, [`Error::Cancelled`].
pub fn merge<E: From<Error>>(
    runs: Vec<SortedRun>,
    progress: &Progress,
    mut visit: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let reader = |mut run: SortedRun| -> io::Result<_> {
        run.file.rewind()?;
        Ok(EntryReader::new(BufReader::with_capacity(1 << 16, run.file), run.entries))
    };
    let mut readers =
        runs.into_iter().map(reader).collect::<io::Result<Vec<_>>>().map_err(disk_error)?;
    let merged = sorted_run::merge(&mut readers, progress, |string, count| {
        visit(string, count).map_err(MergeError::Visit)
    });
    merged.map_err(|error| match error {
        MergeError::Read(error) => disk_error(error).into(),
        MergeError::Visit(error) => error,
    })
}

/// Why a merge ended early.
enum MergeError<E> {
    Read(io::Error),
    Visit(E),
}

impl<E: From<Error>> From<Error> for MergeError<E> {
    fn from(error: Error) -> Self {
        MergeError::Visit(error.into())
    }
}

impl<E> From<(usize, io::Error)> for MergeError<E> {
    fn from((_, error): (usize, io::Error)) -> Self {
        MergeError::Read(error)
    }
}

/// The files have no names; their folder has one.
fn disk_error(error: io::Error) -> Error {
    Error::io(env::temp_dir(), error)
}

/// Writes a sorted run.
pub struct SortedRunWriter {
    out: BufWriter<File>,
    entries: u64,
}

impl SortedRunWriter {
    /// # Errors
    /// There is no folder for temporary files.
    pub fn create() -> Result<Self> {
        let file = tempfile::tempfile().map_err(disk_error)?;
        Ok(Self { out: BufWriter::with_capacity(1 << 16, file), entries: 0 })
    }

    /// Adds a string, greater than all before.
    ///
    /// # Errors
    /// The disk is full, or `progress` says stop.
    pub fn push(&mut self, string: &[u8], count: u64, progress: &Progress) -> Result<()> {
        sorted_run::write_entry(&mut self.out, string, count).map_err(disk_error)?;
        self.entries += 1;
        if self.entries.is_multiple_of(CHECK_EVERY) { progress.check() } else { Ok(()) }
    }

    /// # Errors
    /// The disk is full.
    pub fn finish(mut self) -> Result<SortedRun> {
        self.out.flush().map_err(disk_error)?;
        let file = self.out.into_inner().map_err(|error| disk_error(error.into_error()))?;
        Ok(SortedRun { file, entries: self.entries })
    }
}
