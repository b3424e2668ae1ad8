//! Where a regular file of text is cut into chunks, found from a few kilobytes around each cut.

use std::fs::File;
use std::io;

use crate::text::cut::{next_cut, reach};
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;

/// What is read at first to find a safe cut near a place; most are found within a few bytes.
const WINDOW: usize = 4096;
const MAX_WINDOW: usize = 1 << 20;

/// What decides where text may be cut.
pub struct Cutter {
    pub pattern: Pattern,
    pub special: SpecialTokens,
    /// About how long a chunk is to be.
    pub chunk_bytes: usize,
}

impl Cutter {
    /// The end of the chunk that begins at `start` of a file of `len` bytes: a safe cut, or the
    /// file's end.
    pub fn chunk_end(&self, file: &File, start: u64, len: u64) -> io::Result<u64> {
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
            // No place that this window decides is a cut; the first that it does not decide is:
            from = from.max(window_start + (window.len() + 1 - reach) as u64);
            window_bytes = (2 * window_bytes).min(MAX_WINDOW.max(4 * reach));
        }
        Ok(len)
    }

    /// The end of the chunk of whole lines that begins at `start` of a file of `len` bytes.
    pub fn line_end(&self, file: &File, start: u64, len: u64) -> io::Result<u64> {
        // One byte back: a line may end just there.
        let mut from = start.saturating_add(self.chunk_bytes as u64 - 1);
        let mut window = vec![0; WINDOW.min(self.chunk_bytes)];
        while from < len {
            window.resize((len - from).min(window.len() as u64) as usize, 0);
            read_exact_at(file, &mut window, from)?;
            if let Some(at) = memchr::memchr(b'\n', &window) {
                return Ok(from + at as u64 + 1);
            }
            from += window.len() as u64;
            window.resize((2 * window.len()).min(MAX_WINDOW), 0);
        }
        Ok(len)
    }
}

/// Fills `buffer` from `offset` on, without moving the file's own position.
///
/// # Errors
/// The file cannot be read, or ends before the buffer is full.
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

/// Reads some bytes from `offset` on, without moving the file's own position; 0 at the end.
#[cfg(unix)]
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}
