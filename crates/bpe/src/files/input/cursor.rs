//! Where the next chunk begins, and how far it goes: what is done under the source's lock.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::chunk::Place;
use super::cutter::Cutter;
use super::file::{FileType, InputFile};
use super::stream::Stream;
use super::table::Table;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::text::cut::{last_cut, reach};

/// Where the next chunk begins.
#[derive(Default)]
pub struct Cursor {
    /// Its number.
    pub index: u64,
    pub place: Place,
    /// The file it is in, once it was opened.
    opened: Option<OpenFile>,
}

/// A file, opened as its type is read.
enum OpenFile {
    Positioned(Arc<File>),
    Stream(Stream),
    Table(Box<dyn Table>),
}

/// What was decided about a chunk under the lock.
pub struct ChunkPlan {
    pub ends_file: bool,
    pub input_bytes: u64,
    pub content: Content,
}

/// Where the chunk's content is, and so what is left to do outside the lock.
pub enum Content {
    /// In the buffer, as in the file: text, or lines of records to parse.
    Buffered,
    /// In the file, from the chunk's start on.
    InFile { file: Arc<File>, len: usize },
    /// In the buffer: records that end at these places.
    Records(Vec<usize>),
}

impl Cursor {
    pub fn at(index: u64, place: Place) -> Self {
        Self { index, place, opened: None }
    }

    /// Decides how far the next chunk goes, and moves past it; `None` at the end of the file.
    pub fn next_chunk(
        &mut self,
        input: &InputFile,
        cutter: &Cutter,
        buffer: &mut Vec<u8>,
    ) -> Result<Option<ChunkPlan>> {
        let with_path = |error| Error::io(&input.path, error);
        match (&input.file_type, input.len) {
            (FileType::Parquet(column), len) => self
                .read_rows(input, column, len.unwrap_or(0), cutter.chunk_bytes, buffer)
                .map_err(|why| Error::invalid(format!("{}: {why}", input.path.display()))),
            (_, Some(len)) if input.is_positioned() => {
                self.next_range(input, len, cutter).map_err(with_path)
            }
            _ => self.read_stream(input, cutter, buffer).map_err(with_path),
        }
    }

    /// In place of a chunk that cannot be read: an empty one that ends the file.
    pub fn skip_rest(&mut self, input: &InputFile, buffer: &mut Vec<u8>) -> ChunkPlan {
        buffer.clear();
        self.opened = None;
        let content = match input.file_type.is_parquet() {
            true => Content::Records(Vec::new()),
            false => Content::Buffered,
        };
        ChunkPlan { ends_file: true, input_bytes: 0, content }
    }

    pub fn next_file(&mut self) {
        self.place = Place { file: self.place.file + 1, ..Place::default() };
        self.opened = None;
    }

    /// Opens the file that the cursor is in, at the cursor's place.
    pub fn open_at_place(&mut self, input: &InputFile, progress: &Progress) -> Result<()> {
        let offset = self.place.offset;
        self.opened = match &input.file_type {
            _ if input.is_positioned() => {
                progress.advance(offset)?;
                None
            }
            FileType::Parquet(column) => {
                let table = open_table(&input.path, column).and_then(|mut table| {
                    table.skip(offset)?;
                    Ok(table)
                });
                let with_path = |why| Error::invalid(format!("{}: {why}", input.path.display()));
                let table = table.map_err(with_path)?;
                progress.advance(table.bytes_read(input.len.unwrap_or(0)))?;
                Some(OpenFile::Table(table))
            }
            _ => Some(OpenFile::Stream(Stream::open_at(input, offset, progress)?)),
        };
        Ok(())
    }

    /// A part of a regular file of text, to be read outside the lock.
    fn next_range(
        &mut self,
        input: &InputFile,
        len: u64,
        cutter: &Cutter,
    ) -> io::Result<Option<ChunkPlan>> {
        let offset = self.place.offset;
        let until = input.range.as_ref().map_or(len, |range| range.end);
        if offset == until {
            return Ok(None);
        }
        let file = match &self.opened {
            Some(OpenFile::Positioned(file)) => Arc::clone(file),
            _ => Arc::new(File::open(&input.path)?),
        };
        self.opened = Some(OpenFile::Positioned(Arc::clone(&file)));
        let end = cutter.chunk_end(&file, offset, until)?;
        self.place.offset = end;
        let input_bytes = end - offset;
        let content = Content::InFile { file, len: input_bytes as usize };
        Ok(Some(ChunkPlan { ends_file: end == len, input_bytes, content }))
    }

    /// Text up to a cut, or whole lines, of what is read in order.
    fn read_stream(
        &mut self,
        input: &InputFile,
        cutter: &Cutter,
        buffer: &mut Vec<u8>,
    ) -> io::Result<Option<ChunkPlan>> {
        let mut stream = match self.opened.take() {
            Some(OpenFile::Stream(stream)) => stream,
            _ => Stream::open(input)?,
        };
        let has_lines = matches!(input.file_type, FileType::JsonLines(_));
        buffer.clear();
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
            return Ok(None);
        }
        stream.carry.extend_from_slice(&buffer[cut..]);
        buffer.truncate(cut);
        self.place.offset += cut as u64;
        if has_lines {
            self.place.line += memchr::memchr_iter(b'\n', buffer).count() as u64;
        }
        let ends_file = at_end || stream.at_end();
        let input_bytes = stream.newly_read(input.len.filter(|_| ends_file));
        self.opened = Some(OpenFile::Stream(stream));
        Ok(Some(ChunkPlan { ends_file, input_bytes, content: Content::Buffered }))
    }

    /// Some rows of a table.
    fn read_rows(
        &mut self,
        input: &InputFile,
        column: &str,
        len: u64,
        chunk_bytes: usize,
        buffer: &mut Vec<u8>,
    ) -> std::result::Result<Option<ChunkPlan>, String> {
        let mut table = match self.opened.take() {
            Some(OpenFile::Table(table)) => table,
            _ => open_table(&input.path, column)?,
        };
        let before = table.bytes_read(len);
        let mut ends = Vec::new();
        buffer.clear();
        let mut ends_file = false;
        // Empty texts count too, or a column of them would be one endless chunk.
        while buffer.len() + ends.len() < chunk_bytes && !ends_file {
            ends_file = !table.read(buffer, &mut ends)?;
        }
        self.place.offset = table.rows_read();
        let input_bytes = if ends_file { len } else { table.bytes_read(len) } - before;
        self.opened = Some(OpenFile::Table(table));
        Ok(Some(ChunkPlan { ends_file, input_bytes, content: Content::Records(ends) }))
    }
}

#[cfg(feature = "parquet")]
fn open_table(path: &Path, column: &str) -> std::result::Result<Box<dyn Table>, String> {
    Ok(Box::new(super::parquet::ParquetTable::open(path, column)?))
}

/// Such files were refused when the source was opened.
#[cfg(not(feature = "parquet"))]
fn open_table(_: &Path, _: &str) -> std::result::Result<Box<dyn Table>, String> {
    Err("this build cannot read tables".to_owned())
}
