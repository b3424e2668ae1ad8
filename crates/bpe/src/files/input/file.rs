//! One input: what kind it is, told by its name, and how its text is read.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::progress::Progress;

/// The path that means standard input.
pub const STDIN: &str = "-";

const STREAM_BUFFER: usize = 1 << 16;

/// What is passed over at a time, so that the wish to stop is heard.
const SKIP: u64 = 1 << 20;

/// Where the text stands in files of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFields {
    /// The field of JSON lines; `None` takes them for plain text.
    pub json: Option<String>,
    /// The column of Parquet files.
    pub parquet: String,
}

impl Default for TextFields {
    fn default() -> Self {
        Self { json: None, parquet: "text".to_owned() }
    }
}

pub struct Input {
    pub path: PathBuf,
    /// `None` for what is no regular file: it is read in order, to its end.
    pub len: Option<u64>,
    pub kind: Kind,
    compression: Option<Compression>,
}

pub enum Kind {
    Text,
    /// Every line an object; this field of it is a document.
    JsonLines(String),
    /// Every row a document, in this column.
    Parquet(String),
}

#[derive(Clone, Copy)]
enum Compression {
    Gzip,
    Zstandard,
}

impl Input {
    pub fn look_at(path: &Path, fields: &TextFields) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (stem, compression) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
            (Some(stem), _) => (stem, Some(Compression::Gzip)),
            (_, Some(stem)) => (stem, Some(Compression::Zstandard)),
            _ => (name.as_str(), None),
        };
        let is_jsonl = stem.ends_with(".jsonl") || stem.ends_with(".ndjson");
        let kind = match (&fields.json, stem.ends_with(".parquet")) {
            (_, true) => Kind::Parquet(fields.parquet.clone()),
            (Some(field), _) if is_jsonl => Kind::JsonLines(field.clone()),
            _ => Kind::Text,
        };
        if matches!(kind, Kind::Parquet(_)) && compression.is_some() {
            return Err(Error::invalid(format!(
                "{}: Parquet is read in any order, so not out of another archive; unpack it",
                path.display()
            )));
        }
        Ok(Self { path: path.to_path_buf(), len: Self::len_of(path)?, kind, compression })
    }

    fn len_of(path: &Path) -> Result<Option<u64>> {
        if path == Path::new(STDIN) {
            return Ok(None);
        }
        let metadata = fs::metadata(path).map_err(|error| Error::io(path, error))?;
        if metadata.is_dir() {
            return Err(Error::invalid(format!(
                "{}: is a directory; give the files in it",
                path.display()
            )));
        }
        if !metadata.is_file() {
            return Ok(None);
        }
        File::open(path).map_err(|error| Error::io(path, error))?;
        Ok(Some(metadata.len()))
    }

    /// Whether the file's bytes are the text, so that any part of it can be read apart.
    pub fn is_positioned(&self) -> bool {
        self.len.is_some() && self.compression.is_none() && matches!(self.kind, Kind::Text)
    }

    pub fn open_stream(&self) -> io::Result<Stream> {
        self.open_stream_at(0)
    }

    /// Opens what is read in order, `offset` bytes into the text. Packed text is not passed over
    /// yet: that takes [`Stream::skip`].
    fn open_stream_at(&self, offset: u64) -> io::Result<Stream> {
        let read = Arc::new(AtomicU64::new(offset));
        let raw: Box<dyn Read + Send> = match self.path == Path::new(STDIN) {
            true => Box::new(io::stdin()),
            false => {
                let mut file = File::open(&self.path)?;
                file.seek(SeekFrom::Start(offset))?;
                Box::new(file)
            }
        };
        let raw = BufReader::with_capacity(STREAM_BUFFER, Metered { raw, read: Arc::clone(&read) });
        let text: Box<dyn BufRead + Send> = match self.compression {
            None => Box::new(raw),
            Some(Compression::Gzip) => Box::new(BufReader::with_capacity(
                STREAM_BUFFER,
                flate2::bufread::MultiGzDecoder::new(raw),
            )),
            Some(Compression::Zstandard) => Box::new(BufReader::with_capacity(
                STREAM_BUFFER,
                zstd::stream::read::Decoder::with_buffer(raw)?,
            )),
        };
        Ok(Stream { text, read, reported: 0, carry: Vec::new() })
    }
}

/// Text that is read in order.
pub struct Stream {
    pub text: Box<dyn BufRead + Send>,
    /// What was read beyond the last chunk's end.
    pub carry: Vec<u8>,
    /// How many bytes of the input were read for it.
    read: Arc<AtomicU64>,
    reported: u64,
}

impl Stream {
    /// Opens `input` where `offset` bytes of its text are passed over: at once if the file's bytes
    /// are the text, by unpacking them if it is packed.
    pub fn open_at(input: &Input, offset: u64, progress: &Progress) -> Result<Self> {
        let with_path = |error| Error::io(&input.path, error);
        let seekable = input.compression.is_none();
        let mut stream =
            input.open_stream_at(if seekable { offset } else { 0 }).map_err(with_path)?;
        let mut left = if seekable { 0 } else { offset };
        while left > 0 {
            let mut part = (&mut stream.text).take(left.min(SKIP));
            let skipped = io::copy(&mut part, &mut io::sink()).map_err(with_path)?;
            if skipped == 0 {
                return Err(with_path(io::ErrorKind::UnexpectedEof.into()));
            }
            left -= skipped;
            progress.advance(stream.newly_read(None))?;
        }
        progress.advance(stream.newly_read(None))?;
        Ok(stream)
    }

    /// Whether nothing is left. What cannot be read is left, and an error when it is read.
    pub fn at_end(&mut self) -> bool {
        self.carry.is_empty() && self.text.fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    /// How much of the input was read since the last call. `len`, at the input's end, is its size,
    /// for a decoder may leave bytes alone that say nothing.
    pub fn newly_read(&mut self, len: Option<u64>) -> u64 {
        let read = len.unwrap_or_else(|| self.read.load(Relaxed));
        read.saturating_sub(std::mem::replace(&mut self.reported, read))
    }
}

struct Metered<R> {
    raw: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.raw.read(buffer)?;
        self.read.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}
