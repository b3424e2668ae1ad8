//! What a buffer was filled with, and where in the input that begins.

use serde::{Deserialize, Serialize};

/// A place between two chunks, to come back to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The index of the file among the paths given.
    pub file: usize,
    /// How much of the file is before it: bytes of its unpacked text, or rows of a table.
    pub offset: u64,
    /// In JSON lines that are read in order, how many lines are before it.
    pub line: u64,
}

impl Place {
    /// After all files, however many there are.
    pub const END: Self = Self { file: usize::MAX, offset: 0, line: 0 };

    /// The start of a file.
    pub fn start_of(file: usize) -> Self {
        Self { file, ..Self::default() }
    }
}

/// Which part of the input a buffer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins.
    pub start: Place,
    /// Where the next one begins. Chunks may come in another order than that of the text, which
    /// this tells.
    pub end: Place,
    /// Whether something before it may not have been given out yet.
    pub is_ahead: bool,
    /// Whether the file ends with this chunk: what follows is another document.
    pub ends_file: bool,
    /// How many bytes of the input this is, compressed if the file is. Over all chunks this adds
    /// up to [`Source::total_bytes`](super::Source::total_bytes).
    pub input_bytes: u64,
    /// What had to be left out, and why ([`SourceOptions::skip_errors`]).
    ///
    /// [`SourceOptions::skip_errors`]: super::SourceOptions::skip_errors
    pub skipped: Vec<String>,
    /// Where in the buffer records end, if the file has records; no record spans two chunks.
    pub(super) record_ends: Option<Vec<usize>>,
}

impl Chunk {
    /// The parts of the chunk's text that are processed separately: its records, or all of it.
    pub fn pieces<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let ends = match &self.record_ends {
            Some(ends) => ends.clone(),
            None => vec![text.len()],
        };
        let mut start = 0;
        ends.into_iter().map(move |end| &text[std::mem::replace(&mut start, end)..end])
    }

    /// Whether [`pieces`](Self::pieces) are records, each a document of its own.
    pub fn has_records(&self) -> bool {
        self.record_ends.is_some()
    }
}
