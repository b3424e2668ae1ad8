//! The inner loop of encoding: one thread's way from pretokens to ids.
//!
//! Work is done in batches of words, in two passes. The first runs inside the scanner: it cuts a
//! pretoken where it may be cut and notes each part's [`Key`], sixteen bytes. The second looks
//! the keys up. The scanner's branches are hard to predict and a look-up waits for memory; apart,
//! the processor runs many look-ups at once, which it cannot across a mispredicted branch.

use super::char_table::{CHAR_LEN, CharTable, Entry, Known};
use super::cut_table::CutTable;
use super::long_cache::LongCache;
use super::output::Output;
use super::short_cache::{Cache, Ids, Key, MAX_IDS, MAX_KEY};
use crate::error::Result;
use crate::text::pattern::Pattern;
use crate::text::utf8::{char_len, leads_three};
use crate::text::visitor::Visitor;
use crate::vocab::merge::{MergeScratch, merge};
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
    ready: Ready,
    short: Cache,
    long: LongCache,
    characters: CharTable,
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
            ready: Ready::default(),
            short: Cache::new(LOG_CACHE_LINES),
            long: LongCache::default(),
            characters: CharTable::default(),
            symbols: Vec::new(),
            merge: MergeScratch::default(),
        }
    }
}

impl WordEncoder {
    /// Appends the ids of one segment of text without special tokens.
    pub fn encode<O: Output>(
        &mut self,
        rules: &Rules,
        pattern: &Pattern,
        text: &[u8],
        out: &mut O,
    ) -> Result<()> {
        (self.len, self.ready.len) = (0, 0);
        let mut encoding = Encoding { words: self, rules, text, out, result: Ok(()) };
        pattern.scan(text, &mut encoding)?;
        encoding.look_up();
        encoding.words.ready.flush(encoding.out);
        encoding.result
    }
}

/// How many ids are gathered before they are appended to the output.
const READY: usize = 1024;

/// Ids on their way to the output: a place to copy [`MAX_IDS`] to and count fewer.
struct Ready {
    ids: Box<[TokenId; READY + BATCH * MAX_IDS]>,
    len: usize,
}

impl Default for Ready {
    fn default() -> Self {
        Self { ids: Box::new([0; READY + BATCH * MAX_IDS]), len: 0 }
    }
}

impl Ready {
    /// Room for the ids of [`BATCH`] words.
    #[inline(always)]
    fn room(&mut self, out: &mut impl Output) -> Room<'_> {
        if self.len > READY {
            self.flush(out);
        }
        Room { len: self.len, ready: self }
    }

    #[inline(never)]
    fn flush(&mut self, out: &mut impl Output) {
        out.append(&self.ids[..self.len]);
        self.len = 0;
    }
}

/// Where the next ids go, which depends on how many came before: kept in a register. In memory that
/// would be a store and a load for every word, one waiting for the other.
struct Room<'a> {
    ready: &'a mut Ready,
    len: usize,
}

impl Room<'_> {
    /// Appends the first `count` of `ids`.
    #[inline(always)]
    fn push(&mut self, ids: [TokenId; MAX_IDS], count: usize) {
        self.ready.ids[self.len..self.len + MAX_IDS].copy_from_slice(&ids);
        self.len += count;
    }
}

impl Drop for Room<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.ready.len = self.len;
    }
}

/// One text on its way.
struct Encoding<'a, O> {
    words: &'a mut WordEncoder,
    rules: &'a Rules,
    text: &'a [u8],
    out: &'a mut O,
    /// The last error: nobody between the scanner and here passes one on.
    result: Result<()>,
}

impl<O: Output> Visitor for Encoding<'_, O> {
    #[inline(always)]
    fn pretoken(&mut self, start: usize, end: usize) {
        let key = Key::at(self.text, start, end - start);
        if key.is_short() && key.is_ascii() {
            self.note(key);
        } else {
            self.cut(start, end);
        }
    }

    #[inline(always)]
    fn pass(&mut self, start: usize) -> usize {
        if leads_three(self.text[start]) { self.pass_characters(start) } else { start }
    }
}

