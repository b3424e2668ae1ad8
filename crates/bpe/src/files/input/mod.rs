//! Files -> chunks that may be processed separately without changing any result.
//!
//! Any number of threads call [`Source::read_next`], each with a buffer of its own, and get the
//! chunks of all files; where each begins and ends tells their order. A chunk ends at a safe cut
//! (`text/cut.rs`), with a record, or with its file, so no pretoken and no special token spans two
//! chunks. Files are read by position into buffers that are reused, rather than mapped: memory is
//! bounded by threads times chunk size, and a file that someone else cuts short is an error, not a
//! signal. Where a chunk ends is decided under a lock from a few kilobytes (`cursor`); its text is
//! read outside. What has no positions (compressed text, the pages of a table) is read in order, one
//! thread to a file or a part of a table (`units`); nothing but a pipe keeps the others waiting.

mod chunk;
mod compression;
mod cursor;
mod cutter;
mod file;
mod foreign;
#[cfg(feature = "gzip")]
mod gzip;
mod json_lines;
mod line_numbers;
#[cfg(feature = "parquet")]
mod parquet;
mod stream;
mod table;
mod units;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

pub use chunk::{Chunk, Place};
use cursor::{Content, Cursor};
use cutter::Cutter;
pub(crate) use cutter::read_exact_at;
use file::{FileType, InputFile};
pub use file::{STDIN, TextFields};
use json_lines::Lines;
use line_numbers::LineNumbers;
#[cfg(all(feature = "parquet", feature = "python"))]
pub(crate) use parquet::is_guarded;
use units::{Turn, Units};

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
    start: Place,
    units: Mutex<Units>,
    /// Signalled when a thread is done with a unit.
    given_back: Condvar,
    lines: LineNumbers,
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
        let mut start = Place::default();
        if let Some(range) = options.range.clone() {
            let [input] = &mut inputs[..] else {
                return Err(Error::invalid("a range of bytes is one of a single file"));
            };
            start.offset = range.start;
            input.restrict(range)?;
        }
        let (pattern, special) = (pattern.clone(), special.clone());
        let cutter = Cutter { pattern, special, chunk_bytes: options.chunk_bytes.max(1) };
        Ok(Self {
            inputs,
            skip_errors: options.skip_errors,
            cutter,
            units: Mutex::new(Units::from(start.clone())),
            start,
            given_back: Condvar::new(),
            lines: LineNumbers::default(),
        })
    }

    /// Where the first chunk begins.
    pub fn start(&self) -> &Place {
        &self.start
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

    /// Makes the first chunk begin at `start`, where one began when these files were read before.
    /// What is before is not read, unless it must be unpacked.
    ///
    /// # Errors
    /// A file cannot be read, or `progress` says stop.
    pub fn seek(&self, start: &Place, progress: &Progress) -> Result<()> {
        let before: Option<u64> = self.inputs.iter().take(start.file).map(|input| input.len).sum();
        progress.advance(before.unwrap_or(0))?;
        let mut units = self.lock();
        *units = Units::from(start.clone());
        let Some(input) = self.inputs.get(start.file).filter(|_| start.offset > 0) else {
            return Ok(());
        };
        if input.file_type.is_parquet() {
            return Ok(());
        }
        if !input.has_positions() {
            let mut cursor = Cursor::of_file(start.clone());
            cursor.open_stream(input, progress)?;
            units.push(cursor);
            return Ok(());
        }
        if input.len.is_some_and(|len| start.offset > len) {
            let path = input.path.display();
            return Err(Error::invalid(format!("{path}: ends before the place to go on at")));
        }
        progress.advance(start.offset)
    }

    /// Fills `buffer` with a chunk that no thread has; `None` after the last. With `ahead` it need
    /// not be of the first file that is left, if another thread is reading that.
    ///
    /// # Errors
    /// A file cannot be read or is damaged. After an error there are no more chunks, for any
    /// thread.
    pub fn read_next(&self, buffer: &mut Vec<u8>, ahead: bool) -> Result<Option<Chunk>> {
        let mut units = self.lock();
        let (unit, mut cursor, is_ahead) = loop {
            match units.take(&self.inputs, self.cutter.chunk_bytes, ahead) {
                Turn::Read { unit, cursor, is_ahead } => break (unit, cursor, is_ahead),
                Turn::End => return Ok(None),
                Turn::Wait => {
                    units = self.given_back.wait(units).unwrap_or_else(PoisonError::into_inner);
                }
            }
        };
        let input = &self.inputs[unit.file];
        // What takes long is done outside the lock.
        let reading = Reading { source: self };
        let mut held = input.has_positions().then_some(units);
        let start = cursor.place.clone();
        let mut skipped = Vec::new();
        let plan = match cursor.next_chunk(input, &self.cutter, buffer) {
            Err(error) if self.skip_errors => {
                let (plan, what) = cursor.skip_rest(input, buffer);
                skipped.push(format!("{error}; {what}"));
                plan
            }
            Err(error) => {
                drop(held);
                return Err(error);
            }
            Ok(plan) => plan,
        };
        let mut units = held.take().unwrap_or_else(|| self.lock());
        units.give_back(&unit, cursor, plan.ends_unit);
        drop(units);
        self.given_back.notify_all();
        let mut chunk = Chunk {
            start,
            end: plan.end,
            is_ahead,
            ends_file: plan.ends_file,
            input_bytes: plan.input_bytes,
            skipped,
            record_ends: None,
        };
        self.read_content(plan.content, &mut chunk, buffer)?;
        std::mem::forget(reading);
        Ok(Some(chunk))
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
        let mut file = None;
        match content {
            Content::Records(ends) => {
                chunk.record_ends = Some(ends);
                return Ok(());
            }
            Content::InFile { file: of_chunk, len } => {
                buffer.resize(len, 0);
                if let Err(error) = read_exact_at(&of_chunk, buffer, chunk.start.offset) {
                    buffer.clear();
                    return refuse(&mut chunk.skipped, Error::io(&input.path, error));
                }
                file = Some(of_chunk);
            }
            Content::Buffered => {}
        }
        if let FileType::JsonLines(field) = &input.file_type {
            let lines = std::mem::take(buffer);
            let mut ends = Vec::new();
            let block = Lines { lines: &lines, is_first: chunk.start.offset == 0 };
            let start = chunk.start.clone();
            block.read(field, buffer, &mut ends, |number, why| {
                let before = match &file {
                    Some(file) => self.lines.before(file, &start).unwrap_or(0),
                    None => start.line,
                };
                let line = before + number;
                let message = format!("{}: line {line}: {why}", input.path.display());
                refuse(&mut chunk.skipped, Error::invalid(message))
            })?;
            chunk.record_ends = Some(ends);
        }
        Ok(())
    }

    /// A panic elsewhere leaves the units as they were: they may be used again.
    fn lock(&self) -> MutexGuard<'_, Units> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that is reading. If it does not succeed, nobody else reads on, or waits for it.
struct Reading<'s> {
    source: &'s Source,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.source.lock().stop();
        self.source.given_back.notify_all();
    }
}

#[cfg(test)]
mod tests;
