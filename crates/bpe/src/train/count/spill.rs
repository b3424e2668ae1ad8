//! Counting in bounded memory: a table that has grown too large becomes a sorted run in a
//! temporary file without a name, of which nothing is left whatever happens; in the end the runs
//! are summed side by side into one.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::sync::{Mutex, PoisonError};

use super::sorted_run::{self as run, CHECK_EVERY, RunReader};
use super::table::CountTable;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Open files are few; so many runs become one.
const MAX_RUNS: usize = 64;

#[derive(Default)]
pub struct Spill {
    runs: Mutex<Vec<Run>>,
}

/// Strings in ascending order with their counts, on the disk.
pub struct Run {
    file: File,
    entries: u64,
}

impl Spill {
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Writes a table to a run of its own, and empties it.
    pub fn write(&self, table: &mut CountTable, progress: &Progress) -> Result<()> {
        let mut out = RunFile::create()?;
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
    pub fn sum(self, min_count: u64, progress: &Progress) -> Result<Run> {
        let runs = std::mem::take(&mut *self.lock());
        sum(runs, min_count, progress)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// How many strings it holds.
    pub fn entries(&self) -> u64 {
        self.entries
    }
}

fn sum(runs: Vec<Run>, min_count: u64, progress: &Progress) -> Result<Run> {
    let mut out = RunFile::create()?;
    merge(runs, progress, |string, count| match count >= min_count {
        true => out.push(string, count, progress),
        false => Ok(()),
    })?;
    out.finish()
}

/// Calls `visit` with each string of all runs, in ascending order, and the sum of its counts.
pub fn merge<E: From<Error>>(
    runs: Vec<Run>,
    progress: &Progress,
    mut visit: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let reader = |mut run: Run| -> io::Result<_> {
        run.file.rewind()?;
        Ok(RunReader::new(BufReader::with_capacity(1 << 16, run.file), run.entries))
    };
    let mut readers =
        runs.into_iter().map(reader).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let merged = run::merge(&mut readers, progress, |string, count| {
        visit(string, count).map_err(Failed::Elsewhere)
    });
    merged.map_err(|error| match error {
        Failed::Reading(error) => failed(error).into(),
        Failed::Elsewhere(error) => error,
    })
}

enum Failed<E> {
    Reading(io::Error),
    Elsewhere(E),
}

impl<E: From<Error>> From<Error> for Failed<E> {
    fn from(error: Error) -> Self {
        Failed::Elsewhere(error.into())
    }
}

impl<E> From<(usize, io::Error)> for Failed<E> {
    fn from((_, error): (usize, io::Error)) -> Self {
        Failed::Reading(error)
    }
}

/// The files have no names; their folder has.
fn failed(error: io::Error) -> Error {
    Error::io(env::temp_dir(), error)
}

pub struct RunFile {
    out: BufWriter<File>,
    entries: u64,
}

impl RunFile {
    pub fn create() -> Result<Self> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Self { out: BufWriter::with_capacity(1 << 16, file), entries: 0 })
    }

    pub fn push(&mut self, string: &[u8], count: u64, progress: &Progress) -> Result<()> {
        run::write_entry(&mut self.out, string, count).map_err(failed)?;
        self.entries += 1;
        if self.entries.is_multiple_of(CHECK_EVERY) { progress.check() } else { Ok(()) }
    }

    pub fn finish(mut self) -> Result<Run> {
        self.out.flush().map_err(failed)?;
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        Ok(Run { file, entries: self.entries })
    }
}
