//! Text -> ids.
//!
//! Special tokens are found first; the text between them is pretokenized; a pretoken's ids come
//! from the cache ([`crate::cache`]) or, the first time, from merging ([`crate::merge`]). One
//! with bytes beyond ASCII, or a long one, is first cut where no merge reaches across
//! ([`crate::cut_table`]).
//!
//! A [`Tokenizer`] is shared by threads. What an encoding thread writes to (its cache, its
//! buffers) is a [`Scratch`], taken from a pool for the length of a call, so that nothing is
//! locked while text is read and the next call finds the cache warm.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::cache::{Cache, Ids, Key, MAX_IDS, MAX_KEY};
use crate::cut_table::CutTable;
use crate::error::{Error, Result};
use crate::merge::{MergeScratch, merge};
use crate::pretokenize::Pattern;
use crate::special::{Segment, SpecialTokens};
use crate::vocab::{TokenId, Vocab};

/// A vocabulary, its special tokens and its pattern: all that turns text into ids and back.
pub struct Tokenizer {
    vocab: Vocab,
    special: SpecialTokens,
    /// `special_ids[i]` is the id of special token `i`.
    special_ids: Vec<TokenId>,
    pattern: Pattern,
    cuts: CutTable,
    whole_words_first: bool,
    pool: Mutex<Vec<Scratch>>,
}

impl Tokenizer {
    /// Special tokens that the vocabulary holds keep their id; the others are appended after the
    /// largest id, in the order given.
    ///
    /// # Errors
    /// An empty special token or one given twice.
    pub fn new<S: AsRef<str>>(
        mut vocab: Vocab,
        special_tokens: &[S],
        pattern: Pattern,
    ) -> Result<Self> {
        let special = SpecialTokens::new(special_tokens)?;
        let mut special_ids = Vec::with_capacity(special_tokens.len());
        for token in special.tokens() {
            let known = vocab.id(token.as_bytes());
            special_ids.push(known.map_or_else(|| vocab.add_token(token.as_bytes()), Ok)?);
        }
        let whole_words_first =
            vocab.whole_words_first() && has_words_that_merges_miss(&vocab, &special_ids)?;
        // A part of a word is no word: where whole words count, nothing may be cut.
        let cuts = if whole_words_first { CutTable::uncut() } else { CutTable::new(&vocab) };
        let pool = Mutex::default();
        Ok(Self { vocab, special, special_ids, pattern, cuts, whole_words_first, pool })
    }

    pub fn vocab(&self) -> &Vocab {
        &self.vocab
    }

    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The ids of [`special_tokens`](Self::special_tokens), in their order.
    pub fn special_ids(&self) -> &[TokenId] {
        &self.special_ids
    }

    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Appends the ids of `text` to `out`; special tokens in it become their ids.
    ///
    /// # Errors
    /// A custom pattern that gives up backtracking; a pretoken of 4 GiB. `out` is then as before.
    pub fn encode(&self, text: &[u8], out: &mut Vec<TokenId>) -> Result<()> {
        self.with_scratch(|scratch| self.encode_with(scratch, text, out))
    }

