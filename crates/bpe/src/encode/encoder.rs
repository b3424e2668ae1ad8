//! Text -> ids.
//!
//! Special tokens are found first; the text between them is pretokenized; a pretoken's ids come
//! from a cache ([`super::short_cache`]) or, the first time, from merging
//! ([`crate::vocab::merge`]). A long pretoken, or one with bytes beyond ASCII, is first cut where
//! no merge reaches across ([`super::cut_table`]). The loop that does all this is in
//! [`super::words`].
//!
//! A [`Tokenizer`] is shared by threads. What an encoding thread writes to (its caches and buffers)
//! is a [`WordEncoder`], taken from a pool for the length of a call, so that nothing is locked
//! while text is read and the next call finds the caches warm.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};

use super::bpe::Bpe;
use super::output::Output;
use super::words::WordEncoder;
use crate::error::{Error, Result};
use crate::progress::{Progress, check_thread};
use crate::store::token_table::WIDE;
use crate::text::cut::next_cut;
use crate::text::pattern::Pattern;
use crate::text::special::{Segment, SpecialTokens};
use crate::vocab::{TokenId, Vocab};
use crate::workers;

/// In bytes: so much is encoded between two looks at whether to stop.
const LONG: usize = if cfg!(test) { 64 } else { 4 << 20 };

/// In bytes: a batch gets a thread for each of these. To start one takes as long as encoding some
/// kilobytes, and what it meets first is an empty cache. Threads that outlive a call would save the
/// start alone, and be missing in the child after a `fork`.
const BYTES_A_THREAD: usize = if cfg!(test) { 16 } else { 128 << 10 };

/// How many threads there is work for in a batch of so many bytes.
pub fn useful_threads(bytes: usize) -> usize {
    1 + bytes / BYTES_A_THREAD
}

/// How often to look for the pool of encoders before doing without it.
const PATIENCE: usize = 200;

/// A vocabulary, its special tokens and its pattern: all that it takes to turn text into ids and
/// back. Threads share one; it is safe to encode with it from all of them at once.
pub struct Tokenizer {
    bpe: Bpe,
    special: SpecialTokens,
    pattern: Pattern,
    pool: Mutex<Vec<WordEncoder>>,
}

