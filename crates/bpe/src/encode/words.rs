//! The inner loop of encoding: one thread's way from pretokens to ids.
//!
//! Work is done in batches of words, in two passes. The first runs inside the scanner: it cuts a
//! pretoken where it may be cut and collects each part's [`ShortKey`], sixteen bytes. The second
//! looks the keys up. The scanner's branches are hard to predict and a look-up waits for memory;
//! separated, many look-ups run at once, which the processor cannot do across a mispredicted
//! branch.

use super::bpe::Bpe;
use super::char_table::{CHAR_LEN, CharEntry, CharIds, CharTable};
use super::id_buffer::{IdBuffer, MAX_PUSHES};
use super::long_cache::LongCache;
use super::output::Output;
use super::short_cache::{LineNumber, MAX_IDS, PackedIds, ShortCache};
use crate::error::Result;
use crate::store::short_key::ShortKey;
use crate::text::pattern::Pattern;
use crate::text::utf8::{char_len, leads_three};
use crate::text::visitor::Visitor;
use crate::vocab::TokenId;
use crate::vocab::merge::MergeScratch;

/// How many words are looked up at a time: few enough for keys and ids to stay in the first-level
/// cache.
const BATCH: usize = MAX_PUSHES;

/// What a thread writes to while it encodes, kept warm from call to call.
pub struct WordEncoder {
    /// Keys, and where in the short cache they are.
    batch: Box<[(ShortKey, LineNumber); BATCH]>,
    len: usize,
    ids: IdBuffer,
    short: ShortCache,
    long: LongCache,
    characters: CharTable,
    symbols: Vec<TokenId>,
    scratch: MergeScratch,
}

/// 131,072 lines, 262,144 pretokens, 8 MiB a thread at most: room for the words of a language. Half
/// of it misses a third more often on novels.
const LOG_CACHE_LINES: u32 = 17;

/// Of many threads each has less, down to a quarter: what four would take is for all of them, as the
/// farthest cache is.
const LEAST_LOG_CACHE_LINES: u32 = 15;

impl Default for WordEncoder {
    fn default() -> Self {
        Self {
            batch: Box::new([(ShortKey::NONE, LineNumber::default()); BATCH]),
            len: 0,
            ids: IdBuffer::default(),
            short: ShortCache::new(LOG_CACHE_LINES),
            long: LongCache::default(),
            characters: CharTable::default(),
            symbols: Vec::new(),
            scratch: MergeScratch::default(),
        }
    }
}

impl WordEncoder {
    /// Says that so many encode at once. What it has it keeps.
    pub fn be_one_of(&mut self, number: usize) {
        let share = number.div_ceil(4).max(1).next_power_of_two().ilog2();
        self.short.limit(LOG_CACHE_LINES.saturating_sub(share).max(LEAST_LOG_CACHE_LINES));
    }

    /// Appends the ids of one segment of text without special tokens.
    pub fn encode<O: Output>(
        &mut self,
        bpe: &Bpe,
        pattern: &Pattern,
        text: &[u8],
        out: &mut O,
    ) -> Result<()> {
        self.len = 0;
        self.ids.clear();
        let mut encoding = Encoding { words: self, bpe, text, out, result: Ok(()) };
        pattern.scan(text, &mut encoding)?;
        encoding.look_up();
        encoding.words.ids.flush(encoding.out);
        encoding.result
    }
}

/// One text on its way.
struct Encoding<'a, O> {
    words: &'a mut WordEncoder,
    bpe: &'a Bpe,
    text: &'a [u8],
    out: &'a mut O,
    /// The last error: nothing between the scanner and here passes one on.
    result: Result<()>,
}

impl<O: Output> Visitor for Encoding<'_, O> {
    #[inline(always)]
    fn pretoken(&mut self, start: usize, end: usize) {
        if end - start <= ShortKey::MAX_LEN {
            let key = ShortKey::short(self.text, start, end - start);
            if key.is_ascii() {
                return self.push_key(key);
            }
        }
        self.cut(start, end);
    }

    #[inline(always)]
    fn consume(&mut self, start: usize) -> usize {
        if leads_three(self.text[start]) { self.consume_characters(start) } else { start }
    }
}

/// The key of the word `text[start..start + len]`, which is not empty. A long word's says where in
/// the text it is; the short cache never holds one.
#[inline(always)]
fn key_at(text: &[u8], start: usize, len: usize) -> ShortKey {
    if len > ShortKey::MAX_LEN {
        return ShortKey::long(start as u64, len as u64);
    }
    ShortKey::short(text, start, len)
}

