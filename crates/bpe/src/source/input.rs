//! One input: what kind it is, told by its name, and how its text is read.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};

/// The path that means standard input.
pub const STDIN: &str = "-";

const STREAM_BUFFER: usize = 1 << 16;

pub struct Input {
    pub path: PathBuf,
    /// `None` for what is no regular file: it is read in order, to its end.
    pub len: Option<u64>,
    compression: Option<Compression>,
    /// For JSON lines: the field that holds a record's text.
    pub text_field: Option<String>,
}

#[derive(Clone, Copy)]
enum Compression {
    Gzip,
    Zstandard,
}

impl Input {
    /// `text_field`: the field to read of JSON lines; `None` takes them for plain text.
    pub fn look_at(path: &Path, text_field: Option<&str>) -> Result<Self> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (stem, compression) = match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
            (Some(stem), _) => (stem, Some(Compression::Gzip)),
            (_, Some(stem)) => (stem, Some(Compression::Zstandard)),
            _ => (name.as_str(), None),
        };
        let is_jsonl = stem.ends_with(".jsonl") || stem.ends_with(".ndjson");
        Ok(Self {
            path: path.to_path_buf(),
            len: Self::len_of(path)?,
            compression,
            text_field: text_field.filter(|_| is_jsonl).map(str::to_owned),
        })
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
        self.len.is_some() && self.compression.is_none() && self.text_field.is_none()
    }

    pub fn open_stream(&self) -> io::Result<Stream> {
        let read = Arc::new(AtomicU64::new(0));
        let raw: Box<dyn Read + Send> = match self.path == Path::new(STDIN) {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(&self.path)?),
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
        Ok(Stream { text, read, reported: 0, line: 0 })
    }
}

/// Text that is read in order.
pub struct Stream {
    pub text: Box<dyn BufRead + Send>,
    /// How many bytes of the input were read for it.
    read: Arc<AtomicU64>,
    reported: u64,
    /// How many lines were read of JSON lines.
    pub line: u64,
}

impl Stream {
    /// Whether nothing is left. What cannot be read is left, and an error when it is read.
    pub fn at_end(&mut self) -> bool {
        self.text.fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    /// How much of the input was read since the last call. `len`, at the input's end, is its size,
    /// for a decoder may leave bytes alone that say nothing.
    pub fn newly_read(&mut self, len: Option<u64>) -> u64 {
        let read = len.unwrap_or_else(|| self.read.load(Relaxed));
        read - std::mem::replace(&mut self.reported, read)
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
