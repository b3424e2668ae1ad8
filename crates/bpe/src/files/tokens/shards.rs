//! The files that ids are written to: one for each side, or one for each side and shard.
//!
//! A shard is a part of the input whose training side has a given number of tokens; what of it goes
//! to validation is a file beside it. When a shard is full and all of it is written, its files get
//! their names, whatever happens to the rest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crc32fast::Hasher;

use super::flusher::Flusher;
use super::journal::{FinishedShard, Journal};
use super::ledger::{ClosedShard, FileSpan, Position};
use super::npy::{self, Dtype};
use super::outputs::OutputPaths;
use super::split::TRAIN;
use crate::error::{Error, Result};
use crate::files::atomic_file::{AtomicFile, remove_if_there, write_all_at};

/// Writes ids to their places, and finishes each file when it is complete.
pub struct Shards {
    outputs: OutputPaths,
    dtype: Dtype,
    has_val: bool,
    /// Whether the journal lists what is finished; otherwise it only says whose the arrays are.
    is_resumable: bool,
    /// Shards below this were finished by an earlier run.
    first: usize,
    open: Mutex<BTreeMap<usize, OpenShard>>,
    /// What is in finished shards, and what it takes to resume after them.
    finished: Mutex<Finished>,
    flusher: Flusher,
}

#[derive(Default)]
struct OpenShard {
    files: [Option<Arc<AtomicFile>>; 2],
    written: [u64; 2],
    checksums: [Checksum; 2],
    closed: Option<ClosedShard>,
}

struct Finished {
    shards: Vec<FinishedShard>,
    /// Finished before one that comes earlier.
    ahead: BTreeMap<usize, (FinishedShard, Position)>,
    journal: Option<Journal>,
    /// Whether an array may have its name.
    has_begun: bool,
}

impl Shards {
    pub fn new(
        outputs: OutputPaths,
        dtype: Dtype,
        has_val: bool,
        shards: Vec<FinishedShard>,
        journal: Option<Journal>,
    ) -> Self {
        let (first, is_resumable) = (shards.len(), outputs.is_sharded() && journal.is_some());
        let finished =
            Mutex::new(Finished { shards, ahead: BTreeMap::new(), journal, has_begun: false });
        Self {
            outputs,
            dtype,
            has_val,
            is_resumable,
            first,
            open: Mutex::default(),
            finished,
            flusher: Flusher::new(),
        }
    }

    /// Checks that a file can be created: better known before the work than after.
    ///
    /// # Errors
    /// Those of [`AtomicFile::create`].
    pub fn check(&self) -> Result<()> {
        AtomicFile::create(&self.outputs.array(self.first, TRAIN)).map(drop)
    }

