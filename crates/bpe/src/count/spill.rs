//! Counting in bounded memory: a table that has grown too large becomes a sorted run in a
//! temporary file without a name, of which nothing is left whatever happens; in the end the runs
//! are summed side by side.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::sync::{Mutex, PoisonError};

use super::PretokenCounts;
use super::run::{self, RunReader};
use super::table::CountTable;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Open files are few; so many runs become one.
const MAX_RUNS: usize = 64;

/// How many strings go by between two looks at whether to stop.
const CHECK_EVERY: u64 = 1 << 14;

#[derive(Default)]
pub struct Spill {
    runs: Mutex<Vec<Run>>,
}

struct Run {
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
        table.for_each_sorted(|string, count| out.push(string, count, progress))?;
        *table = CountTable::default();
        let run = out.finish()?;
        let mut runs = self.lock();
        runs.push(run);
        if runs.len() == MAX_RUNS {
            let mut merged = RunFile::create()?;
            merge(std::mem::take(&mut *runs), |string, count| {
                merged.push(string, count, progress)
            })?;
            runs.push(merged.finish()?);
        }
        Ok(())
    }

    /// The sum of all runs, without what is rarer than `min_count`.
    pub fn sum(self, min_count: u64, progress: &Progress) -> Result<PretokenCounts> {
        let mut counts = PretokenCounts::default();
        let mut seen = 0;
        merge(std::mem::take(&mut *self.lock()), |string, count| {
            if count >= min_count {
                counts.pretokens.push(string);
                counts.counts.push(count);
            }
            seen += 1;
            if seen % CHECK_EVERY == 0 { progress.check() } else { Ok(()) }
        })?;
        Ok(counts)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn merge(runs: Vec<Run>, visit: impl FnMut(&[u8], u64) -> Result<()>) -> Result<()> {
    let reader = |mut run: Run| -> io::Result<_> {
        run.file.rewind()?;
        Ok(RunReader::new(BufReader::with_capacity(1 << 16, run.file), run.entries))
    };
    let mut readers =
        runs.into_iter().map(reader).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    run::merge(&mut readers, visit)
}

impl From<(usize, io::Error)> for Error {
    fn from((_, error): (usize, io::Error)) -> Self {
        failed(error)
    }
}

/// The files have no names; their folder has.
fn failed(error: io::Error) -> Error {
    Error::io(env::temp_dir(), error)
}

struct RunFile {
    out: BufWriter<File>,
    entries: u64,
}

impl RunFile {
    fn create() -> Result<Self> {
        let file = tempfile::tempfile().map_err(failed)?;
        Ok(Self { out: BufWriter::with_capacity(1 << 16, file), entries: 0 })
    }

    fn push(&mut self, string: &[u8], count: u64, progress: &Progress) -> Result<()> {
        run::write_entry(&mut self.out, string, count).map_err(failed)?;
        self.entries += 1;
        if self.entries.is_multiple_of(CHECK_EVERY) { progress.check() } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Run> {
        self.out.flush().map_err(failed)?;
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        Ok(Run { file, entries: self.entries })
    }
}
