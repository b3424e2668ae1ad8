//! Where the next chunk of a unit begins, and how far it goes. A unit is what is read in order: a
//! file, or a part of a table.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::chunk::Place;
use super::cutter::Cutter;
use super::file::{FileType, InputFile};
use super::stream::Stream;
use super::table::{Rows, Table, bytes_before};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::text::cut::{last_cut, reach};

/// A unit that is being read.
pub struct Cursor {
    /// Where the next chunk begins.
    pub place: Place,
    /// The table that the unit is a part of, or why it could not be opened.
    table: Option<std::result::Result<TablePart, String>>,
    opened: Option<Opened>,
}

/// A part of a table.
#[derive(Clone)]
pub struct TablePart {
    pub table: Arc<dyn Table>,
    /// The row after its last.
    pub until: u64,
}

/// What the unit is read from, once it was opened.
enum Opened {
    Positioned(Arc<File>),
    Stream(Stream),
    Rows(Box<dyn Rows>),
}

/// What was decided about a chunk.
pub struct ChunkPlan {
    /// Where the next one begins.
    pub end: Place,
    pub ends_file: bool,
    pub ends_unit: bool,
    pub input_bytes: u64,
    pub content: Content,
}

/// Where the chunk's content is, and so what is left to do.
pub enum Content {
    /// In the buffer, as in the file: text, or lines of records to parse.
    Buffered,
    /// In the file, from the chunk's start on.
    InFile { file: Arc<File>, len: usize },
    /// In the buffer: records that end at these places.
    Records(Vec<usize>),
}

impl Cursor {
    /// A file, from `place` on.
    pub fn of_file(place: Place) -> Self {
        Self { place, table: None, opened: None }
    }

    /// A part of a table, from `place` on.
    pub fn of_table(place: Place, part: std::result::Result<TablePart, String>) -> Self {
        Self { place, table: Some(part), opened: None }
    }

    /// Decides how far the next chunk goes, and moves past it. What of it is read already is in
    /// `buffer`, and nothing else.
    pub fn next_chunk(
        &mut self,
        input: &InputFile,
        cutter: &Cutter,
        buffer: &mut Vec<u8>,
    ) -> Result<ChunkPlan> {
        buffer.clear();
        let with_path = |error| Error::io(&input.path, error);
        let plan = match &self.table {
            Some(part) => part
                .clone()
                .and_then(|part| self.read_rows(input, part, cutter.chunk_bytes, buffer))
                .map_err(|why| Error::invalid(format!("{}: {why}", input.path.display()))),
            None if input.has_positions() => self.next_range(input, cutter).map_err(with_path),
            None => self.read_stream(input, cutter, buffer).map_err(with_path),
        }?;
        self.place = plan.end.clone();
        Ok(plan)
    }

    /// In place of a chunk that cannot be read: an empty one that ends the unit; and what it says of
    /// what is left out.
    pub fn skip_rest(&mut self, input: &InputFile, buffer: &mut Vec<u8>) -> (ChunkPlan, String) {
        buffer.clear();
        self.opened = None;
        let next_file = Place::start_of(self.place.file + 1);
        let (end, what) = match &self.table {
            Some(Ok(part)) if !part.is_last() => {
                let (first, last) = (self.place.offset + 1, part.until);
                let end = Place { offset: part.until, ..self.place.clone() };
                (end, format!("its rows {first} to {last} are left out"))
            }
            _ => (next_file, "the rest of it is left out".to_owned()),
        };
        let ends_file = end.file != self.place.file;
        let content = match input.file_type.is_parquet() {
            true => Content::Records(Vec::new()),
            false => Content::Buffered,
        };
        (ChunkPlan { end, ends_file, ends_unit: true, input_bytes: 0, content }, what)
    }

    /// Unpacks what is before the cursor's place, or finds the row.
    ///
    /// # Errors
    /// It cannot be read, it ends before that place, or `progress` says stop.
    pub fn open_stream(&mut self, input: &InputFile, progress: &Progress) -> Result<()> {
        let stream = Stream::open_at(input, self.place.offset, progress)?;
        self.opened = Some(Opened::Stream(stream));
        Ok(())
    }

    /// A part of a regular file, to be read outside the lock.
    fn next_range(&mut self, input: &InputFile, cutter: &Cutter) -> io::Result<ChunkPlan> {
        let (start, len) = (self.place.offset, input.len.unwrap_or(0));
        let until = input.range.as_ref().map_or(len, |range| range.end);
        if start >= until {
            return Ok(self.empty(start >= len));
        }
        let file = match &self.opened {
            Some(Opened::Positioned(file)) => Arc::clone(file),
            _ => Arc::new(File::open(&input.path)?),
        };
        self.opened = Some(Opened::Positioned(Arc::clone(&file)));
        let end = match input.file_type {
            FileType::JsonLines(_) => cutter.line_end(&file, start, until)?,
            _ => cutter.chunk_end(&file, start, until)?,
        };
        let input_bytes = end - start;
        let content = Content::InFile { file, len: input_bytes as usize };
        let plan = ChunkPlan {
            end: Place { offset: end, ..self.place.clone() },
            ends_file: end == len,
            ends_unit: end == until,
            input_bytes,
            content,
        };
        Ok(plan.with_end_of_file(&self.place))
    }