impl<O: Output> Encoding<'_, O> {
    #[inline(always)]
    fn note(&mut self, key: Key) {
        self.words.short.prefetch(key);
        self.words.keys[self.words.len] = key;
        self.words.len += 1;
        if self.words.len == BATCH {
            self.look_up();
        }
    }

    /// A word that is long or not ASCII: its parts one by one.
    #[inline(never)]
    fn cut(&mut self, start: usize, end: usize) {
        let (text, cuts) = (self.text, &self.rules.cuts);
        let (mut from, mut at) = (start, start);
        while from < end {
            // Between the bytes of a character there is hardly ever a cut: from one to the next.
            at += char_len(text[at]);
            if at < end && !cuts.is_cut(text, at) {
                continue;
            }
            let to = at.min(end);
            self.note(Key::at(text, from, to - from));
            from = to;
        }
    }

    /// Encodes characters of three bytes from `start` on, as far as cuts and [`unspaced`] allow;
    /// returns where it stopped.
    ///
    /// [`unspaced`]: crate::text::unspaced
    #[inline(never)]
    fn pass_characters(&mut self, start: usize) -> usize {
        self.look_up();
        let mut at = start;
        loop {
            at = self.pass_single(at);
            match self.pass_part(at) {
                Some(end) => at = end,
                None => return at,
            }
        }
    }

    /// Encodes characters from `start` on as long as each is known and is a part by itself; returns
    /// where it stopped.
    #[inline(always)]
    fn pass_single(&mut self, start: usize) -> usize {
        let WordEncoder { characters, ready, .. } = &mut *self.words;
        let mut ready = ready.room(self.out);
        let mut at = start;
        let Some(mut last) = characters.peek(self.text, at).filter(|(entry, _)| entry.has_ids())
        else {
            return start;
        };
        for _ in 0..BATCH {
            let Some(next) = characters.peek(self.text, at + CHAR_LEN) else { break };
            let fits = next.0.has_ids() && (last.0.is_letter() || next.0.is_letter());
            if !fits || !self.rules.cuts.is_cut_before(last.0.cut_row(), next.1 >> 6) {
                break;
            }
            ready.push(last.0.padded(), last.0.count());
            last = next;
            at += CHAR_LEN;
        }
        at
    }

    /// Encodes the characters from `start` to the next cut; returns where it is, or `None` if they
    /// must be left to the scanner.
    fn pass_part(&mut self, start: usize) -> Option<usize> {
        let text = self.text;
        let mut at = start;
        let mut last = self.character(at)?;
        loop {
            let end = at + CHAR_LEN;
            let next = self.character(end)?;
            if self.rules.cuts.is_cut(text, end) {
                if at != start {
                    self.look_up_one(Key::at(text, start, end - start));
                } else if last.is_letter() || next.is_letter() {
                    self.push(last.padded(), last.count());
                } else {
                    return None;
                }
                return Some(end);
            }
            if !(last.is_letter() && next.is_letter() && end - start <= MAX_KEY) {
                return None;
            }
            (at, last) = (end, next);
        }
    }

    /// What is known of the character at `at`.
    #[inline(always)]
    fn character(&mut self, at: usize) -> Option<Entry> {
        let WordEncoder { characters, symbols, merge, .. } = &mut *self.words;
        characters.get(self.text, at, |character| {
            self.rules.encode_word(character, symbols, merge).ok()?;
            let cut_row = self.rules.cuts.row(character[1], character[2]);
            Some(Known { ids: symbols.clone(), cut_row })
        })
    }

    /// Appends the ids of the words noted, and forgets them.
    #[inline(never)]
    fn look_up(&mut self) {
        let count = std::mem::take(&mut self.words.len);
        let mut done = 0;
        while done < count {
            let WordEncoder { keys, short, ready, .. } = &mut *self.words;
            let mut room = ready.room(self.out);
            for ids in keys[done..count].iter().map_while(|&key| short.get(key)) {
                room.push(ids.padded(), ids.count());
                done += 1;
            }
            drop(room);
            if done < count {
                self.encode_new(self.words.keys[done]);
                done += 1;
            }
        }
    }

    fn look_up_one(&mut self, key: Key) {
        match self.words.short.get(key) {
            Some(ids) => self.push(ids.padded(), ids.count()),
            None => self.encode_new(key),
        }
    }

    #[inline(always)]
    fn push(&mut self, ids: [TokenId; MAX_IDS], count: usize) {
        self.words.ready.room(self.out).push(ids, count);
    }

    /// A word that the short cache does not know.
    #[inline(never)]
    fn encode_new(&mut self, key: Key) {
        let block;
        let word = match key.range() {
            Some(range) => &self.text[range],
            None => {
                block = key.bytes();
                &block.0[..block.1]
            }
        };
        let words = &mut *self.words;
        words.ready.flush(self.out);
        if let Some(ids) = words.long.get(word) {
            self.out.append(ids);
            return;
        }
        if let Err(error) = self.rules.encode_word(word, &mut words.symbols, &mut words.merge) {
            self.result = Err(error);
            return;
        }
        self.out.append(&words.symbols);
        match Ids::new(&words.symbols).filter(|_| key.is_short()) {
            Some(ids) => words.short.insert(key, ids),
            None => words.long.insert(word, &words.symbols),
        }
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