    /// Writes a chunk's ids to their places, from any thread.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn write(&self, ids: &[u8], spans: &[FileSpan], closed: Vec<ClosedShard>) -> Result<()> {
        // First, so that a shard is finished with its last ids, whatever happens to the next.
        closed.into_iter().try_for_each(|closed| self.close(closed))?;
        let width = self.dtype.width();
        for span in spans.iter().filter(|span| span.shard >= self.first) {
            let file = self.file(span.shard, span.side)?;
            let start = span.ids.start * width as usize;
            let bytes = &ids[start..span.ids.end * width as usize];
            write_all_at(file.file(), bytes, npy::HEADER_LEN as u64 + span.offset * width)
                .map_err(|error| Error::io(file.path(), error))?;
            self.flusher.note(file.file(), bytes.len() as u64);
            drop(file);
            let mut stretch = Hasher::new();
            stretch.update(bytes);
            let mut open = lock(&self.open);
            let shard = open.entry(span.shard).or_default();
            shard.written[span.side] += span.ids.len() as u64;
            shard.checksums[span.side].add(span.offset, span.ids.len() as u64, stretch);
            self.finish_if_done(open, span.shard)?;
        }
        Ok(())
    }

    /// The shard gets no more ids; it is finished as soon as all it has are written.
    ///
    /// # Errors
    /// Its files cannot be finished.
    pub fn close(&self, closed: ClosedShard) -> Result<()> {
        if closed.shard < self.first {
            return Ok(());
        }
        let shard = closed.shard;
        let mut open = lock(&self.open);
        open.entry(shard).or_default().closed = Some(closed);
        self.finish_if_done(open, shard)
    }

    /// What is in all shards, once all are closed.
    pub fn finished(&self) -> Vec<FinishedShard> {
        lock(&self.finished).shards.clone()
    }

    /// Removes the record of the job, which is done.
    ///
    /// # Errors
    /// It is there and cannot be removed.
    pub fn remove_journal(&self) -> Result<()> {
        lock(&self.finished).journal.as_ref().map_or(Ok(()), Journal::remove)
    }

    fn file(&self, shard: usize, side: usize) -> Result<Arc<AtomicFile>> {
        let mut open = lock(&self.open);
        let place = &mut open.entry(shard).or_default().files[side];
        if let Some(file) = place {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(AtomicFile::create(&self.outputs.array(shard, side))?);
        Ok(Arc::clone(place.insert(file)))
    }

    fn finish_if_done(
        &self,
        mut open: MutexGuard<'_, BTreeMap<usize, OpenShard>>,
        number: usize,
    ) -> Result<()> {
        let is_done = |shard: &OpenShard| {
            shard.closed.as_ref().is_some_and(|closed| closed.sizes == shard.written)
        };
        if !open.get(&number).is_some_and(is_done) {
            return Ok(());
        }
        let Some(OpenShard { files, checksums, closed: Some(closed), .. }) = open.remove(&number)
        else {
            return Ok(());
        };
        drop(open);
        let finished =
            FinishedShard { sizes: closed.sizes, crc32: checksums.map(Checksum::finish) };
        let mut whole = Vec::new();
        for (side, file) in files.into_iter().enumerate() {
            if let Some(file) = self.complete(number, side, file, closed.sizes[side])? {
                whole.push((side, file));
            }
        }
        self.note_begun()?;
        // An older sidecar is not about these arrays: better none than a wrong one, whatever
        // happens until there is a new one.
        whole.iter().try_for_each(|(side, _)| remove_if_there(&self.outputs.sidecar(*side)))?;
        whole.into_iter().try_for_each(|(_, file)| file.commit())?;
        self.note_finished(number, finished, closed.resume_from)
    }

    /// Gives a file its header and has it written to the disk, so that it needs only its name.
    /// Where there are no ids there is a file only if a reader would look for one.
    fn complete(
        &self,
        shard: usize,
        side: usize,
        file: Option<Arc<AtomicFile>>,
        len: u64,
    ) -> Result<Option<AtomicFile>> {
        let is_expected = shard == 0 && (side == TRAIN || self.has_val);
        let file = match file {
            Some(file) => file,
            None if is_expected => Arc::new(AtomicFile::create(&self.outputs.array(shard, side))?),
            None => return Ok(None),
        };
        write_all_at(file.file(), &npy::header(self.dtype, len), 0)
            .map_err(|error| Error::io(file.path(), error))?;
        // Every thread dropped its handle before its ids were counted as written.
        let path = file.path().to_path_buf();
        let in_use = || Error::invalid(format!("{}: is still being written", path.display()));
        let file = Arc::into_inner(file).ok_or_else(in_use)?;
        file.sync()?;
        Ok(Some(file))
    }

    /// Before the first array gets its name: from then on a journal says whose the arrays are.
    fn note_begun(&self) -> Result<()> {
        let mut finished = lock(&self.finished);
        let Finished { shards, journal, has_begun, .. } = &mut *finished;
        match journal {
            Some(journal) if shards.is_empty() && !*has_begun => {
                journal.write(&[], &Position::default())?;
            }
            _ => {}
        }
        *has_begun = true;
        Ok(())
    }

    fn note_finished(&self, number: usize, shard: FinishedShard, after: Position) -> Result<()> {
        let mut finished = lock(&self.finished);
        let Finished { shards, ahead, journal, .. } = &mut *finished;
        ahead.insert(number, (shard, after));
        let mut resume_from = None;
        while let Some((shard, position)) = ahead.remove(&shards.len()) {
            shards.push(shard);
            resume_from = Some(position);
        }
        match (journal, resume_from) {
            (Some(journal), Some(position)) if self.is_resumable => {
                journal.write(shards, &position)
            }
            _ => Ok(()),
        }
    }
}

/// The checksum of a file's ids, whose stretches are written in any order.
#[derive(Default)]
struct Checksum {
    /// Of the first so many ids,
    sum: Hasher,
    len: u64,
    /// and of stretches further on, by where they begin: how many ids they have.
    ahead: BTreeMap<u64, (u64, Hasher)>,
}

impl Checksum {
    fn add(&mut self, offset: u64, ids: u64, stretch: Hasher) {
        self.ahead.insert(offset, (ids, stretch));
        while let Some((ids, stretch)) = self.ahead.remove(&self.len) {
            self.sum.combine(&stretch);
            self.len += ids;
        }
    }

    fn finish(self) -> u32 {
        self.sum.finalize()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
