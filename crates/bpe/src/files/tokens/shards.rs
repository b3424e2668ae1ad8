//! The files that ids are written to: one for each side, or one for each side and shard.
//!
//! A shard is a stretch of the input whose training part has a given number of tokens; what of it
//! goes to validation is a shard beside it. When a shard is full and all of it is written, its
//! files get their names, whatever becomes of the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::flusher::Flusher;
use super::journal::Journal;
use super::ledger::{Assigned, Closed, Position};
use super::npy::{self, Dtype};
use super::split::{TRAIN, VAL};
use crate::error::{Error, Result};
use crate::files::atomic_file::{AtomicFile, remove_if_there, write_all_at};

/// The names of everything that is written.
#[derive(Clone, Debug)]
pub struct Names {
    out: PathBuf,
    is_sharded: bool,
}

impl Names {
    pub fn new(out: &Path, is_sharded: bool) -> Self {
        Self { out: out.to_path_buf(), is_sharded }
    }

    /// `tokens.npy`, `tokens.val.npy`; as shards `tokens-00000.npy`, `tokens.val-00000.npy`.
    pub fn array(&self, shard: usize, side: usize) -> PathBuf {
        let number = if self.is_sharded { format!("-{shard:05}") } else { String::new() };
        self.beside(&format!("{}{number}.npy", side_suffix(side)))
    }

    /// `tokens.json`, `tokens.val.json`.
    pub fn sidecar(&self, side: usize) -> PathBuf {
        self.beside(&format!("{}.json", side_suffix(side)))
    }

    /// `tokens.resume.json`, while a job with shards is not finished.
    pub fn journal(&self) -> PathBuf {
        self.beside(".resume.json")
    }

    fn beside(&self, ending: &str) -> PathBuf {
        let mut name = self.out.file_stem().unwrap_or_default().to_os_string();
        name.push(ending);
        self.out.with_file_name(name)
    }
}

fn side_suffix(side: usize) -> &'static str {
    if side == VAL { ".val" } else { "" }
}

pub struct Shards {
    names: Names,
    dtype: Dtype,
    has_val: bool,
    /// Shards below this were finished by an earlier run.
    first: usize,
    open: Mutex<BTreeMap<usize, Shard>>,
    /// The sizes of finished shards, and what it takes to resume after them.
    finished: Mutex<Finished>,
    flusher: Flusher,
}

#[derive(Default)]
struct Shard {
    files: [Option<Arc<AtomicFile>>; 2],
    written: [u64; 2],
    closed: Option<Closed>,
}

struct Finished {
    sizes: Vec<[u64; 2]>,
    /// Finished before one that comes earlier.
    ahead: BTreeMap<usize, ([u64; 2], Position)>,
    journal: Option<Journal>,
}

impl Shards {
    pub fn new(
        names: Names,
        dtype: Dtype,
        has_val: bool,
        sizes: Vec<[u64; 2]>,
        journal: Option<Journal>,
    ) -> Self {
        let first = sizes.len();
        let finished = Mutex::new(Finished { sizes, ahead: BTreeMap::new(), journal });
        Self {
            names,
            dtype,
            has_val,
            first,
            open: Mutex::default(),
            finished,
            flusher: Flusher::new(),
        }
    }

    /// Whether a file can be made there: better known before the work than after.
    pub fn check(&self) -> Result<()> {
        AtomicFile::create(&self.names.array(self.first, TRAIN)).map(drop)
    }

