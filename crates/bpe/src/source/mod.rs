//! Files -> chunks that may be processed apart without changing any result.
//!
//! Any number of threads call [`Source::read_next`], each with a buffer of its own, and get the
//! chunks of all files in order, numbered. A chunk ends at a safe cut ([`cut`]) or with its file,
//! so no pretoken and no special token lies across two chunks. Files are read by positioned reads
//! into buffers that are used again and again, rather than mapped: what is resident is bounded by
//! threads times chunk size, and a file cut short by someone else is an error, not a signal.
//! Where a chunk ends is decided under a lock from a few kilobytes; its body is read outside.
//! What has no positions (a pipe, compressed text, JSON lines) is read in order, under the lock.

mod cut;
mod input;
mod json_lines;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use cut::{last_cut, last_cut_from, next_cut, reach};
pub use input::STDIN;
use input::{Input, Stream};

use crate::error::{Error, Result};
use crate::pretokenize::Pattern;
use crate::special::SpecialTokens;

/// What a thread takes at a time: large enough that a lock and a read call cost nothing, small
/// enough that no thread idles for long at the end.
pub const DEFAULT_CHUNK_BYTES: usize = 1 << 20;

/// What is read at first to find a safe cut near a place; most are found within a few bytes.
const WINDOW: usize = 4096;
const MAX_WINDOW: usize = 1 << 20;

/// Files to be read as one sequence of chunks.
pub struct Source {
    inputs: Vec<Input>,
    pattern: Pattern,
    special: SpecialTokens,
    chunk_bytes: usize,
    cursor: Mutex<Cursor>,
}

/// Which part of the input a buffer was filled with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// 0, 1, 2, ... in the order of the text, over all files.
    pub index: u64,
    /// The index of the file in the paths given.
    pub file: usize,
    /// Whether the file ends with this chunk: what follows is another document.
    pub ends_file: bool,
    /// How much of the input this is, compressed if that is: the sum over all chunks is
    /// [`Source::total_bytes`].
    pub input_bytes: u64,
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
}

