//! Counts files: counting on many machines, training on one.
//!
//! ```text
//! a line of JSON: {"format":"cs336lm pretoken counts","version":1,"pattern":..,
//!                  "special_tokens":[..],"pretokens":N}
//! N entries in ascending order (see `sorted_run`)
//! SHA-256 of everything before, 32 bytes
//! ```
//!
//! The same text gives the same bytes, however it was counted. Files are merged while they are
//! read, so that only the sum is in memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::counts::Counts;
use super::ranked::{Ranked, Ranking};
use super::sorted_run::{self, EntryReader, corrupt};
use super::spill::SortedRunWriter;
use crate::error::{Error, Result};
use crate::files::atomic_file::AtomicFile;
use crate::files::claim::{Claim, Inputs};
use crate::files::place::{folder, follow_links};
use crate::files::unfinished::remove_unfinished;
use crate::progress::Progress;
use crate::text::pattern::Pattern;
use crate::text::special::SpecialTokens;

const FORMAT: &str = "cs336lm pretoken counts";
const VERSION: u32 = 1;

/// No header is longer than this.
const MAX_HEADER: u64 = 1 << 24;

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    pattern: String,
    special_tokens: Vec<String>,
    pretokens: u64,
}

/// Claims the file that counts of `inputs` are to be written to: nobody else may write it while the
/// claim is held.
///
/// # Errors
/// The file is an input, was not written by [`save_counts`], or another job is writing it.
pub fn claim_counts(path: &Path, inputs: &[PathBuf]) -> Result<Option<Claim>> {
    let place = follow_links(path)?;
    let Some(name) = place.file_name() else {
        let path = path.display();
        return Err(Error::invalid(format!("{path}: is a directory; give a file's name")));
    };
    // First, as nothing can be written beside a device.
    let inputs = Inputs::of(inputs);
    let check = || inputs.check_output(path, "cs336lm count-pretokens", |path| open(path).is_ok());
    check()?;
    let claim = Claim::take(folder(&place), name, path)?;
    check()?;
    remove_unfinished(&place, |left| name == left);
    Ok(claim)
}

/// Writes counts to a file, to be added to those of other machines.
///
/// # Errors
/// The file cannot be written, or `progress` says stop.
pub fn save_counts(
    path: &Path,
    counts: Counts,
    pattern: &Pattern,
    special: &SpecialTokens,
    progress: &Progress,
) -> Result<()> {
    let header = Header {
        format: FORMAT.to_owned(),
        version: VERSION,
        pattern: pattern.name().to_owned(),
        special_tokens: special.tokens().to_vec(),
        pretokens: counts.len(),
    };
    let file = AtomicFile::create(path)?;
    write_counts(file.file(), &header, counts, progress).map_err(|failure| match failure {
        CountsFileError::Other(error) => error,
        CountsFileError::File(_, error) => Error::io(path, error),
    })?;
    file.commit()
}

fn write_counts(
    file: &File,
    header: &Header,
    counts: Counts,
    progress: &Progress,
) -> Result<(), CountsFileError> {
    let failed = |error: io::Error| CountsFileError::File(0, error);
    let mut out = Hashed::new(BufWriter::with_capacity(1 << 16, file));
    let mut line = serde_json::to_vec(header).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    out.write_all(&line).map_err(failed)?;
    counts.for_each_ascending(progress, |pretoken, count| {
        sorted_run::write_entry(&mut out, pretoken, count).map_err(failed)
    })?;
    let digest = out.hash.finalize();
    out.inner.write_all(&digest).and_then(|()| out.inner.flush()).map_err(failed)
}

/// The sum of several counts files, without what is rarer than `min_count`, and the pattern and
/// the special tokens that all of them were counted with. What would take more than `max_memory`
/// bytes is kept on the disk.
///
/// # Errors
/// A file is not a counts file, is corrupt, or was counted with another pattern or other special
/// tokens than the first.
pub fn load_counts(
    paths: &[PathBuf],
    min_count: u64,
    max_memory: Option<u64>,
    progress: &Progress,
) -> Result<(Ranked, Pattern, SpecialTokens)> {
    let mut ranking = Ranking::new(max_memory);
    let mut bytes = 0u64;
    let (pattern, special) = merge_files(paths, progress, |pretoken, count| {
        if count < min_count {
            return Ok(());
        }
        // No pair occurs more often than there are bytes, so that this bounds all sums to come.
        let more = count.checked_mul(pretoken.len() as u64);
        bytes = more.and_then(|more| bytes.checked_add(more)).ok_or_else(too_many_bytes)?;
        ranking.push(pretoken, count, progress)
    })?;
    Ok((ranking.finish(progress)?, pattern, special))
}

/// Writes the sum of several counts files into one, as counting all their texts would; returns how
/// many pretokens it holds. The sum waits on the disk.
///
/// # Errors
/// Those of [`load_counts`], [`claim_counts`] and [`save_counts`].
pub fn add_counts(paths: &[PathBuf], out: &Path, progress: &Progress) -> Result<u64> {
    let _claim = claim_counts(out, paths)?;
    let mut run = SortedRunWriter::create()?;
    let (pattern, special) =
        merge_files(paths, progress, |pretoken, count| run.push(pretoken, count, progress))?;
    let counts = Counts::Disk(run.finish()?);
    let pretokens = counts.len();
    save_counts(out, counts, &pattern, &special, progress)?;
    Ok(pretokens)
}