    /// Writes a chunk's ids to their places, from any thread.
    pub fn write(&self, assigned: &mut Assigned) -> Result<()> {
        // First, so that a shard is finished with its last piece, whatever becomes of the next.
        assigned.closed.drain(..).try_for_each(|closed| self.close(closed))?;
        let width = self.dtype.width();
        for piece in assigned.pieces.iter().filter(|piece| piece.shard >= self.first) {
            let file = self.file(piece.shard, piece.side)?;
            let start = piece.ids.start * width as usize;
            let bytes = &assigned.bytes[start..piece.ids.end * width as usize];
            write_all_at(file.file(), bytes, npy::HEADER_LEN as u64 + piece.offset * width)
                .map_err(|error| Error::io(file.path(), error))?;
            self.flusher.note(file.file(), bytes.len() as u64);
            drop(file);
            let mut open = lock(&self.open);
            open.entry(piece.shard).or_default().written[piece.side] += piece.ids.len() as u64;
            self.finish_if_done(open, piece.shard)?;
        }
        Ok(())
    }

    /// The shard gets no more ids; it is finished as soon as all it has are written.
    pub fn close(&self, closed: Closed) -> Result<()> {
        if closed.shard < self.first {
            return Ok(());
        }
        let shard = closed.shard;
        let mut open = lock(&self.open);
        open.entry(shard).or_default().closed = Some(closed);
        self.finish_if_done(open, shard)
    }

    /// The sizes of all shards, once all are closed.
    pub fn sizes(&self) -> Vec<[u64; 2]> {
        lock(&self.finished).sizes.clone()
    }

    fn file(&self, shard: usize, side: usize) -> Result<Arc<AtomicFile>> {
        let mut open = lock(&self.open);
        let place = &mut open.entry(shard).or_default().files[side];
        if let Some(file) = place {
            return Ok(Arc::clone(file));
        }
        let file = Arc::new(AtomicFile::create(&self.names.array(shard, side))?);
        Ok(Arc::clone(place.insert(file)))
    }

    fn finish_if_done(
        &self,
        mut open: MutexGuard<'_, BTreeMap<usize, Shard>>,
        number: usize,
    ) -> Result<()> {
        let is_done = |shard: &Shard| {
            shard.closed.as_ref().is_some_and(|closed| closed.sizes == shard.written)
        };
        if !open.get(&number).is_some_and(is_done) {
            return Ok(());
        }
        let Some(Shard { files, closed: Some(closed), .. }) = open.remove(&number) else {
            return Ok(());
        };
        drop(open);
        for (side, file) in files.into_iter().enumerate() {
            self.finish_file(number, side, file, closed.sizes[side])?;
        }
        self.note_finished(closed)
    }

    /// Gives a file its header and its name. What has no ids has a file only where a reader would
    /// look for one.
    fn finish_file(
        &self,
        shard: usize,
        side: usize,
        file: Option<Arc<AtomicFile>>,
        len: u64,
    ) -> Result<()> {
        let is_expected = shard == 0 && (side == TRAIN || self.has_val);
        let file = match file {
            Some(file) => file,
            None if is_expected => Arc::new(AtomicFile::create(&self.names.array(shard, side))?),
            None => return Ok(()),
        };
        write_all_at(file.file(), &npy::header(self.dtype, len), 0)
            .map_err(|error| Error::io(file.path(), error))?;
        // An older sidecar does not speak of this array: better none than a wrong one, whatever
        // happens before there is a new one.
        remove_if_there(&self.names.sidecar(side))?;
        // Whoever wrote to it has let go of it before its ids were counted as written.
        let path = file.path().to_path_buf();
        let in_use = || Error::invalid(format!("{}: is still written to", path.display()));
        Arc::into_inner(file).ok_or_else(in_use)?.commit()
    }

    fn note_finished(&self, closed: Closed) -> Result<()> {
        let mut finished = lock(&self.finished);
        let Finished { sizes, ahead, journal } = &mut *finished;
        ahead.insert(closed.shard, (closed.sizes, closed.resume_from));
        let mut resume_from = None;
        while let Some((size, position)) = ahead.remove(&sizes.len()) {
            sizes.push(size);
            resume_from = Some(position);
        }
        match (journal, resume_from) {
            (Some(journal), Some(position)) => journal.write(sizes, &position),
            _ => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
