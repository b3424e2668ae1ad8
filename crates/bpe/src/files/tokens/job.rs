//! What each thread of a job does: take a chunk, encode it, hand in the ids, write what is next.

use std::path::Path;

use super::ahead::{Ahead, Ids};
use super::documents::DocumentsWriter;
use super::ledger::{EncodedChunk, Ledger};
use super::npy::{Dtype, StoredIds};
use super::options::EncodeOptions;
use super::shards::Shards;
use super::split;
use crate::encode::encoder::Tokenizer;
use crate::encode::output::Output;
use crate::encode::words::WordEncoder;
use crate::error::{Error, Result};
use crate::files::input::Source;
use crate::progress::Progress;
use crate::text::special::Segment;

/// What all threads of a call share.
pub struct Job<'a> {
    pub tokenizer: &'a Tokenizer,
    pub source: &'a Source,
    pub shards: &'a Shards,
    pub documents: Option<&'a DocumentsWriter>,
    pub options: &'a EncodeOptions,
    pub dtype: Dtype,
    pub ledger: Ledger,
    pub ahead: Ahead,
    pub progress: &'a Progress,
}

impl Job<'_> {
    /// One thread's work: chunks until there are no more, or until some thread fails.
    pub fn work(&self) {
        let _guard = FailOnPanic(&self.ledger);
        let encode = |words: &mut WordEncoder| {
            let mut text = Vec::new();
            while self.encode_chunk(words, &mut text)? {}
            Ok(())
        };
        let result =
            self.progress.watched(|| self.tokenizer.with_words(self.options.threads, encode));
        if let Err(error) = result {
            self.ledger.fail(error);
        }
    }

    /// `false` if there are no more chunks.
    fn encode_chunk(&self, words: &mut WordEncoder, text: &mut Vec<u8>) -> Result<bool> {
        let Some(buffer) = self.ledger.next_buffer() else { return Ok(false) };
        let may_go_ahead = self.ledger.may_go_ahead();
        let Some(chunk) = self.source.read_next(text, may_go_ahead)? else { return Ok(false) };
        let mut ids = StoredIds::new(self.dtype, buffer);
        let mut encoded = EncodedChunk {
            ids: Ids::Memory(Vec::new()),
            documents: Vec::new(),
            start: chunk.start.clone(),
            text_bytes: text.len() as u64,
            skipped: chunk.skipped.clone(),
        };
        let kind = Piece {
            ends_document: chunk.has_records() || chunk.ends_file,
            has_special: !chunk.has_records() || self.options.special_in_records,
        };
        for piece in chunk.pieces(text) {
            self.encode_piece(words, piece, kind, &mut ids, &mut encoded)?;
        }
        let turn = (chunk.start.file, chunk.start.offset);
        let bytes = ids.into_bytes();
        encoded.ids = match chunk.is_ahead && self.ledger.is_crowded(turn) {
            true => {
                let ids = self.ahead.put(&bytes)?;
                self.ledger.give_back(bytes);
                ids
            }
            false => Ids::Memory(bytes),
        };
        for placed in self.ledger.submit(turn, (chunk.end.file, chunk.end.offset), encoded) {
            let had_buffer = matches!(placed.ids, Ids::Memory(_));
            let bytes = self.ahead.get(placed.ids)?;
            self.shards.write(&bytes, &placed.spans, placed.closed)?;
            if let Some(file) = self.documents {
                file.write(placed.parts_before, &placed.documents)?;
            }
            if had_buffer {
                self.ledger.give_back(bytes);
            }
        }
        self.progress.advance(chunk.input_bytes)?;
        Ok(true)
    }

    /// Encodes a record, or the part of a file that is in a chunk, and notes its documents.
    fn encode_piece(
        &self,
        words: &mut WordEncoder,
        text: &[u8],
        kind: Piece,
        ids: &mut StoredIds,
        encoded: &mut EncodedChunk,
    ) -> Result<()> {
        let from = ids.len();
        let path = self.source.path(encoded.start.file);
        let skipped = match kind.has_special {
            true => self.encode(words, path, text, ids)?,
            false => self.encode_ordinary(words, path, text, ids)?,
        };
        let mut documents = split::documents(ids, from, self.options.separator, kind.ends_document);
        let each_counts = self.options.val_fraction > 0.0 || self.documents.is_some();
        if each_counts || !skipped.is_empty() {
            split::count_bytes(&mut documents, ids, from, self.tokenizer.vocab());
        } else if let Some(first) = documents.first_mut() {
            // All go to one side: which document has how many bytes does not matter.
            first.bytes = text.len() as u64;
        }
        if let Some(eot) = self.options.append_eot
            && let Some(last) = documents.last_mut()
            && kind.ends_document
        {
            ids.append(&[eot]);
            last.end += 1;
        }
        encoded.documents.append(&mut documents);
        encoded.skipped.extend(skipped);
        Ok(())
    }

    /// Encodes a text; returns what had to be left out of it, if that is asked for.
    fn encode(
        &self,
        words: &mut WordEncoder,
        path: &Path,
        text: &[u8],
        ids: &mut StoredIds,
    ) -> Result<Vec<String>> {
        match self.tokenizer.encode_with(words, text, ids) {
            Err(Error::Invalid(_)) if self.options.skip_errors => {}
            result => return result.map(|()| Vec::new()),
        }
        // Once more, each text between special tokens on its own.
        let mut skipped = Vec::new();
        self.tokenizer.special_tokens().for_each_segment(text, |segment| {
            match segment {
                Segment::Special(index) => ids.append(&[self.tokenizer.special_ids()[index]]),
                Segment::Text(part) => {
                    skipped.extend(self.encode_ordinary(words, path, part, ids)?);
                }
            }
            Ok(())
        })?;
        Ok(skipped)
    }

    /// The same for a text in which nothing is a special token.
    fn encode_ordinary(
        &self,
        words: &mut WordEncoder,
        path: &Path,
        text: &[u8],
        ids: &mut StoredIds,
    ) -> Result<Vec<String>> {
        match self.tokenizer.encode_ordinary_with(words, text, ids) {
            Err(Error::Invalid(why)) if self.options.skip_errors => {
                Ok(vec![format!("{}: {} bytes: {why}", path.display(), text.len())])
            }
            result => result.map(|()| Vec::new()),
        }
    }
}

/// What a record, or the part of a file that is in a chunk, is.
#[derive(Clone, Copy)]
struct Piece {
    /// Whether a document ends with it.
    ends_document: bool,
    /// Whether special tokens in it are special tokens, and not text that looks like them.
    has_special: bool,
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