/// Calls `visit` with each pretoken of all files, in ascending order, and the sum of its counts;
/// returns the pattern and the special tokens that all were counted with.
fn merge_files(
    paths: &[PathBuf],
    progress: &Progress,
    mut visit: impl FnMut(&[u8], u64) -> Result<()>,
) -> Result<(Pattern, SpecialTokens)> {
    let Some(first_path) = paths.first() else {
        return Err(Error::invalid("no counts files given: name at least one"));
    };
    let (mut headers, mut readers) = (Vec::new(), Vec::new());
    for path in paths {
        let (header, reader) = open(path)?;
        headers.push(header);
        readers.push(reader);
    }
    for (path, header) in paths.iter().zip(&headers) {
        check_same(first_path, &headers[0], path, header)?;
    }
    let merged =
        sorted_run::merge(&mut readers, progress, |pretoken, count| Ok(visit(pretoken, count)?));
    merged.map_err(|failure| match failure {
        CountsFileError::Other(error) => error,
        CountsFileError::File(index, error) => unreadable(&paths[index], error),
    })?;
    for (path, reader) in paths.iter().zip(readers) {
        check_digest(reader.from).map_err(|error| unreadable(path, error))?;
    }
    let pattern = Pattern::parse(&headers[0].pattern)?;
    let special = SpecialTokens::new(&headers[0].special_tokens)?;
    Ok((pattern, special))
}

/// The error for counts that no text can have, and whose sums would not fit into 64 bits.
fn too_many_bytes() -> Error {
    Error::invalid(
        "the counts files stand for more than 2^64 bytes of text: are they damaged? count again",
    )
}

/// What can go wrong while counts files are read or written.
enum CountsFileError {
    /// In the file of this index.
    File(usize, io::Error),
    Other(Error),
}

impl From<Error> for CountsFileError {
    fn from(error: Error) -> Self {
        CountsFileError::Other(error)
    }
}

impl From<(usize, io::Error)> for CountsFileError {
    fn from((index, error): (usize, io::Error)) -> Self {
        CountsFileError::File(index, error)
    }
}

type CountsReader = EntryReader<Hashed<BufReader<File>>>;

fn open(path: &Path) -> Result<(Header, CountsReader)> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let mut from = Hashed::new(BufReader::with_capacity(1 << 16, file));
    let mut line = Vec::new();
    let read = (&mut from.inner).take(MAX_HEADER).read_until(b'\n', &mut line);
    read.map_err(|error| Error::io(path, error))?;
    from.hash.update(&line);
    let header: Option<Header> = serde_json::from_slice(&line).ok();
    let header = header.filter(|header| header.format == FORMAT).ok_or_else(|| {
        let path = path.display();
        Error::invalid(format!(
            "{path}: is not a counts file; make one with cs336lm count-pretokens"
        ))
    })?;
    if header.version != VERSION {
        let (path, version) = (path.display(), header.version);
        return Err(Error::invalid(format!(
            "{path}: has version {version}, this program reads version {VERSION}; count again"
        )));
    }
    let entries = header.pretokens;
    Ok((header, EntryReader::new(from, entries)))
}

fn check_same(first_path: &Path, first: &Header, path: &Path, other: &Header) -> Result<()> {
    let differ = |what: &str, one: &dyn std::fmt::Debug, other: &dyn std::fmt::Debug| {
        let (first_path, path) = (first_path.display(), path.display());
        Err(Error::invalid(format!(
            "{path}: was counted with {what} {other:?}, {first_path} with {one:?}; count them alike"
        )))
    };
    if first.pattern != other.pattern {
        return differ("the pattern", &first.pattern, &other.pattern);
    }
    if first.special_tokens != other.special_tokens {
        return differ("the special tokens", &first.special_tokens, &other.special_tokens);
    }
    Ok(())
}

fn check_digest(mut from: Hashed<BufReader<File>>) -> io::Result<()> {
    let mut digest = [0; 32];
    from.inner.read_exact(&mut digest)?;
    if digest[..] != from.hash.finalize()[..] {
        return Err(corrupt("its checksum does not match"));
    }
    match from.inner.fill_buf()? {
        [] => Ok(()),
        _ => Err(corrupt("there are bytes after its end")),
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let what = match error.kind() {
        io::ErrorKind::UnexpectedEof => "corrupt: it ends too early".to_owned(),
        io::ErrorKind::InvalidData => error.to_string(),
        _ => return Error::io(path, error),
    };
    Error::invalid(format!("{}: {what}; count again", path.display()))
}

/// Reads or writes, and hashes the bytes on the way.
struct Hashed<T> {
    inner: T,
    hash: Sha256,
}

impl<T> Hashed<T> {
    fn new(inner: T) -> Self {
        Self { inner, hash: Sha256::new() }
    }
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(bytes)?;
        self.hash.update(&bytes[..read]);
        Ok(read)
    }
}
