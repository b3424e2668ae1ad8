//! Files -> chunks that may be processed separately without changing any result.
//!
//! Any number of threads call [`Source::read_next`], each with a buffer of its own, and get the
//! chunks of all files in order, numbered. A chunk ends at a safe cut (`text/cut.rs`), with
//! a record, or with its file, so no pretoken and no special token spans two chunks. Files are read
//! by position into buffers that are reused, rather than mapped: memory is bounded by threads times
//! chunk size, and a file that someone else cuts short is an error, not a signal. Where a chunk
//! ends is decided under a lock (`cursor`) from a few kilobytes; its text is read outside. What has
//! no positions (a pipe, compressed text) is read in order, under the lock; lines of JSON are
//! parsed outside.

mod chunk;
mod compression;
mod cursor;
mod cutter;
mod file;
mod foreign;
#[cfg(feature = "gzip")]
mod gzip;
mod json_lines;
#[cfg(feature = "parquet")]
mod parquet;
mod stream;
mod table;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use chunk::{Chunk, Place};
use cursor::{Content, Cursor};
use cutter::Cutter;
use file::{FileType, InputFile};
pub use file::{STDIN, TextFields};
use json_lines::Lines;
#[cfg(all(feature = "parquet", feature = "python"))]
pub(crate) use parquet::is_guarded;

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;

/// What a thread takes at a time: large enough that a lock and a read call cost nothing, small
/// enough that no thread idles for long at the end.
pub const DEFAULT_CHUNK_BYTES: usize = 1 << 20;

/// How files are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceOptions {
    /// Where the text is in files of records.
    pub fields: TextFields,
    /// About how long a chunk is; longer where there is no cut.
    pub chunk_bytes: usize,
    /// Whether to leave out what cannot be read, a record or the rest of a file, and say so in
    /// [`Chunk::skipped`], rather than fail.
    pub skip_errors: bool,
    /// The bytes to read of the only file, if not all: between two of its [`cuts`].
    pub range: Option<Range<u64>>,
}

impl Default for SourceOptions {
    fn default() -> Self {
        let fields = TextFields::default();
        Self { fields, chunk_bytes: DEFAULT_CHUNK_BYTES, skip_errors: false, range: None }
    }
}

/// Where a file may be divided into parts of about `part_bytes`, which may be read by different
/// jobs without changing any result: the end of each part, the last one the file's. `None` if the
/// file cannot be read in parts: it is no plain text, or is compressed or a pipe.
///
/// # Errors
/// Those of [`Source::open`], and the file cannot be read.
pub fn cuts(
    path: &Path,
    part_bytes: usize,
    pattern: &Pattern,
    special: &SpecialTokens,
    fields: &TextFields,
) -> Result<Option<Vec<u64>>> {
    let input = InputFile::find(path, fields)?;
    let Some(len) = input.len.filter(|_| input.is_positioned()) else { return Ok(None) };
    let with_path = |error| Error::io(path, error);
    let file = File::open(path).map_err(with_path)?;
    let (pattern, special) = (pattern.clone(), special.clone());
    let cutter = Cutter { pattern, special, chunk_bytes: part_bytes.max(1) };
    let (mut ends, mut start) = (Vec::new(), 0);
    while start < len {
        start = cutter.chunk_end(&file, start, len).map_err(with_path)?;
        ends.push(start);
    }
    Ok(Some(ends))
}

/// Looks at a file as [`Source::open`] does.
///
/// # Errors
/// Those of [`Source::open`].
pub fn check(path: &Path, fields: &TextFields) -> Result<()> {
    InputFile::find(path, fields).map(drop)
}

/// Whether a file holds a record a line, by its name or, if that ends in `.json`, by its first
/// lines.
///
/// # Errors
/// Those of [`Source::open`].
pub fn holds_json_lines(path: &Path, fields: &TextFields) -> Result<bool> {
    let input = InputFile::find(path, fields)?;
    Ok(matches!(input.file_type, FileType::JsonLines(_)))
}

/// Files to be read as one sequence of chunks.
pub struct Source {
    inputs: Vec<InputFile>,
    skip_errors: bool,
    cutter: Cutter,
    cursor: Mutex<Cursor>,
}

impl Source {
    /// Keeps no file open but looks at every one: a missing file or a directory is an error now,
    /// not after an hour, and so is what holds no text (archives, other compressions, UTF-16). What
    /// ends in `.gz` or `.zst` is unpacked; of what ends in `.jsonl` or
    /// `.ndjson` (also before `.gz` or `.zst`) or in `.parquet` the text is what
    /// [`SourceOptions::fields`] says of each record; `-` is standard input.
    ///
    /// # Errors
    /// A file is not there, is a directory or must not be read, or this build lacks the cargo
    /// feature that reads its type.
    pub fn open(
        paths: &[PathBuf],
        pattern: &Pattern,
        special: &SpecialTokens,
        options: &SourceOptions,
    ) -> Result<Self> {
        let find = |path: &PathBuf| InputFile::find(path, &options.fields);
        let mut inputs = paths.iter().map(find).collect::<Result<Vec<_>>>()?;
        let mut cursor = Cursor::default();
        if let Some(range) = options.range.clone() {
            let [input] = &mut inputs[..] else {
                return Err(Error::invalid("a range of bytes is one of a single file"));
            };
            cursor = Cursor::at(0, Place { offset: range.start, ..Place::default() });
            input.restrict(range)?;
        }
        let (pattern, special) = (pattern.clone(), special.clone());
        let cutter = Cutter { pattern, special, chunk_bytes: options.chunk_bytes.max(1) };
        Ok(Self { inputs, skip_errors: options.skip_errors, cutter, cursor: Mutex::new(cursor) })
    }

