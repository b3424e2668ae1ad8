//! Files -> chunks that may be processed apart without changing any result.
//!
//! Any number of threads call [`Source::read_next`], each with a buffer of its own, and get the
//! chunks of all files in order, numbered. A chunk ends at a safe cut ([`crate::text::cut`]), with a
//! record, or with its file, so no pretoken and no special token lies across two chunks. Files are read by
//! positioned reads into buffers that are used again and again, rather than mapped: what is
//! resident is bounded by threads times chunk size, and a file cut short by someone else is an
//! error, not a signal. Where a chunk ends is decided under a lock ([`cursor`]) from a few
//! kilobytes; its body is read outside. What has no positions (a pipe, compressed text) is read in
//! order, under the lock; lines of JSON are parsed outside of it.

mod cursor;
mod file;
mod json_lines;
mod parquet;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use cursor::{Body, Cursor};
use file::{Input, Kind};
pub use file::{STDIN, TextFields};
use json_lines::Lines;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;

/// What a thread takes at a time: large enough that a lock and a read call cost nothing, small
/// enough that no thread idles for long at the end.
pub const DEFAULT_CHUNK_BYTES: usize = 1 << 20;

/// Files to be read as one sequence of chunks.
pub struct Source {
    inputs: Vec<Input>,
    skip_errors: bool,
    cuts: Cuts,
    cursor: Mutex<Cursor>,
}

/// What decides where text may be parted.
struct Cuts {
    pattern: Pattern,
    special: SpecialTokens,
    chunk_bytes: usize,
}

/// A place between two chunks, to come back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The index of the file in the paths given.
    pub file: usize,
    /// What of the file is before it: bytes of its text, unpacked, or rows of a table.
    pub offset: u64,
    /// Lines before it, of JSON lines.
    pub line: u64,
}

/// Which part of the input a buffer was filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// 0, 1, 2, ... in the order of the text, over all files.
    pub index: u64,
    /// Where it begins.
    pub start: Place,
    /// Whether the file ends with this chunk: what follows is another document.
    pub ends_file: bool,
    /// How much of the input this is, compressed if that is: the sum over all chunks is
    /// [`Source::total_bytes`].
    pub input_bytes: u64,
    /// What had to be left out, if that is wished ([`Source::skipping_errors`]).
    pub skipped: Vec<String>,
    /// Where in the buffer records end, if the file has records; none is in two chunks.
    record_ends: Option<Vec<usize>>,
}

impl Chunk {
    /// The parts of a chunk's text that are to be processed apart: its records, or all of it.
    pub fn pieces<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let ends = match &self.record_ends {
            Some(ends) => ends.clone(),
            None => vec![text.len()],
        };
        let mut start = 0;
        ends.into_iter().map(move |end| &text[std::mem::replace(&mut start, end)..end])
    }

    /// Whether [`pieces`](Self::pieces) are records: documents that begin and end with it.
    pub fn has_records(&self) -> bool {
        self.record_ends.is_some()
    }
}

impl Source {
    /// Opens nothing for long but looks at everything: a missing file or a directory is an error
    /// now, not after an hour. Chunks are about `chunk_bytes` long, longer where there is no cut.
    /// What ends in `.gz` or `.zst` is unpacked; `-` is standard input.
    pub fn open(
        paths: &[PathBuf],
        pattern: &Pattern,
        special: &SpecialTokens,
        chunk_bytes: usize,
    ) -> Result<Self> {
        Self::open_records(paths, pattern, special, chunk_bytes, &TextFields::default())
    }

    /// [`open`](Self::open), but of what ends in `.jsonl` or `.ndjson` (or that and `.gz` or
    /// `.zst`) or `.parquet` the text is what `fields` says of each record.
    pub fn open_records(
        paths: &[PathBuf],
        pattern: &Pattern,
        special: &SpecialTokens,
        chunk_bytes: usize,
        fields: &TextFields,
    ) -> Result<Self> {
        let look_at = |path: &PathBuf| Input::look_at(path, fields);
        let inputs = paths.iter().map(look_at).collect::<Result<_>>()?;
        let (pattern, special) = (pattern.clone(), special.clone());
        let cuts = Cuts { pattern, special, chunk_bytes: chunk_bytes.max(1) };
        Ok(Self { inputs, skip_errors: false, cuts, cursor: Mutex::default() })
    }