impl Tokenizer {
    /// A tokenizer. Special tokens that the vocabulary holds keep their id; the others get ids
    /// after the largest one, in the order given.
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
        let bpe = Bpe::new(vocab, special_ids)?;
        Ok(Self { bpe, special, pattern, pool: Mutex::default() })
    }

    /// The vocabulary, special tokens included.
    pub fn vocab(&self) -> &Vocab {
        &self.bpe.vocab
    }

    /// The special tokens, in the order given.
    pub fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// The ids of [`special_tokens`](Self::special_tokens), in their order.
    pub fn special_ids(&self) -> &[TokenId] {
        &self.bpe.special_ids
    }

    /// The pattern that cuts text into pretokens.
    pub fn pattern(&self) -> &Pattern {
        &self.pattern
    }

    /// Appends the ids of `text` to `out`; special tokens in it become their ids.
    ///
    /// # Errors
    /// A custom pattern that gives up backtracking; a pretoken of 4 GiB. `out` is then as before.
    pub fn encode(&self, text: &[u8], out: &mut Vec<TokenId>) -> Result<()> {
        self.with_words(1, |words| self.encode_with(words, text, out))
    }

    /// Appends the ids of `text` to `out`, treating special tokens as plain text: for input that is
    /// not trusted.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_ordinary(&self, text: &[u8], out: &mut Vec<TokenId>) -> Result<()> {
        self.with_words(1, |words| self.encode_ordinary_with(words, text, out))
    }

    /// The ids of each of `texts`, by up to `threads` threads, and by no more than there is work for.
    /// They stop where one text fails.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), for the first text that fails; [`Error::Cancelled`].
    pub fn encode_batch<T: AsRef<[u8]> + Sync>(
        &self,
        texts: &[T],
        threads: usize,
        progress: &Progress,
    ) -> Result<Vec<Vec<TokenId>>> {
        let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
        let threads = threads.min(useful_threads(bytes)).clamp(1, texts.len().max(1));
        let batch = Batch { texts, next: AtomicUsize::new(0), failed: AtomicBool::new(false) };
        let encode = |words: &mut WordEncoder| self.encode_some(words, &batch, progress);
        let work = || progress.watched(|| self.with_words(threads, encode));
        let parts: Vec<_> = std::thread::scope(|scope| {
            let others = workers::start(scope, threads - 1, &work);
            let mut parts = vec![work()];
            parts.extend(others.into_iter().map(|thread| {
                let panicked = |panic: Box<_>| {
                    let message = workers::panic_message(&*panic);
                    (Vec::new(), Some((0, Error::invalid(message))))
                };
                thread.join().unwrap_or_else(panicked)
            }));
            parts
        });
        let mut ids = vec![Vec::new(); texts.len()];
        let mut failure: Failure = None;
        for (done, error) in parts {
            done.into_iter().for_each(|(i, encoded)| ids[i] = encoded);
            failure = failure.into_iter().chain(error).min_by_key(|(i, _)| *i);
        }
        failure.map_or(Ok(ids), |(_, error)| Err(error))
    }

    /// Takes one text after the other until none is left or one has failed: what is done, and the
    /// text that failed here. Texts are taken in order and one that is taken is finished, so the
    /// first text that fails is always among those that are found.
    fn encode_some<T: AsRef<[u8]>>(
        &self,
        words: &mut WordEncoder,
        batch: &Batch<'_, T>,
        progress: &Progress,
    ) -> (Vec<(usize, Vec<TokenId>)>, Failure) {
        let mut done = Vec::new();
        while !batch.failed.load(Relaxed) {
            let i = batch.next.fetch_add(1, Relaxed);
            let Some(text) = batch.texts.get(i).map(AsRef::as_ref) else { break };
            let mut ids = Vec::with_capacity(text.len() / 4 + 1);
            let encoded = self.encode_with(words, text, &mut ids);
            if let Err(error) = encoded.and_then(|()| progress.check()) {
                batch.failed.store(true, Relaxed);
                return (done, Some((i, error)));
            }
            done.push((i, ids));
        }
        (done, None)
    }

    /// Appends the bytes that `ids` stand for to `out`.
    ///
    /// # Errors
    /// An id that the vocabulary does not hold; `out` is then as before.
    pub fn decode(&self, ids: &[TokenId], out: &mut Vec<u8>) -> Result<()> {
        let vocab = &self.bpe.vocab;
        let before = out.len();
        let mut end = before;
        for (i, &id) in ids.iter().enumerate() {
            // `out` is longer than what is decoded, so that short tokens are copied in one step.
            if let Some((len, bytes)) = vocab.token_wide(id)
                && len <= WIDE
                && let Some(place) = out.get_mut(end..end + WIDE)
            {
                place.copy_from_slice(bytes);
                end += len;
                continue;
            }
            let Some(token) = vocab.token(id) else {
                out.truncate(before);
                return Err(Error::invalid(format!(
                    "id {id} (number {i} of {}) is not in the vocabulary, whose largest id is {}",
                    ids.len(),
                    vocab.max_id()
                )));
            };
            if out.len() < end + token.len() + WIDE {
                // Four bytes are an average token: mostly this happens once.
                out.resize(end + token.len() + 4 * (ids.len() - i) + WIDE, 0);
            }
            out[end..end + token.len()].copy_from_slice(token);
            end += token.len();
        }
        out.truncate(end);
        Ok(())
    }

    /// As [`encode`](Self::encode), with a word encoder that the caller holds.
    pub(crate) fn encode_with(
        &self,
        words: &mut WordEncoder,
        text: &[u8],
        out: &mut impl Output,
    ) -> Result<()> {
        let before = out.len();
        let result = self.special.for_each_segment(text, |segment| match segment {
            Segment::Text(text) => self.encode_segment(words, text, out),
            Segment::Special(index) => {
                out.append(&[self.bpe.special_ids[index]]);
                Ok(())
            }
        });
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    /// As [`encode_ordinary`](Self::encode_ordinary), with a word encoder that the caller holds.
    pub(crate) fn encode_ordinary_with(
        &self,
        words: &mut WordEncoder,
        text: &[u8],
        out: &mut impl Output,
    ) -> Result<()> {
        let before = out.len();
        let result = self.encode_segment(words, text, out);
        if result.is_err() {
            out.truncate(before);
        }
        result
    }

    /// A text without special tokens. A long one in parts, between which the job may be stopped; a
    /// custom pattern, which has no places to cut, looks for that itself.
    fn encode_segment(
        &self,
        words: &mut WordEncoder,
        text: &[u8],
        out: &mut impl Output,
    ) -> Result<()> {
        let mut rest = text;
        while rest.len() > 2 * LONG && self.pattern.has_certain_boundaries() {
            let Some(cut) = next_cut(rest, LONG, &self.pattern, &SpecialTokens::default()) else {
                break;
            };
            let (part, after) = rest.split_at(cut);
            words.encode(&self.bpe, &self.pattern, part, out)?;
            check_thread()?;
            rest = after;
        }
        words.encode(&self.bpe, &self.pattern, rest, out)
    }

    /// Calls `work` with a word encoder from the pool, or a new one if all are in use. It is one of
    /// `number` that a call uses at once.
    pub(crate) fn with_words<R>(
        &self,
        number: usize,
        work: impl FnOnce(&mut WordEncoder) -> R,
    ) -> R {
        let pooled = self.pool().and_then(|mut pool| pool.pop());
        let mut words = pooled.unwrap_or_default();
        words.be_one_of(number);
        let result = work(&mut words);
        if let Some(mut pool) = self.pool() {
            pool.push(words);
        }
        result
    }

    /// The pool, which nobody keeps for long; `None` if somebody does. A process that was forked
    /// while another thread held it has nobody who would ever give it back: waiting is a deadlock,
    /// and doing without costs a few empty caches.
    fn pool(&self) -> Option<MutexGuard<'_, Vec<WordEncoder>>> {
        for _ in 0..PATIENCE {
            match self.pool.try_lock() {
                Ok(pool) => return Some(pool),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
                Err(TryLockError::Poisoned(_)) => return None,
            }
        }
        None
    }
}