    /// Appends the ids of `text` to `out`, special tokens taken as plain text: for input that is
    /// not trusted.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_ordinary(&self, text: &[u8], out: &mut Vec<TokenId>) -> Result<()> {
        self.with_scratch(|scratch| {
            let mut writer = Writer::new(&mut scratch.buffer, out);
            self.encode_text(text, &mut scratch.words, &mut writer)?;
            writer.finish();
            Ok(())
        })
    }

    /// The ids of each of `texts`, by up to `threads` threads.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_batch<T: AsRef<[u8]> + Sync>(
        &self,
        texts: &[T],
        threads: usize,
    ) -> Result<Vec<Vec<TokenId>>> {
        let threads = threads.clamp(1, texts.len().max(1));
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Vec<TokenId>)>> {
            self.with_scratch(|scratch| {
                let mut done = Vec::with_capacity(texts.len() / threads + 1);
                while let Some((i, text)) = {
                    let i = next.fetch_add(1, Relaxed);
                    texts.get(i).map(|text| (i, text.as_ref()))
                } {
                    let mut ids = Vec::with_capacity(text.len() / 4 + 1);
                    self.encode_with(scratch, text, &mut ids)?;
                    done.push((i, ids));
                }
                Ok(done)
            })
        };
        let parts: Vec<_> = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut parts = vec![work()];
            parts.extend(others.into_iter().map(|thread| thread.join().unwrap_or_else(resume)));
            parts
        });
        let mut batch = vec![Vec::new(); texts.len()];
        for part in parts {
            for (i, ids) in part? {
                batch[i] = ids;
            }
        }
        Ok(batch)
    }

    /// The bytes that `ids` stand for, appended to `out`.
    ///
    /// # Errors
    /// An id that the vocabulary does not hold; `out` is then as before.
    pub fn decode(&self, ids: &[TokenId], out: &mut Vec<u8>) -> Result<()> {
        let before = out.len();
        out.reserve(ids.len() * 4);
        for (i, &id) in ids.iter().enumerate() {
            let Some(token) = self.vocab.token(id) else {
                out.truncate(before);
                return Err(Error::invalid(format!(
                    "id {id} (number {i} of {}) is not in the vocabulary, whose largest id is {}",
                    ids.len(),
                    self.vocab.max_id()
                )));
            };
            out.extend_from_slice(token);
        }
        Ok(())
    }

    /// As [`encode`](Self::encode), with scratch that the caller holds.
    pub(crate) fn encode_with(
        &self,
        scratch: &mut Scratch,
        text: &[u8],
        out: &mut Vec<TokenId>,
    ) -> Result<()> {
        let mut writer = Writer::new(&mut scratch.buffer, out);
        self.special.for_each_segment(text, |segment| match segment {
            Segment::Text(text) => self.encode_text(text, &mut scratch.words, &mut writer),
            Segment::Special(index) => {
                writer.push(self.special_ids[index]);
                Ok(())
            }
        })?;
        writer.finish();
        Ok(())
    }

    /// Lends scratch out of the pool, or new scratch if all of it is lent out.
    pub(crate) fn with_scratch<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> R {
        let pooled = self.pool.lock().ok().and_then(|mut pool| pool.pop());
        let mut scratch = pooled.unwrap_or_default();
        let result = work(&mut scratch);
        if let Ok(mut pool) = self.pool.lock() {
            pool.push(scratch);
        }
        result
    }

    /// One segment of text without special tokens.
    #[inline]
    fn encode_text(&self, text: &[u8], words: &mut WordScratch, writer: &mut Writer) -> Result<()> {
        let mut start = 0;
        let mut result = Ok(());
        self.pattern.for_each(text, |word| {
            let len = word.len();
            let is_plain = len <= MAX_KEY && {
                let key = Key::at(text, start, len);
                key.is_ascii() && {
                    if let Err(error) = self.encode_short(key, word, words, writer) {
                        result = Err(error);
                    }
                    true
                }
            };
            if !is_plain && let Err(error) = self.encode_parts(text, start, len, words, writer) {
                result = Err(error);
            }
            start += len;
        })?;
        result
    }

    /// A word that is long or not ASCII: cut where it may be, its parts one by one.
    #[inline(never)]
    fn encode_parts(
        &self,
        text: &[u8],
        start: usize,
        len: usize,
        words: &mut WordScratch,
        writer: &mut Writer,
    ) -> Result<()> {
        let end = start + len;
        let mut from = start;
        for at in start + 1..=end {
            if at < end && !self.cuts.is_cut(text[at - 1], text[at]) {
                continue;
            }
            let part = &text[from..at];
            if part.len() <= MAX_KEY {
                let key = Key::at(text, from, part.len());
                self.encode_short(key, part, words, writer)?;
            } else {
                self.merge_word(part, words)?;
                writer.extend(&words.symbols);
            }
            from = at;
        }
        Ok(())
    }

    /// A word that a key can hold: from the cache, or merged and put there.
    #[inline(always)]
    fn encode_short(
        &self,
        key: Key,
        word: &[u8],
        words: &mut WordScratch,
        writer: &mut Writer,
    ) -> Result<()> {
        if let Some(ids) = words.cache.get(key) {
            writer.push_ids(ids);
            return Ok(());
        }
        self.merge_word(word, words)?;
        if let Some(ids) = Ids::new(&words.symbols) {
            words.cache.insert(key, ids);
        }
        writer.extend(&words.symbols);
        Ok(())
    }

    /// The ids of one word, into `words.symbols`.
    #[inline(never)]
    fn merge_word(&self, word: &[u8], words: &mut WordScratch) -> Result<()> {
        let symbols = &mut words.symbols;
        symbols.clear();
        if self.whole_words_first
            && let Some(id) = self.vocab.id(word)
            && !self.special_ids.contains(&id)
        {
            symbols.push(id);
            return Ok(());
        }
        let byte_ids = self.vocab.byte_ids();
        symbols.extend(word.iter().map(|&byte| byte_ids[usize::from(byte)]));
        let len = merge(self.vocab.pairs(), symbols, &mut words.merge)?;
        symbols.truncate(len);
        Ok(())
    }
}

