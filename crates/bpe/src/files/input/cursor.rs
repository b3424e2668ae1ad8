//! Where the next chunk begins, and how far it goes: what is done under the source's lock.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use super::file::{Input, Kind, Stream};
use super::parquet::Rows;
use super::{Cuts, Place};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::text::cut::{last_cut_from, next_cut, reach};

/// What is read at first to find a safe cut near a place; most are found within a few bytes.
const WINDOW: usize = 4096;
const MAX_WINDOW: usize = 1 << 20;

/// Where the next chunk begins.
#[derive(Default)]
pub struct Cursor {
    /// Its number.
    pub index: u64,
    pub place: Place,
    /// The file it is in, once it was opened.
    opened: Option<Opened>,
}

/// A file as its kind is read.
enum Opened {
    Positioned(Arc<File>),
    Stream(Stream),
    Rows(Box<Rows>),
}

/// What was decided about a chunk.
pub struct Taken {
    pub ends_file: bool,
    pub input_bytes: u64,
    pub body: Body,
}

/// What is left to do outside the lock.
pub enum Body {
    /// Nothing, or parsing: the buffer holds what the file does.
    Text,
    /// Reading from the chunk's start on.
    Range { file: Arc<File>, len: usize },
    /// Nothing: the buffer holds records, which end here.
    Records(Vec<usize>),
}

impl Cursor {
    pub fn at(index: u64, place: Place) -> Self {
        Self { index, place, opened: None }
    }

    /// Decides how far the next chunk goes, and passes it; `None` at the end of the file.
    pub fn take(
        &mut self,
        input: &Input,
        cuts: &Cuts,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<Taken>> {
        let with_path = |error| Error::io(&input.path, error);
        match (&input.kind, input.len) {
            (Kind::Parquet(column), len) => self
                .take_rows(input, column, len.unwrap_or(0), cuts.chunk_bytes, buffer)
                .map_err(|why| Error::invalid(format!("{}: {why}", input.path.display()))),
            (_, Some(len)) if input.is_positioned() => {
                self.take_range(input, len, cuts).map_err(with_path)
            }
            _ => self.take_stream(input, cuts, buffer).map_err(with_path),
        }
    }

    /// Instead of a chunk that cannot be read: nothing, and the end of the file.
    pub fn left_out(&mut self, input: &Input, buffer: &mut Vec<u8>) -> Taken {
        buffer.clear();
        self.opened = None;
        let is_table = matches!(input.kind, Kind::Parquet(_));
        let body = if is_table { Body::Records(Vec::new()) } else { Body::Text };
        Taken { ends_file: true, input_bytes: 0, body }
    }

    pub fn next_file(&mut self) {
        self.place = Place { file: self.place.file + 1, ..Place::default() };
        self.opened = None;
    }

    /// Opens the file where the cursor stands, somewhere inside it.
    pub fn open_at_place(&mut self, input: &Input, progress: &Progress) -> Result<()> {
        let offset = self.place.offset;
        self.opened = match &input.kind {
            _ if input.is_positioned() => {
                progress.advance(offset)?;
                None
            }
            Kind::Parquet(column) => {
                let rows = Rows::open(&input.path, column).and_then(|mut rows| {
                    rows.skip(offset)?;
                    Ok(rows)
                });
                let name = |why| Error::invalid(format!("{}: {why}", input.path.display()));
                let rows = rows.map_err(name)?;
                progress.advance(rows.bytes_read(input.len.unwrap_or(0)))?;
                Some(Opened::Rows(Box::new(rows)))
            }
            _ => Some(Opened::Stream(Stream::open_at(input, offset, progress)?)),
        };
        Ok(())
    }

    /// A part of a regular file of text.
    fn take_range(&mut self, input: &Input, len: u64, cuts: &Cuts) -> io::Result<Option<Taken>> {
        let offset = self.place.offset;
        if offset == len {
            return Ok(None);
        }
        let file = match &self.opened {
            Some(Opened::Positioned(file)) => Arc::clone(file),
            _ => Arc::new(File::open(&input.path)?),
        };
        self.opened = Some(Opened::Positioned(Arc::clone(&file)));
        let end = cuts.find(&file, offset, len)?;
        self.place.offset = end;
        let input_bytes = end - offset;
        let body = Body::Range { file, len: input_bytes as usize };
        Ok(Some(Taken { ends_file: end == len, input_bytes, body }))
    }

    /// Text up to a cut, or whole lines, of what is read in order.
    fn take_stream(
        &mut self,
        input: &Input,
        cuts: &Cuts,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<Taken>> {
        let mut stream = match self.opened.take() {
            Some(Opened::Stream(stream)) => stream,
            _ => input.open_stream()?,
        };
        let is_lines = matches!(input.kind, Kind::JsonLines(_));
        buffer.clear();
        std::mem::swap(buffer, &mut stream.carry);
        let (mut searched, mut wanted) = (0, cuts.chunk_bytes);
        let mut at_end = false;
        let cut = loop {
            let read = (&mut stream.text).take(wanted as u64).read_to_end(buffer)?;
            if read < wanted {
                at_end = true;
                break buffer.len();
            }
            let found = match is_lines {
                true => memchr::memrchr(b'\n', &buffer[searched..]).map(|at| searched + at + 1),
                false => last_cut_from(buffer, searched, &cuts.pattern, &cuts.special),
            };
            if let Some(cut) = found {
                break cut;
            }
            // The first place that may turn out to be a cut when there is more.
            let undecided = if is_lines { 0 } else { reach(&cuts.special) - 2 };
            searched = buffer.len().saturating_sub(undecided);
            wanted = buffer.len();
        };
        if buffer.is_empty() {
            return Ok(None);
        }
        stream.carry.extend_from_slice(&buffer[cut..]);
        buffer.truncate(cut);
        self.place.offset += cut as u64;
        if is_lines {
            self.place.line += memchr::memchr_iter(b'\n', buffer).count() as u64;
        }
        let ends_file = at_end || stream.at_end();
        let input_bytes = stream.newly_read(input.len.filter(|_| ends_file));
        self.opened = Some(Opened::Stream(stream));
        Ok(Some(Taken { ends_file, input_bytes, body: Body::Text }))
    }

    /// Some rows of a table.
    fn take_rows(
        &mut self,
        input: &Input,
        column: &str,
        len: u64,
        chunk_bytes: usize,
        buffer: &mut Vec<u8>,
    ) -> std::result::Result<Option<Taken>, String> {
        let mut rows = match self.opened.take() {
            Some(Opened::Rows(rows)) => rows,
            _ => Box::new(Rows::open(&input.path, column)?),
        };
        let before = rows.bytes_read(len);
        let mut ends = Vec::new();
        buffer.clear();
        let mut ends_file = false;
        // Empty texts take room too.
        while buffer.len() + ends.len() < chunk_bytes && !ends_file {
            ends_file = !rows.read(buffer, &mut ends)?;
        }
        self.place.offset = rows.rows_read();
        let input_bytes = if ends_file { len } else { rows.bytes_read(len) } - before;
        self.opened = Some(Opened::Rows(rows));
        Ok(Some(Taken { ends_file, input_bytes, body: Body::Records(ends) }))
    }
}

impl Cuts {
    /// The end of the chunk that starts at `start`: a safe cut, or the file's end.
    fn find(&self, file: &File, start: u64, len: u64) -> io::Result<u64> {
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
}

/// Fills `buffer` from `offset` on, without moving the file's own position.
pub fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
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
