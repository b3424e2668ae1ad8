//! Text that is read in order: from a pipe, or from a compressed file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::file::{InputFile, STDIN};
use super::foreign;
use crate::error::{Error, Result};
use crate::progress::Progress;

const BUFFER_BYTES: usize = 1 << 16;

const MAX_UNCUT: u64 = 128 << 20;
const MAX_RATIO: u64 = 64;

/// How many bytes are skipped between two looks at whether to stop.
const SKIP_BYTES: u64 = 1 << 20;

/// An input that is read in order.
pub struct Stream {
    /// The text, unpacked.
    pub text: Box<dyn BufRead + Send>,
    /// What was read beyond the end of the last chunk.
    pub carry: Vec<u8>,
    /// How many bytes of the file were read so far.
    read: Arc<AtomicU64>,
    reported: u64,
    is_packed: bool,
}

impl Stream {
    /// Opens an input at its start.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(input: &InputFile) -> io::Result<Self> {
        Self::open_file_at(input, 0)
    }

    /// Opens an input after `offset` bytes of its text: at once if the file's bytes are the text,
    /// by unpacking them if it is compressed.
    ///
    /// # Errors
    /// It cannot be read, it ends before that offset, or `progress` says stop.
    pub fn open_at(input: &InputFile, offset: u64, progress: &Progress) -> Result<Self> {
        let with_path = |error| Error::io(&input.path, error);
        let (seek_to, mut left) = match input.compression {
            None => (offset, 0),
            Some(_) => (0, offset),
        };
        let mut stream = Self::open_file_at(input, seek_to).map_err(with_path)?;
        while left > 0 {
            let mut part = (&mut stream.text).take(left.min(SKIP_BYTES));
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

    /// Opens an input `offset` bytes into its file.
    fn open_file_at(input: &InputFile, offset: u64) -> io::Result<Self> {
        let read = Arc::new(AtomicU64::new(offset));
        let raw: Box<dyn Read + Send> = match input.path == Path::new(STDIN) {
            true => Box::new(io::stdin()),
            false => {
                let mut file = File::open(&input.path)?;
                // A pipe has a name too, but no places to go to.
                if offset > 0 {
                    file.seek(SeekFrom::Start(offset))?;
                }
                Box::new(file)
            }
        };
        let metered = Metered { raw, read: Arc::clone(&read) };
        let raw = BufReader::with_capacity(BUFFER_BYTES, metered);
        let mut text: Box<dyn BufRead + Send> = match input.compression {
            None => Box::new(raw),
            Some(compression) => {
                Box::new(BufReader::with_capacity(BUFFER_BYTES, compression.decoder(raw)?))
            }
        };
        // Of a pipe nothing was seen before.
        if input.len.is_none()
            && let Some(what) = foreign::of_content(text.fill_buf()?)
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Self {
            text,
            read,
            reported: 0,
            carry: Vec::new(),
            is_packed: input.compression.is_some(),
        })
    }

    /// How much text without a place to cut is held at once: of a compressed file, which may be
    /// far larger than it looks, at most 128 MiB or 64 times what was read of it.
    pub fn max_uncut(&self) -> u64 {
        match self.is_packed {
            true => MAX_UNCUT.max(MAX_RATIO * self.read.load(Relaxed)),
            false => u64::MAX,
        }
    }

    /// Whether nothing is left. What cannot be read counts as left: the error comes when it is
    /// read.
    pub fn at_end(&mut self) -> bool {
        self.carry.is_empty() && self.text.fill_buf().is_ok_and(<[u8]>::is_empty)
    }

    /// How many bytes of the file were read since the last call. At the file's end, `len` is its
    /// size: a decompressor may leave trailing bytes unread.
    pub fn newly_read(&mut self, len: Option<u64>) -> u64 {
        let read = len.unwrap_or_else(|| self.read.load(Relaxed));
        read.saturating_sub(std::mem::replace(&mut self.reported, read))
    }
}

/// A reader that counts what it reads.
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
