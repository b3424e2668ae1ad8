//! Arrays that were made apart -> the files that one job makes of all their texts.
//!
//! Each part is an array of its own ([`EncodeOptions::documents`]) of some whole files, or of one
//! file from one safe cut to another. Their ids go through the same ledger and the same shards as
//! those that are encoded here, so what is written is the same, byte for byte.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::ahead::Ids;
use super::documents::DocumentsReader;
use super::ledger::{EncodedChunk, Ledger};
use super::npy::{self, Dtype};
use super::options::EncodeOptions;
use super::outputs::OutputPaths;
use super::shards::Shards;
use super::sidecar::{self, EncodeStats};
use super::split::{DocumentPart, Split, TRAIN};
use super::start::{begin, claim, conclude, readable};
use crate::encode::encoder::Tokenizer;
use crate::error::{Error, Result};
use crate::files::input::Place;
use crate::progress::{Phase, Progress};

/// Ids that are in memory at a time, and documents.
const BLOCK: usize = 1 << 19;
const MAX_DOCUMENTS: usize = 1 << 16;

/// An array that [`encode_files`](super::encode_files) wrote with `options.documents`.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its `.npy`; sidecar and documents are beside it.
    pub array: PathBuf,
    /// The indices of its files among those of the whole.
    pub files: Vec<usize>,
}

/// Joins `parts`, in order, which are all of `paths`, into `out`; `options` are those of the whole.
///
/// # Errors
/// Those of [`encode_files`](super::encode_files), and a part is not what it should be.
pub fn join_files(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    parts: &[Part],
    out: &Path,
    options: &EncodeOptions,
    progress: &Progress,
) -> Result<EncodeStats> {
    let (outputs, claimed) = claim(paths, out, options)?;
    let (good, unreadable) = readable(paths, options)?;
    let dtype = Dtype::for_max_id(tokenizer.vocab().max_id());
    // Places in parts are none in the inputs: nothing goes on from here, it is joined again.
    let settings = || {
        let mut settings = options.settings(&good)?;
        settings["input"] = Value::from("in parts");
        Ok(settings)
    };
    let (shards, position) = begin(&outputs, dtype, settings, options, progress)?;
    shards.check()?;
    let sidecars = sidecar::begin(&outputs)?;

    let arrays = parts.iter().map(|part| fs::metadata(&part.array).map_or(0, |file| file.len()));
    progress.begin(Phase::Encoding, arrays.sum());
    let split = Split::new(options.val_fraction, options.seed);
    let shard_tokens = options.shard_tokens.unwrap_or(u64::MAX);
    let turn = (0, position.chunk);
    let ledger = Ledger::new(position, turn, shard_tokens, split, 1);
    let (mut unreadable_left, mut good_left) = (&unreadable[..], good.iter().peekable());
    let mut join = Join { options, dtype, shards: &shards, ledger: &ledger, progress, chunk: 0 };
    let mut index = 0;
    let mut index_of = vec![None; paths.len()];
    for (path, place) in paths.iter().zip(&mut index_of) {
        if good_left.next_if(|next| *next == path).is_some() {
            *place = Some(index);
            index += 1;
        }
    }
    for part in parts {
        let files = part.files.iter().filter_map(|&file| index_of.get(file).copied().flatten());
        join.add(&part.array, &files.collect::<Vec<_>>(), &mut unreadable_left)?;
    }
    let last = ledger.finish()?;
    let mut totals = last.resume_from.clone();
    totals.skipped.splice(0..0, unreadable.iter().cloned());
    shards.close(last)?;

    let finished = shards.finished();
    let stats = sidecar::stats(tokenizer, options, dtype, &good, &outputs, &finished, totals);
    conclude(&outputs, claimed, &shards, sidecars, &stats)?;
    Ok(stats)
}

struct Join<'a> {
    options: &'a EncodeOptions,
    dtype: Dtype,
    shards: &'a Shards,
    ledger: &'a Ledger,
    progress: &'a Progress,
    chunk: u64,
}