impl<O: Output> Encoding<'_, O> {
    #[inline(always)]
    fn push_key(&mut self, key: ShortKey) {
        let words = &mut *self.words;
        let line = words.short.prefetch(key);
        let place = words.len;
        words.batch[place % BATCH] = (key, line);
        words.len = place + 1;
        if place + 1 == BATCH {
            self.look_up();
        }
    }

    /// A word that is long or not ASCII: its parts one by one.
    #[inline(never)]
    fn cut(&mut self, start: usize, end: usize) {
        let (text, cuts) = (self.text, &self.bpe.cuts);
        let (mut from, mut at) = (start, start);
        while from < end {
            // Between the bytes of a character there is hardly ever a cut: from one to the next.
            at += char_len(text[at]);
            if at < end && !cuts.is_cut(text, at) {
                continue;
            }
            let to = at.min(end);
            self.push_key(key_at(text, from, to - from));
            from = to;
        }
    }

    /// Encodes characters of three bytes from `start` on, as far as cuts and [`unspaced`] allow;
    /// returns where it stopped.
    ///
    /// [`unspaced`]: crate::text::unspaced
    #[inline(never)]
    fn consume_characters(&mut self, start: usize) -> usize {
        self.look_up();
        let mut at = start;
        loop {
            at = self.consume_single(at);
            match self.consume_part(at) {
                Some(end) => at = end,
                None => return at,
            }
        }
    }

    /// Encodes characters from `start` on as long as each is known and is a part by itself; returns
    /// where it stopped.
    #[inline(always)]
    fn consume_single(&mut self, start: usize) -> usize {
        let WordEncoder { characters, ids, .. } = &mut *self.words;
        let mut ids = ids.writer(self.out);
        let mut at = start;
        let Some(mut last) = characters.peek(self.text, at).filter(|(entry, _)| entry.has_ids())
        else {
            return start;
        };
        for _ in 0..BATCH {
            let Some(next) = characters.peek(self.text, at + CHAR_LEN) else { break };
            let fits = next.0.has_ids() && (last.0.is_letter() || next.0.is_letter());
            if !fits || !self.bpe.cuts.is_cut_before(last.0.cut_row(), next.1 >> 6) {
                break;
            }
            ids.push(last.0.padded(), last.0.count());
            last = next;
            at += CHAR_LEN;
        }
        at
    }

    /// Encodes the characters from `start` to the next cut; returns where it is, or `None` if they
    /// must be left to the scanner.
    fn consume_part(&mut self, start: usize) -> Option<usize> {
        let text = self.text;
        let mut at = start;
        let mut last = self.character(at)?;
        loop {
            let end = at + CHAR_LEN;
            let next = self.character(end)?;
            if self.bpe.cuts.is_cut(text, end) {
                if at != start {
                    self.look_up_one(key_at(text, start, end - start));
                } else if last.is_letter() || next.is_letter() {
                    self.push_ids(last.padded(), last.count());
                } else {
                    return None;
                }
                return Some(end);
            }
            if !(last.is_letter() && next.is_letter() && end - start <= ShortKey::MAX_LEN) {
                return None;
            }
            (at, last) = (end, next);
        }
    }

    /// What is known of the character at `at`.
    #[inline(always)]
    fn character(&mut self, at: usize) -> Option<CharEntry> {
        let WordEncoder { characters, symbols, scratch, .. } = &mut *self.words;
        characters.get(self.text, at, |character| {
            self.bpe.encode_word(character, symbols, scratch).ok()?;
            let cut_row = self.bpe.cuts.row(character[1], character[2]);
            Some(CharIds { ids: symbols.clone(), cut_row })
        })
    }

    /// Appends the ids of the words collected, and forgets them.
    #[inline(never)]
    fn look_up(&mut self) {
        let count = std::mem::take(&mut self.words.len);
        let mut done = 0;
        while done < count {
            let WordEncoder { batch, short, ids, .. } = &mut *self.words;
            let mut writer = ids.writer(self.out);
            let words = batch[done..count].iter();
            for found in words.map_while(|&(key, line)| short.get_in(line, key)) {
                writer.push(found.padded(), found.count());
                done += 1;
            }
            drop(writer);
            if done < count {
                self.encode_new(self.words.batch[done].0);
                done += 1;
            }
        }
    }

    fn look_up_one(&mut self, key: ShortKey) {
        match self.words.short.get(key) {
            Some(ids) => self.push_ids(ids.padded(), ids.count()),
            None => self.encode_new(key),
        }
    }

    #[inline(always)]
    fn push_ids(&mut self, ids: [TokenId; MAX_IDS], count: usize) {
        self.words.ids.writer(self.out).push(ids, count);
    }

    /// A word that the short cache does not know.
    #[inline(never)]
    fn encode_new(&mut self, key: ShortKey) {
        let bytes;
        let word = match key.long_parts() {
            Some((start, len)) => &self.text[start as usize..][..len as usize],
            None => {
                bytes = key.bytes();
                &bytes[..key.len()]
            }
        };
        let words = &mut *self.words;
        words.ids.flush(self.out);
        if let Some(ids) = words.long.get(word) {
            self.out.append(ids);
            return;
        }
        if let Err(error) = self.bpe.encode_word(word, &mut words.symbols, &mut words.scratch) {
            self.result = Err(error);
            return;
        }
        self.out.append(&words.symbols);
        match PackedIds::new(&words.symbols).filter(|_| key.is_short()) {
            Some(ids) => words.short.insert(key, ids),
            None => words.long.insert(word, &words.symbols),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pretoken_is_where_it_is() {
        let text = [b'x'; 100];
        assert_eq!(key_at(&text, 0, 16).long_parts(), Some((0, 16)));
        assert_eq!(key_at(&text, 70, 30).long_parts(), Some((70, 30)));
        assert!(ShortCache::new(3).get(key_at(&text, 0, 16)).is_none());
    }
}