    /// Leaves out what cannot be read, a record or the rest of a file, and says so in
    /// [`Chunk::skipped`], rather than fail.
    #[must_use]
    pub fn skipping_errors(self, skip_errors: bool) -> Self {
        Self { skip_errors, ..self }
    }

    /// The size of all inputs, or 0 if one of them is a pipe and nobody knows.
    pub fn total_bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.len).sum::<Option<u64>>().unwrap_or(0)
    }

    pub fn path(&self, file: usize) -> &Path {
        &self.inputs[file].path
    }

    /// Makes the next chunk begin at `start`, where one began when these files were read before;
    /// it gets the number `index`. What is before is not read, unless it must be unpacked.
    pub fn seek(&self, index: u64, start: &Place, progress: &Progress) -> Result<()> {
        let before: Option<u64> = self.inputs.iter().take(start.file).map(|input| input.len).sum();
        progress.advance(before.unwrap_or(0))?;
        let mut cursor = self.lock();
        *cursor = Cursor::at(index, start.clone());
        match self.inputs.get(start.file) {
            Some(input) if start.offset > 0 => cursor.open_at_place(input, progress),
            _ => Ok(()),
        }
    }

    /// Fills `buffer` with the next chunk; `None` when all are given out. After an error there
    /// are no more chunks, for any thread.
    pub fn read_next(&self, buffer: &mut Vec<u8>) -> Result<Option<Chunk>> {
        let mut cursor = self.lock();
        while let Some(input) = self.inputs.get(cursor.place.file) {
            let start = cursor.place.clone();
            let mut skipped = Vec::new();
            let taken = match cursor.take(input, &self.cuts, buffer) {
                Ok(Some(taken)) => taken,
                Ok(None) => {
                    cursor.next_file();
                    continue;
                }
                Err(error) if self.skip_errors => {
                    skipped.push(format!("{error}; the rest of it is left out"));
                    cursor.left_out(input, buffer)
                }
                Err(error) => {
                    cursor.place.file = self.inputs.len();
                    return Err(error);
                }
            };
            let index = cursor.index;
            cursor.index += 1;
            if taken.ends_file {
                cursor.next_file();
            }
            drop(cursor);
            let mut chunk = Chunk {
                index,
                start,
                ends_file: taken.ends_file,
                input_bytes: taken.input_bytes,
                skipped,
                record_ends: None,
            };
            self.read_body(taken.body, &mut chunk, buffer).inspect_err(|_| {
                self.lock().place.file = self.inputs.len();
            })?;
            return Ok(Some(chunk));
        }
        Ok(None)
    }

    /// What of a chunk can be done outside the lock.
    fn read_body(&self, body: Body, chunk: &mut Chunk, buffer: &mut Vec<u8>) -> Result<()> {
        let input = &self.inputs[chunk.start.file];
        let refuse = |skipped: &mut Vec<String>, error: Error| {
            if !self.skip_errors {
                return Err(error);
            }
            skipped.push(error.to_string());
            Ok(())
        };
        match (body, &input.kind) {
            (Body::Range { file, len }, _) => {
                buffer.resize(len, 0);
                if let Err(error) = cursor::read_exact_at(&file, buffer, chunk.start.offset) {
                    buffer.clear();
                    return refuse(&mut chunk.skipped, Error::io(&input.path, error));
                }
            }
            (Body::Text, Kind::JsonLines(field)) => {
                let lines = std::mem::take(buffer);
                let mut ends = Vec::new();
                let block = Lines { lines: &lines, before: chunk.start.line };
                block.read(field, buffer, &mut ends, |why| {
                    let message = format!("{}: {why}", input.path.display());
                    refuse(&mut chunk.skipped, Error::invalid(message))
                })?;
                chunk.record_ends = Some(ends);
            }
            (Body::Text, _) => {}
            (Body::Records(ends), _) => chunk.record_ends = Some(ends),
        }
        Ok(())
    }

    /// A panic elsewhere leaves the cursor between two chunks: it may be used again.
    fn lock(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
