//! Files -> tokens.npy: one array of ids that `numpy.load(path, mmap_mode="r")` maps, and beside
//! it a sidecar that says what they are.
//!
//! Each thread takes a chunk, encodes it and hands in the result. Where it belongs is known as
//! soon as all chunks before it are counted ([`Ledger`]), and then whichever thread is there
//! writes it at its place, outside the lock. Nothing is gathered: memory is bounded by threads
//! times chunk size, and the only thing done one at a time is adding up counts.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::atomic_file::{AtomicFile, write_all_at, write_atomically};
use crate::encoder::Tokenizer;
use crate::error::{Error, Result};
use crate::npy::{self, Dtype};
use crate::progress::{Phase, Progress};
use crate::source::{DEFAULT_CHUNK_BYTES, Source};
use crate::vocab::TokenId;
use crate::words::WordEncoder;

#[derive(Clone, Debug)]
pub struct EncodeOptions {
    pub threads: usize,
    /// Appended after each document (each file, where a file is one document).
    pub append_eot: Option<TokenId>,
    /// What ends a document inside a file, to count documents.
    pub separator: Option<TokenId>,
    /// The tokenizer's SHA-256, for the sidecar.
    pub fingerprint: String,
    pub chunk_bytes: usize,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            append_eot: None,
            separator: None,
            fingerprint: String::new(),
            chunk_bytes: DEFAULT_CHUNK_BYTES,
        }
    }
}

/// What was done, as the sidecar says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncodeStats {
    /// The version of this format.
    pub format: u32,
    pub tokenizer_sha256: String,
    /// One more than the largest id: what a model's embedding must hold.
    pub vocab_size: u64,
    /// `uint16` or `uint32`.
    pub dtype: &'static str,
    pub tokens: u64,
    /// Of text.
    pub bytes: u64,
    /// Texts between separators and files' ends, empty ones at a file's end not counted.
    pub documents: u64,
    pub inputs: Vec<InputStats>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputStats {
    pub path: PathBuf,
    pub bytes: u64,
}

/// Encodes `paths` one after another into the array `out`, by up to `options.threads` threads.
/// The ids are those of [`Tokenizer::encode`] on each whole file. Both files appear whole or not
/// at all.
///
/// # Errors
/// An input that cannot be read, an output that cannot be written, a text that cannot be encoded,
/// [`Error::Cancelled`].
pub fn encode_files(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    out: &Path,
    options: &EncodeOptions,
    progress: &Progress,
) -> Result<EncodeStats> {
    if out.extension().is_none_or(|extension| extension != "npy") {
        return Err(Error::invalid(format!(
            "{}: the output must end in .npy (its sidecar gets the same name with .json)",
            out.display()
        )));
    }
    let source =
        Source::open(paths, tokenizer.pattern(), tokenizer.special_tokens(), options.chunk_bytes)?;
    let file = AtomicFile::create(out)?;
    progress.begin(Phase::Encoding, source.total_bytes());

    let dtype = Dtype::for_max_id(tokenizer.vocab().max_id());
    let ledger = Ledger::new(4 * options.threads.max(1));
    let job = Job { tokenizer, source: &source, file: &file, options, dtype, ledger, progress };
    std::thread::scope(|scope| {
        for _ in 1..options.threads {
            scope.spawn(|| job.work());
        }
        job.work();
    });
    let totals = job.ledger.finish()?;

    let header = npy::header(dtype, totals.tokens);
    write_all_at(file.file(), &header, 0).map_err(|error| Error::io(out, error))?;
    let input_stats = |(i, path): (usize, &PathBuf)| InputStats {
        path: path.clone(),
        bytes: totals.file_bytes.get(&i).copied().unwrap_or(0),
    };
    let stats = EncodeStats {
        format: 1,
        tokenizer_sha256: options.fingerprint.clone(),
        vocab_size: u64::from(tokenizer.vocab().max_id()) + 1,
        dtype: dtype.name(),
        tokens: totals.tokens,
        bytes: totals.file_bytes.values().sum(),
        documents: totals.documents,
        inputs: paths.iter().enumerate().map(input_stats).collect(),
    };
    file.commit()?;
    write_sidecar(out, &stats)?;
    Ok(stats)
}

/// `tokens.json` beside `tokens.npy`.
pub fn sidecar_path(out: &Path) -> PathBuf {
    out.with_extension("json")
}

fn write_sidecar(out: &Path, stats: &EncodeStats) -> Result<()> {
    let path = sidecar_path(out);
    write_atomically(&path, |file| {
        serde_json::to_writer_pretty(&mut *file, stats)?;
        file.write_all(b"\n")
    })
}

/// What all threads of a call share.
struct Job<'a> {
    tokenizer: &'a Tokenizer,
    source: &'a Source,
    file: &'a AtomicFile,
    options: &'a EncodeOptions,
    dtype: Dtype,
    ledger: Ledger,
    progress: &'a Progress,
}

