//! The inner loop of encoding: one thread's way from pretokens to ids.
//!
//! Work is done in batches of words, in two passes. The first runs inside the scanner: it cuts a
//! pretoken where it may be cut and notes each part's [`Key`], sixteen bytes. The second looks
//! the keys up. The scanner's branches are hard to predict and a look-up waits for memory; apart,
//! the processor runs many look-ups at once, which it cannot across a mispredicted branch.

use crate::cache::{Cache, Ids, Key, MAX_IDS, MAX_KEY};
use crate::cut_table::CutTable;
use crate::error::Result;
use crate::long_cache::LongCache;
use crate::merge::{MergeScratch, merge};
use crate::pretokenize::Pattern;
use crate::vocab::{TokenId, Vocab};

/// How many words are looked up at a time: few enough for keys and ids to stay in the first-level
/// cache.
const BATCH: usize = 256;

/// What decides a word's ids; the same for all threads.
pub(crate) struct Rules {
    pub vocab: Vocab,
    pub cuts: CutTable,
    /// Whether a pretoken that is one of the vocabulary's tokens is taken whole.
    pub whole_words_first: bool,
    /// Tokens that are no words.
    pub special_ids: Vec<TokenId>,
}

/// What a thread writes to while it encodes, kept warm from call to call.
pub(crate) struct WordEncoder {
    keys: Box<[Key; BATCH]>,
    len: usize,
    ids: Box<[TokenId; BATCH * MAX_IDS]>,
    short: Cache,
    long: LongCache,
    symbols: Vec<TokenId>,
    merge: MergeScratch,
}

/// 131,072 lines, 262,144 pretokens, 8 MiB a thread: room for the words of a language. Half of it
/// misses a third more often on novels.
const LOG_CACHE_LINES: u32 = 17;

impl Default for WordEncoder {
    fn default() -> Self {
        Self {
            keys: Box::new([Key::NONE; BATCH]),
            len: 0,
            ids: Box::new([0; BATCH * MAX_IDS]),
            short: Cache::new(LOG_CACHE_LINES),
            long: LongCache::default(),
            symbols: Vec::new(),
            merge: MergeScratch::default(),
        }
    }
}

impl WordEncoder {
    /// Appends the ids of one segment of text without special tokens.
    #[inline]
    pub fn encode(
        &mut self,
        rules: &Rules,
        pattern: &Pattern,
        text: &[u8],
        out: &mut Vec<TokenId>,
    ) -> Result<()> {
        self.len = 0;
        let mut start = 0;
        let mut result = Ok(());
        let scanned = pattern.for_each(text, |word| {
            let len = word.len();
            let key = Key::at(text, start, len);
            if len <= MAX_KEY && key.is_ascii() {
                self.keys[self.len] = key;
                self.len += 1;
            } else if let Err(error) = self.cut(rules, text, start, len, out) {
                result = Err(error);
            }
            start += len;
            if self.len == BATCH
                && let Err(error) = self.look_up(rules, text, out)
            {
                result = Err(error);
            }
        });
        scanned.and(result).and_then(|()| self.look_up(rules, text, out))
    }

    /// A word that is long or not ASCII: its parts one by one.
    #[inline(never)]
    fn cut(
        &mut self,
        rules: &Rules,
        text: &[u8],
        start: usize,
        len: usize,
        out: &mut Vec<TokenId>,
    ) -> Result<()> {
        let end = start + len;
        let (mut from, mut at) = (start, start);
        while from < end {
            // Between the bytes of a character there is hardly ever a cut: from one to the next.
            at += char_len(text[at]);
            if at < end && !rules.cuts.is_cut(text[at - 1], text[at]) {
                continue;
            }
            if self.len == BATCH {
                self.look_up(rules, text, out)?;
            }
            let to = at.min(end);
            self.keys[self.len] = Key::at(text, from, to - from);
            self.len += 1;
            from = to;
        }
        Ok(())
    }

    /// Appends the ids of the words noted, and forgets them.
    #[inline(never)]
    fn look_up(&mut self, rules: &Rules, text: &[u8], out: &mut Vec<TokenId>) -> Result<()> {
        let mut filled = 0;
        let noted = std::mem::take(&mut self.len);
        for i in 0..noted {
            let key = self.keys[i];
            if let Some(ids) = self.short.get(key) {
                self.ids[filled..filled + MAX_IDS].copy_from_slice(&ids.padded());
                filled += ids.count();
            } else {
                out.extend_from_slice(&self.ids[..filled]);
                filled = 0;
                self.encode_new(rules, key, text, out)?;
            }
        }
        out.extend_from_slice(&self.ids[..filled]);
        Ok(())
    }

    /// A word that the short cache does not know.
    #[inline(never)]
    fn encode_new(
        &mut self,
        rules: &Rules,
        key: Key,
        text: &[u8],
        out: &mut Vec<TokenId>,
    ) -> Result<()> {
        let block;
        let word = match key.range() {
            Some(range) => &text[range],
            None => {
                block = key.bytes();
                &block.0[..block.1]
            }
        };
        if let Some(ids) = self.long.get(word) {
            out.extend_from_slice(ids);
            return Ok(());
        }
        rules.encode_word(word, &mut self.symbols, &mut self.merge)?;
        out.extend_from_slice(&self.symbols);
        match Ids::new(&self.symbols).filter(|_| key.range().is_none()) {
            Some(ids) => self.short.insert(key, ids),
            None => self.long.insert(word, &self.symbols),
        }
        Ok(())
    }
}

/// How long a character is that begins with `first`; 1 where none does.
#[inline(always)]
fn char_len(first: u8) -> usize {
    match first {
        0xE0..=0xEF => 3,
        0xC0..=0xDF => 2,
        0xF0..=0xFF => 4,
        _ => 1,
    }
}

impl Rules {
    /// The ids of one word, into `symbols`.
    pub fn encode_word(
        &self,
        word: &[u8],
        symbols: &mut Vec<TokenId>,
        scratch: &mut MergeScratch,
    ) -> Result<()> {
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
        let len = merge(self.vocab.pairs(), symbols, scratch)?;
        symbols.truncate(len);
        Ok(())
    }
}
