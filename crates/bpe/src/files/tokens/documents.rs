//! `tokens.documents`: how many ids and bytes each document of an array has, so that arrays made
//! apart are split into training and validation as one.
//!
//! ```text
//! 16 bytes that say what this is
//! for each document, or part of one that a chunk held: two numbers of 64 bits, little-endian:
//!     ids;    bytes of text * 2, + 1 if the document ends with it
//! ```

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::split::DocumentPart;
use crate::error::{Error, Result};
use crate::files::atomic_file::{AtomicFile, write_all_at};

const MAGIC: &[u8; ENTRY] = b"cs336lm docs v1\n";
const ENTRY: usize = 16;

/// Whether the file is one of these.
fn is_one(path: &Path) -> bool {
    let mut magic = [0; ENTRY];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *MAGIC
}

/// Writes the documents of chunks to their places, from any thread.
pub struct DocumentsWriter {
    file: AtomicFile,
}

impl DocumentsWriter {
    /// # Errors
    /// The file cannot be created, or another is there.
    pub fn create(path: &Path) -> Result<Self> {
        if path.exists() && !is_one(path) {
            let path = path.display();
            return Err(Error::invalid(format!(
                "{path}: was not written by this program; move it"
            )));
        }
        let file = AtomicFile::create(path)?;
        write_all_at(file.file(), MAGIC, 0).map_err(|error| Error::io(path, error))?;
        Ok(Self { file })
    }

    /// Writes a chunk's documents, before which there are `before`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, before: u64, documents: &[DocumentPart]) -> Result<()> {
        let mut bytes = Vec::with_capacity(ENTRY * documents.len());
        let mut start = 0;
        for document in documents {
            let ids = (document.end - start) as u64;
            start = document.end;
            bytes.extend(ids.to_le_bytes());
            bytes.extend((document.bytes << 1 | u64::from(document.ends_document)).to_le_bytes());
        }
        let offset = ENTRY as u64 * (1 + before);
        write_all_at(self.file.file(), &bytes, offset)
            .map_err(|error| Error::io(self.file.path(), error))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// The disk is full.
    pub fn commit(self) -> Result<()> {
        self.file.commit()
    }
}

/// Reads documents back, in order.
pub struct DocumentsReader {
    path: PathBuf,
    from: BufReader<File>,
}

impl DocumentsReader {
    /// # Errors
    /// The file cannot be read, or is another.
    pub fn open(path: PathBuf) -> Result<Self> {
        let mut magic = [0; ENTRY];
        let opened = File::open(&path).and_then(|file| {
            let mut from = BufReader::new(file);
            from.read_exact(&mut magic).map(|()| from)
        });
        match opened {
            Ok(from) if magic == *MAGIC => Ok(Self { path, from }),
            Ok(_) => Err(Error::invalid(format!("{}: is no list of documents", path.display()))),
            Err(error) => Err(Error::io(&path, error)),
        }
    }

    /// The next document, its `end` counted from its own beginning; `None` after the last.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn next(&mut self) -> Result<Option<DocumentPart>> {
        let mut entry = [0; ENTRY];
        match self.from.read_exact(&mut entry) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(Error::io(&self.path, error)),
        }
        let number =
            |half: &[u8]| half.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let (ids, bytes) = (number(&entry[..8]), number(&entry[8..]));
        Ok(Some(DocumentPart {
            end: ids as usize,
            bytes: bytes >> 1,
            ends_document: bytes & 1 == 1,
        }))
    }
}