    /// The size of all inputs, or 0 if one of them is a pipe, whose size nobody knows.
    pub fn total_bytes(&self) -> u64 {
        self.inputs.iter().map(InputFile::bytes_to_read).sum::<Option<u64>>().unwrap_or(0)
    }

    /// The path of a file, by its index among those given.
    pub fn path(&self, file: usize) -> &Path {
        &self.inputs[file].path
    }

    /// The pattern that no chunk's end divides a match of.
    pub fn pattern(&self) -> &Pattern {
        &self.cutter.pattern
    }

    /// The special tokens that no chunk's end divides.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.cutter.special
    }

    /// Makes the next chunk begin at `start`, where one began when these files were read before;
    /// it gets the number `index`. What is before is not read, unless it must be unpacked.
    ///
    /// # Errors
    /// A file cannot be read, or `progress` says stop.
    pub fn seek(&self, index: u64, start: &Place, progress: &Progress) -> Result<()> {
        let before: Option<u64> = self.inputs.iter().take(start.file).map(|input| input.len).sum();
        progress.advance(before.unwrap_or(0))?;
        let mut cursor = self.lock();
        *cursor = Cursor::at(index, start.clone());
        match self.inputs.get(start.file) {
            Some(input)
                if input.len.is_some_and(|len| input.is_uncompressed() && start.offset > len) =>
            {
                let path = input.path.display();
                Err(Error::invalid(format!("{path}: ends before the place to go on at")))
            }
            Some(input) if start.offset > 0 => cursor.open_at_place(input, progress),
            _ => Ok(()),
        }
    }

    /// Fills `buffer` with the next chunk; `None` after the last.
    ///
    /// # Errors
    /// A file cannot be read or is damaged. After an error there are no more chunks, for any
    /// thread.
    pub fn read_next(&self, buffer: &mut Vec<u8>) -> Result<Option<Chunk>> {
        let mut cursor = self.lock();
        while let Some(input) = self.inputs.get(cursor.place.file) {
            let start = cursor.place.clone();
            let mut skipped = Vec::new();
            let plan = match cursor.next_chunk(input, &self.cutter, buffer) {
                Ok(Some(plan)) => plan,
                Ok(None) => {
                    cursor.next_file();
                    continue;
                }
                Err(error) if self.skip_errors => {
                    skipped.push(format!("{error}; the rest of it is left out"));
                    cursor.skip_rest(input, buffer)
                }
                Err(error) => {
                    cursor.place.file = self.inputs.len();
                    return Err(error);
                }
            };
            let index = cursor.index;
            cursor.index += 1;
            if plan.ends_file {
                cursor.next_file();
            }
            drop(cursor);
            let mut chunk = Chunk {
                index,
                start,
                ends_file: plan.ends_file,
                input_bytes: plan.input_bytes,
                skipped,
                record_ends: None,
            };
            self.read_content(plan.content, &mut chunk, buffer).inspect_err(|_| {
                self.lock().place.file = self.inputs.len();
            })?;
            return Ok(Some(chunk));
        }
        Ok(None)
    }

    /// The part of reading a chunk that can be done outside the lock.
    fn read_content(
        &self,
        content: Content,
        chunk: &mut Chunk,
        buffer: &mut Vec<u8>,
    ) -> Result<()> {
        let input = &self.inputs[chunk.start.file];
        let refuse = |skipped: &mut Vec<String>, error: Error| {
            if !self.skip_errors {
                return Err(error);
            }
            skipped.push(error.to_string());
            Ok(())
        };
        match (content, &input.file_type) {
            (Content::InFile { file, len }, _) => {
                buffer.resize(len, 0);
                if let Err(error) = cutter::read_exact_at(&file, buffer, chunk.start.offset) {
                    buffer.clear();
                    return refuse(&mut chunk.skipped, Error::io(&input.path, error));
                }
            }
            (Content::Buffered, FileType::JsonLines(field)) => {
                let lines = std::mem::take(buffer);
                let mut ends = Vec::new();
                let block = Lines { lines: &lines, before: chunk.start.line };
                block.read(field, buffer, &mut ends, |why| {
                    let message = format!("{}: {why}", input.path.display());
                    refuse(&mut chunk.skipped, Error::invalid(message))
                })?;
                chunk.record_ends = Some(ends);
            }
            (Content::Buffered, _) => {}
            (Content::Records(ends), _) => chunk.record_ends = Some(ends),
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