/// Whether some token, other than special ones, is not what its bytes merge to.
fn has_words_that_merges_miss(vocab: &Vocab, special_ids: &[TokenId]) -> Result<bool> {
    let mut symbols = Vec::new();
    let mut scratch = MergeScratch::default();
    for (id, token) in vocab.tokens() {
        symbols.clear();
        symbols.extend(token.iter().map(|&byte| vocab.byte_ids()[usize::from(byte)]));
        let len = merge(vocab.pairs(), &mut symbols, &mut scratch)?;
        if symbols[..len] != [id] && !special_ids.contains(&id) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A worker's panic goes on in the thread that waits for it.
fn resume<R>(panic: Box<dyn std::any::Any + Send>) -> R {
    std::panic::resume_unwind(panic)
}

/// What a thread writes to while it encodes.
#[derive(Default)]
pub(crate) struct Scratch {
    words: WordScratch,
    buffer: Buffer,
}

struct WordScratch {
    cache: Cache,
    symbols: Vec<TokenId>,
    merge: MergeScratch,
}

impl Default for WordScratch {
    fn default() -> Self {
        let cache = Cache::new(LOG_CACHE_LINES);
        Self { cache, symbols: Vec::new(), merge: MergeScratch::default() }
    }
}

/// 65,536 lines, 131,072 pretokens, 4 MiB a thread.
const LOG_CACHE_LINES: u32 = 16;

/// Ids are gathered here and handed on by the thousand, so that a word costs one store of
/// fixed size and no check of the output's capacity.
struct Buffer(Box<[TokenId; Buffer::LEN]>);

impl Buffer {
    const LEN: usize = 1024;
}

impl Default for Buffer {
    fn default() -> Self {
        Self(Box::new([0; Self::LEN]))
    }
}

struct Writer<'a> {
    buffer: &'a mut [TokenId; Buffer::LEN],
    len: usize,
    out: &'a mut Vec<TokenId>,
    /// Where `out` ended, to go back to if the text fails.
    start: usize,
    finished: bool,
}

impl<'a> Writer<'a> {
    fn new(buffer: &'a mut Buffer, out: &'a mut Vec<TokenId>) -> Self {
        let start = out.len();
        Self { buffer: &mut buffer.0, len: 0, out, start, finished: false }
    }

    #[inline(always)]
    fn push_ids(&mut self, ids: Ids) {
        if self.len > Buffer::LEN - MAX_IDS {
            self.flush();
        }
        self.buffer[self.len..self.len + MAX_IDS].copy_from_slice(&ids.padded());
        self.len += ids.count();
    }

    fn push(&mut self, id: TokenId) {
        self.extend(&[id]);
    }

    fn extend(&mut self, ids: &[TokenId]) {
        self.flush();
        self.out.extend_from_slice(ids);
    }

    #[inline(never)]
    fn flush(&mut self) {
        self.out.extend_from_slice(&self.buffer[..self.len]);
        self.len = 0;
    }

    fn finish(mut self) {
        self.flush();
        self.finished = true;
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}