impl Job<'_> {
    /// One thread's work: chunks until there are no more, or until some thread fails.
    fn work(&self) {
        let _guard = FailOnPanic(&self.ledger);
        let result = self.tokenizer.with_words(|words| {
            let (mut text, mut ids) = (Vec::new(), Vec::new());
            while self.work_on_one(words, &mut text, &mut ids)? {}
            Ok(())
        });
        if let Err(error) = result {
            self.ledger.fail(error);
        }
    }

    fn work_on_one(
        &self,
        words: &mut WordEncoder,
        text: &mut Vec<u8>,
        ids: &mut Vec<TokenId>,
    ) -> Result<bool> {
        let Some(mut bytes) = self.ledger.wait_for_room() else { return Ok(false) };
        let Some(chunk) = self.source.read_next(text)? else { return Ok(false) };
        ids.clear();
        self.tokenizer.encode_with(words, text, ids)?;
        let documents = self.count_documents(ids, chunk.ends_file);
        if chunk.ends_file {
            ids.extend(self.options.append_eot);
        }
        bytes.clear();
        self.dtype.extend(&mut bytes, ids);
        let entry = Entry {
            bytes,
            tokens: ids.len() as u64,
            documents,
            file: chunk.file,
            text_bytes: text.len() as u64,
        };
        for (token_offset, bytes) in self.ledger.submit(chunk.index, entry) {
            let offset = npy::HEADER_LEN as u64 + token_offset * self.dtype.width();
            write_all_at(self.file.file(), &bytes, offset)
                .map_err(|error| Error::io(self.file.path(), error))?;
            self.ledger.give_back(bytes);
        }
        self.progress.advance(chunk.input_bytes)?;
        Ok(true)
    }

    /// Documents that end in a chunk: at separators, and at the file's end if text stands there.
    fn count_documents(&self, ids: &[TokenId], ends_file: bool) -> u64 {
        let separator = self.options.separator;
        let ends = ids.iter().filter(|&&id| Some(id) == separator).count() as u64;
        let text_at_end = ends_file && ids.last().is_some_and(|&id| Some(id) != separator);
        ends + u64::from(text_at_end)
    }
}

/// A thread that panics never hands in its chunk: the others must not wait for it.
struct FailOnPanic<'a>(&'a Ledger);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::invalid("a thread panicked while encoding"));
        }
    }
}

/// One chunk's result.
struct Entry {
    bytes: Vec<u8>,
    tokens: u64,
    documents: u64,
    file: usize,
    text_bytes: u64,
}

/// Which chunks are done, and so where each belongs.
struct Ledger {
    state: Mutex<State>,
    room: Condvar,
    /// How many results may wait for one before them.
    max_waiting: usize,
}

#[derive(Default)]
struct State {
    /// The first chunk that is not handed in.
    next: u64,
    /// Handed in before their turn.
    waiting: BTreeMap<u64, Entry>,
    totals: Totals,
    /// Buffers to be filled again.
    free: Vec<Vec<u8>>,
    error: Option<Error>,
}

#[derive(Clone, Default)]
struct Totals {
    tokens: u64,
    documents: u64,
    /// Bytes of text by file.
    file_bytes: BTreeMap<usize, u64>,
}

impl Ledger {
    fn new(max_waiting: usize) -> Self {
        Self { state: Mutex::default(), room: Condvar::new(), max_waiting }
    }

    /// A buffer for the next result, as soon as not too many wait; `None` if the job has failed.
    /// The thread whose chunk the others wait for is past this point, so someone always goes on.
    fn wait_for_room(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        while state.error.is_none() && state.waiting.len() >= self.max_waiting {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.error.is_some() {
            return None;
        }
        Some(state.free.pop().unwrap_or_default())
    }

    /// Hands in a chunk's result; returns what may be written now, with the number of tokens
    /// before it.
    fn submit(&self, index: u64, entry: Entry) -> Vec<(u64, Vec<u8>)> {
        let mut state = self.lock();
        let State { next, waiting, totals, .. } = &mut *state;
        waiting.insert(index, entry);
        let mut ready = Vec::new();
        while let Some(entry) = waiting.remove(next) {
            *next += 1;
            ready.push((totals.tokens, entry.bytes));
            totals.tokens += entry.tokens;
            totals.documents += entry.documents;
            *totals.file_bytes.entry(entry.file).or_default() += entry.text_bytes;
        }
        if !ready.is_empty() {
            self.room.notify_all();
        }
        ready
    }

    fn give_back(&self, bytes: Vec<u8>) {
        self.lock().free.push(bytes);
    }

    fn fail(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.room.notify_all();
    }

    fn finish(&self) -> Result<Totals> {
        let mut state = self.lock();
        match state.error.take() {
            Some(error) => Err(error),
            None => Ok(state.totals.clone()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