/// The text of a batch that could not be encoded, and why.
type Failure = Option<(usize, Error)>;

/// Texts that several threads take from.
struct Batch<'t, T> {
    texts: &'t [T],
    /// The first one that nobody has taken.
    next: AtomicUsize,
    failed: AtomicBool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokenizer(pattern: &str) -> Tokenizer {
        let (he, the, space_the) = ((104, 101), (116, 256), (32, 257));
        let vocab = Vocab::from_merges(&[he, the, space_the], &["<s>"]).expect("valid");
        Tokenizer::new(vocab, &["<s>"], Pattern::parse(pattern).expect("valid")).expect("valid")
    }

    proptest! {
        #[test]
        fn a_long_text_is_encoded_as_its_pretokens_are(
            text in "( the|he | |th|\n|x|[0-9]|日|<s>){0,400}",
            pattern in prop::sample::select(Pattern::known().collect::<Vec<_>>()),
        ) {
            let tokenizer = tokenizer(pattern.name());
            let mut expected = Vec::new();
            tokenizer.pattern.for_each(text.as_bytes(), |pretoken| {
                tokenizer.encode_ordinary(pretoken, &mut expected).expect("short");
            }).expect("no limit");
            let mut ids = Vec::new();
            tokenizer.encode_ordinary(text.as_bytes(), &mut ids).expect("no limit");
            prop_assert_eq!(ids, expected);
        }
    }

    #[test]
    fn a_long_text_stops_when_it_is_asked_to() {
        let progress = Progress::new();
        progress.cancel();
        let long = b" the".repeat(LONG);
        for pattern in ["gpt2", "gpt4", "gpt4o", "qwen3.5", r"\w+|\s"] {
            let tokenizer = tokenizer(pattern);
            let (mut ids, mut plain) = (vec![7], vec![7]);
            let stopped = progress.watched(|| tokenizer.encode(&long, &mut ids));
            assert!(matches!(stopped, Err(Error::Cancelled)), "{pattern}");
            let stopped = progress.watched(|| tokenizer.encode_ordinary(&long, &mut plain));
            assert!(matches!(stopped, Err(Error::Cancelled)), "{pattern}");
            assert_eq!((ids, plain), (vec![7], vec![7]), "{pattern}");
            let batch = tokenizer.encode_batch(&[&long], 1, &progress);
            assert!(matches!(batch, Err(Error::Cancelled)), "{pattern}");
            // The same words go on with another text.
            let mut after = Vec::new();
            tokenizer.encode(b" the", &mut after).expect("nobody stops it");
            assert_eq!(tokenizer.decode(&after, &mut Vec::new()).ok(), Some(()));
        }
    }
}