    /// Text up to a cut, or whole lines, of what is read in order.
    fn read_stream(
        &mut self,
        input: &InputFile,
        cutter: &Cutter,
        buffer: &mut Vec<u8>,
    ) -> io::Result<ChunkPlan> {
        let mut stream = match self.opened.take() {
            Some(Opened::Stream(stream)) => stream,
            _ => Stream::open(input)?,
        };
        let has_lines = matches!(input.file_type, FileType::JsonLines(_));
        std::mem::swap(buffer, &mut stream.carry);
        let (mut searched, mut wanted) = (0, cutter.chunk_bytes);
        let mut at_end = false;
        let cut = loop {
            let read = (&mut stream.text).take(wanted as u64).read_to_end(buffer)?;
            if read < wanted {
                at_end = true;
                break buffer.len();
            }
            let found = match has_lines {
                true => memchr::memrchr(b'\n', &buffer[searched..]).map(|at| searched + at + 1),
                false => last_cut(buffer, searched, &cutter.pattern, &cutter.special),
            };
            if let Some(cut) = found {
                break cut;
            }
            if buffer.len() as u64 >= stream.max_uncut() {
                let (size, read) = (buffer.len() >> 20, stream.max_uncut() >> 20);
                return Err(io::Error::other(format!(
                    "unpacks to {size} MiB without a place to cut, where at most {read} MiB are \
                     held; if it is to be read all the same, unpack it first"
                )));
            }
            // The first place that may turn out to be a cut when there is more.
            let undecided = if has_lines { 0 } else { reach(&cutter.special) - 2 };
            searched = buffer.len().saturating_sub(undecided);
            wanted = buffer.len();
        };
        if buffer.is_empty() {
            let input_bytes = stream.newly_read(input.len);
            return Ok(ChunkPlan { input_bytes, ..self.empty(true) });
        }
        stream.carry.extend_from_slice(&buffer[cut..]);
        buffer.truncate(cut);
        let mut end = self.place.clone();
        end.offset += cut as u64;
        if has_lines {
            end.line += memchr::memchr_iter(b'\n', buffer).count() as u64;
        }
        let ends_file = at_end || stream.at_end();
        let input_bytes = stream.newly_read(input.len.filter(|_| ends_file));
        self.opened = Some(Opened::Stream(stream));
        let content = Content::Buffered;
        let plan = ChunkPlan { end, ends_file, ends_unit: ends_file, input_bytes, content };
        Ok(plan.with_end_of_file(&self.place))
    }

    /// Some rows of a part of a table.
    fn read_rows(
        &mut self,
        input: &InputFile,
        part: TablePart,
        chunk_bytes: usize,
        buffer: &mut Vec<u8>,
    ) -> std::result::Result<ChunkPlan, String> {
        let start = self.place.offset;
        let mut rows = match self.opened.take() {
            Some(Opened::Rows(rows)) => rows,
            _ => Arc::clone(&part.table).rows_from(start)?,
        };
        let mut ends = Vec::new();
        // With its last rows, so that no chunk is empty; empty texts count too, or a column of them
        // would be one endless chunk.
        let mut ends_unit = rows.next_row() >= part.until;
        while buffer.len() + ends.len() < chunk_bytes && !ends_unit {
            ends_unit = !rows.read(buffer, &mut ends)? || rows.next_row() >= part.until;
        }
        let end = if ends_unit { part.until } else { rows.next_row() };
        self.opened = Some(Opened::Rows(rows));
        let len = input.len.unwrap_or(0);
        let before = if start == 0 { 0 } else { bytes_before(&*part.table, start, len) };
        let plan = ChunkPlan {
            end: Place { offset: end, ..self.place.clone() },
            ends_file: ends_unit && part.is_last(),
            ends_unit,
            input_bytes: bytes_before(&*part.table, end, len) - before,
            content: Content::Records(ends),
        };
        Ok(plan.with_end_of_file(&self.place))
    }

    /// A chunk without anything, where nothing is left of the unit.
    fn empty(&self, ends_file: bool) -> ChunkPlan {
        ChunkPlan {
            end: self.place.clone(),
            ends_file,
            ends_unit: true,
            input_bytes: 0,
            content: Content::Records(Vec::new()),
        }
        .with_end_of_file(&self.place)
    }
}

impl TablePart {
    fn is_last(&self) -> bool {
        self.table.ends().last().is_none_or(|&end| self.until >= end)
    }
}

impl ChunkPlan {
    /// After the last chunk of a file comes the next file.
    fn with_end_of_file(mut self, start: &Place) -> Self {
        if self.ends_file {
            self.end = Place::start_of(start.file + 1);
        }
        self
    }
}

/// Opens a table for all threads.
#[cfg(feature = "parquet")]
pub fn open_table(
    path: &Path,
    column: &str,
    part_bytes: usize,
) -> std::result::Result<Arc<dyn Table>, String> {
    Ok(Arc::new(super::parquet::ParquetTable::open(path, column, part_bytes as u64)?))
}

/// Such files were refused when the source was opened.
#[cfg(not(feature = "parquet"))]
pub fn open_table(_: &Path, _: &str, _: usize) -> std::result::Result<Arc<dyn Table>, String> {
    Err("this build cannot read tables".to_owned())
}