/// Where the next chunk starts.
struct Cursor {
    index: u64,
    file: usize,
    /// The file, if any part of it can be read apart,
    open: Option<Arc<File>>,
    /// and where the next chunk starts in it.
    offset: u64,
    /// The file, if it is read in order,
    stream: Option<Stream>,
    /// and what was read of it beyond the last chunk's end.
    carry: Vec<u8>,
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
        Self::open_records(paths, pattern, special, chunk_bytes, None)
    }

    /// [`open`](Self::open), but of what ends in `.jsonl` or `.ndjson` (or that and `.gz` or
    /// `.zst`) the text is what the field `text_field` of each line's object holds.
    pub fn open_records(
        paths: &[PathBuf],
        pattern: &Pattern,
        special: &SpecialTokens,
        chunk_bytes: usize,
        text_field: Option<&str>,
    ) -> Result<Self> {
        let look_at = |path: &PathBuf| Input::look_at(path, text_field);
        let inputs = paths.iter().map(look_at).collect::<Result<_>>()?;
        Ok(Self {
            inputs,
            pattern: pattern.clone(),
            special: special.clone(),
            chunk_bytes: chunk_bytes.max(1),
            cursor: Mutex::new(Cursor {
                index: 0,
                file: 0,
                open: None,
                offset: 0,
                stream: None,
                carry: Vec::new(),
            }),
        })
    }

    /// The size of all inputs, or 0 if one of them is a pipe and nobody knows.
    pub fn total_bytes(&self) -> u64 {
        self.inputs.iter().map(|input| input.len).sum::<Option<u64>>().unwrap_or(0)
    }

    pub fn path(&self, file: usize) -> &Path {
        &self.inputs[file].path
    }

    /// Fills `buffer` with the next chunk; `None` when all are given out. After an error there
    /// are no more chunks, for any thread.
    pub fn read_next(&self, buffer: &mut Vec<u8>) -> Result<Option<Chunk>> {
        let mut cursor = self.lock();
        let result = self.read_at(&mut cursor, buffer);
        match result {
            Ok(Taken::Nothing) => Ok(None),
            Ok(Taken::Whole(chunk)) => Ok(Some(chunk)),
            Ok(Taken::Range { chunk, file, offset }) => {
                drop(cursor);
                buffer.resize(chunk.input_bytes as usize, 0);
                match read_exact_at(&file, buffer, offset) {
                    Ok(()) => Ok(Some(chunk)),
                    Err(error) => {
                        self.lock().file = self.inputs.len();
                        Err(Error::io(self.path(chunk.file), error))
                    }
                }
            }
            Err(error) => {
                cursor.file = self.inputs.len();
                Err(error)
            }
        }
    }

    /// A panic elsewhere leaves the cursor between two chunks: it may be used again.
    fn lock(&self) -> MutexGuard<'_, Cursor> {
        self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_at(&self, cursor: &mut Cursor, buffer: &mut Vec<u8>) -> Result<Taken> {
        while let Some(input) = self.inputs.get(cursor.file) {
            let with_path = |error| Error::io(&input.path, error);
            let taken = match (input.len, &input.text_field) {
                (Some(len), _) if input.is_positioned() => {
                    self.take_range(cursor, input, len).map_err(with_path)?
                }
                (_, None) => self.read_stream(cursor, input, buffer).map_err(with_path)?,
                (_, Some(field)) => self.read_records(cursor, input, field, buffer)?,
            };
            let (Taken::Whole(chunk) | Taken::Range { chunk, .. }) = &taken else {
                cursor.next_file();
                continue;
            };
            cursor.index += 1;
            if chunk.ends_file {
                cursor.next_file();
            }
            return Ok(taken);
        }
        Ok(Taken::Nothing)
    }

    /// Decides where the next chunk of a regular file ends.
    fn take_range(&self, cursor: &mut Cursor, input: &Input, len: u64) -> io::Result<Taken> {
        let offset = cursor.offset;
        if offset == len {
            return Ok(Taken::Nothing);
        }
        let file = cursor.open(&input.path)?;
        let end = self.find_cut(&file, offset, len)?;
        cursor.offset = end;
        let chunk = Chunk {
            index: cursor.index,
            file: cursor.file,
            ends_file: end == len,
            input_bytes: end - offset,
            record_ends: None,
        };
        Ok(Taken::Range { chunk, file, offset })
    }

    /// The end of the chunk that starts at `start`: a safe cut, or the file's end.
    fn find_cut(&self, file: &File, start: u64, len: u64) -> io::Result<u64> {
        let reach = reach(&self.special);
        let mut from = start.saturating_add(self.chunk_bytes as u64);
        let mut window = Vec::new();
        let mut window_bytes = WINDOW.min(self.chunk_bytes).max(4 * reach);
        while from < len {
            let window_start = from.saturating_sub(reach as u64).max(start);
            window.resize((len - window_start).min(window_bytes as u64) as usize, 0);
            read_exact_at(file, &mut window, window_start)?;
            let from_in_window = (from - window_start) as usize;
            if let Some(at) = next_cut(&window, from_in_window, &self.pattern, &self.special) {
                return Ok(window_start + at as u64);
            }
            if window_start + window.len() as u64 == len {
                break;
            }
            // All places that this window decides are no cuts; the first that it does not is:
            from = from.max(window_start + (window.len() + 1 - reach) as u64);
            window_bytes = (2 * window_bytes).min(MAX_WINDOW.max(4 * reach));
        }
        Ok(len)
    }

    /// Reads the next chunk of a stream into `buffer`.
    fn read_stream(
        &self,
        cursor: &mut Cursor,
        input: &Input,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Taken> {
        let mut stream = cursor.open_stream(input)?;
        buffer.clear();
        std::mem::swap(buffer, &mut cursor.carry);
        let mut searched = 1;
        let mut wanted = self.chunk_bytes;
        loop {
            let read = (&mut stream.text).take(wanted as u64).read_to_end(buffer)?;
            let ends_file = read < wanted;
            if ends_file && buffer.is_empty() {
                return Ok(Taken::Nothing);
            }
            let cut = if ends_file {
                Some(buffer.len())
            } else {
                last_cut_from(buffer, searched, &self.pattern, &self.special)
            };
            if let Some(cut) = cut {
                cursor.carry.extend_from_slice(&buffer[cut..]);
                buffer.truncate(cut);
                return Ok(Taken::Whole(cursor.streamed(input, stream, ends_file, None)));
            }
            searched = (buffer.len() + 2).saturating_sub(reach(&self.special));
            wanted = buffer.len();
        }
    }

    /// Reads whole records into `buffer`.
    fn read_records(
        &self,
        cursor: &mut Cursor,
        input: &Input,
        field: &str,
        buffer: &mut Vec<u8>,
    ) -> Result<Taken> {
        let mut stream =
            cursor.open_stream(input).map_err(|error| Error::io(&input.path, error))?;
        buffer.clear();
        let mut ends = Vec::new();
        let mut ends_file = false;
        while buffer.len() < self.chunk_bytes && !ends_file {
            let more = json_lines::read_record(&mut stream, field, buffer)
                .map_err(|why| Error::invalid(format!("{}: {why}", input.path.display())))?;
            if more {
                ends.push(buffer.len());
            }
            ends_file = !more || stream.at_end();
        }
        if ends.is_empty() {
            return Ok(Taken::Nothing);
        }
        Ok(Taken::Whole(cursor.streamed(input, stream, ends_file, Some(ends))))
    }
}

enum Taken {
    Nothing,
    /// The chunk is in the buffer.
    Whole(Chunk),
    /// The chunk is to be read from here, outside the lock.
    Range {
        chunk: Chunk,
        file: Arc<File>,
        offset: u64,
    },
}

impl Cursor {
    fn open(&mut self, path: &Path) -> io::Result<Arc<File>> {
        match &self.open {
            Some(file) => Ok(Arc::clone(file)),
            None => Ok(Arc::clone(self.open.insert(Arc::new(File::open(path)?)))),
        }
    }

    fn open_stream(&mut self, input: &Input) -> io::Result<Stream> {
        match self.stream.take() {
            Some(stream) => Ok(stream),
            None => input.open_stream(),
        }
    }

    /// The chunk that was just read from `stream`.
    fn streamed(
        &mut self,
        input: &Input,
        mut stream: Stream,
        ends_file: bool,
        record_ends: Option<Vec<usize>>,
    ) -> Chunk {
        let input_bytes = stream.newly_read(input.len.filter(|_| ends_file));
        self.stream = Some(stream);
        Chunk { index: self.index, file: self.file, ends_file, input_bytes, record_ends }
    }

    fn next_file(&mut self) {
        self.file += 1;
        self.stream = None;
        self.open = None;
        self.offset = 0;
        self.carry.clear();
    }
}

/// Fills `buffer` from `offset` on, without moving the file's own position.
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match read_at(file, buffer, offset) {
            Ok(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "became shorter while it was read",
                ));
            }
            Ok(read) => {
                buffer = &mut buffer[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}

#[cfg(test)]
mod tests;