impl Join<'_> {
    /// Adds a part of the files with these indices. What it says of files that cannot be read at
    /// all is said once, for the whole: that is taken off `unreadable`.
    fn add(&mut self, array: &Path, files: &[usize], unreadable: &mut &[String]) -> Result<()> {
        let wrong = |why: &str| {
            let array = array.display();
            Error::invalid(format!("{array}: is not the part it should be ({why}); delete it"))
        };
        let outputs = OutputPaths::new(array, false, false);
        let about = read_sidecar(&outputs.sidecar(TRAIN))?;
        if about["tokenizer_sha256"] != *self.options.fingerprint
            || about["dtype"] != *self.dtype.name()
        {
            return Err(wrong("another tokenizer made it"));
        }
        let mut ids = File::open(array).map_err(|error| Error::io(array, error))?;
        let mut header = [0; npy::HEADER_LEN];
        ids.read_exact(&mut header).map_err(|error| Error::io(array, error))?;
        let Some(mut left) = about["tokens"]
            .as_u64()
            .filter(|&count| header[..] == npy::header(self.dtype, count)[..])
        else {
            return Err(wrong("its sidecar tells of another array"));
        };
        let strings = |list: &Value| -> Vec<String> {
            let list = list.as_array().into_iter().flatten();
            list.filter_map(|one| one.as_str().map(str::to_owned)).collect()
        };
        let mut skipped = strings(&about["skipped"]);
        while let (Some(first), Some((next, rest))) = (skipped.first(), unreadable.split_first())
            && first == next
        {
            skipped.remove(0);
            *unreadable = rest;
        }
        let inputs = about["inputs"].as_array().map_or(&[][..], Vec::as_slice);
        if inputs.len() != files.len() {
            return Err(wrong("it holds other files"));
        }
        for (&file, input) in files.iter().zip(inputs) {
            let text_bytes = input["bytes"].as_u64().unwrap_or(0);
            let start = Place { file, ..Place::default() };
            let (ids, documents) = (Ids::Memory(Vec::new()), Vec::new());
            self.submit(EncodedChunk { ids, documents, start, text_bytes, skipped: Vec::new() })?;
        }
        let start = Place { file: files.last().copied().unwrap_or(0), ..Place::default() };
        let mut documents = Documents::open(outputs.documents())?;
        let mut checksum = crc32fast::Hasher::new();
        let empty = |skipped| EncodedChunk {
            ids: Ids::Memory(Vec::new()),
            documents: Vec::new(),
            start: start.clone(),
            text_bytes: 0,
            skipped,
        };
        loop {
            let block = documents.next_block()?;
            let len = block.last().map_or(0, |last| last.end);
            if block.is_empty() {
                break;
            }
            if len as u64 > left {
                return Err(wrong("its documents hold more than the array"));
            }
            left -= len as u64;
            let mut bytes = self.ledger.next_buffer().unwrap_or_default();
            bytes.resize(len * self.dtype.width() as usize, 0);
            ids.read_exact(&mut bytes).map_err(|error| Error::io(array, error))?;
            checksum.update(&bytes);
            let ids = Ids::Memory(bytes);
            self.submit(EncodedChunk { ids, documents: block, ..empty(Vec::new()) })?;
        }
        if left > 0 {
            return Err(wrong("its documents hold less than the array"));
        }
        if about["crc32"].as_u64().is_some_and(|crc32| crc32 != u64::from(checksum.finalize())) {
            return Err(wrong("it is damaged: the checksum of its ids does not match"));
        }
        match skipped.is_empty() || files.is_empty() {
            true => Ok(()),
            false => self.submit(empty(skipped)),
        }
    }

    fn submit(&mut self, chunk: EncodedChunk) -> Result<()> {
        let turn = (0, self.chunk);
        self.chunk += 1;
        let mut read = 0;
        for placed in self.ledger.submit(turn, (0, self.chunk), chunk) {
            let Ids::Memory(bytes) = placed.ids else { continue };
            self.shards.write(&bytes, &placed.spans, placed.closed)?;
            read += bytes.len() as u64;
            self.ledger.give_back(bytes);
        }
        self.progress.advance(read)
    }
}

/// The documents of a part, so many at a time that their ids fit into memory.
struct Documents {
    reader: DocumentsReader,
    /// Of the document that the last block ended in.
    rest: Option<DocumentPart>,
}

impl Documents {
    fn open(path: PathBuf) -> Result<Self> {
        Ok(Self { reader: DocumentsReader::open(path)?, rest: None })
    }

    /// Documents with at most [`BLOCK`] ids in all; of one that is longer a part. None at the end.
    fn next_block(&mut self) -> Result<Vec<DocumentPart>> {
        let mut block: Vec<DocumentPart> = Vec::new();
        let mut end = 0;
        while end < BLOCK && block.len() < MAX_DOCUMENTS {
            let next = match self.rest.take() {
                Some(rest) => Some(rest),
                None => self.reader.next()?,
            };
            let Some(document) = next else { break };
            let taken = document.end.min(BLOCK - end);
            end += taken;
            if taken < document.end {
                self.rest = Some(DocumentPart { end: document.end - taken, ..document });
                block.push(DocumentPart { end, bytes: 0, ends_document: false });
            } else {
                block.push(DocumentPart { end, ..document });
            }
        }
        Ok(block)
    }
}

fn read_sidecar(path: &Path) -> Result<Value> {
    let content = fs::read(path).map_err(|error| Error::io(path, error))?;
    let about: Value = serde_json::from_slice(&content).unwrap_or_default();
    let wrong = |why| Err(Error::invalid(format!("{}: {why}; delete it", path.display())));
    match (sidecar::is_one(&about), sidecar::is_intact(&content, &about)) {
        (true, true) => Ok(about),
        (true, false) => wrong("is damaged: its checksum does not match"),
        (false, _) => wrong("is no sidecar"),
    }
}
