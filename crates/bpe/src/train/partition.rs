//! A part of the distinct pretokens, all in one flat array, and what one merge does to it.
//!
//! ```text
//!   ..  |  t  h  e  |  t  h  e  n  |  ..      before: one symbol a byte, a sentinel between words
//!   ..  | th  th e  | th  th e  n  |  ..      after (t, h): the id first and last in its span
//! ```
//!
//! A token spans as many symbols as it has bytes (fewer after [`Partition::compact`]); its id is
//! the first and the last of them, so both neighbours of a token are one read away and nothing is
//! linked. The symbols between are left over. The span at `p` is still token `a` exactly if its
//! first and its last symbol are both `a`: merging it with the token on its right overwrites the
//! first, with the token on its left the last, and no merge ever writes `a` again where it was
//! before, for tokens only grow. Hence the start positions where a pair was once seen may be kept
//! as they are and checked when they are used.
//!
//! Ids are 16 bits wide where the vocabulary allows it ([`Symbol`]): this array is most of the
//! memory that training takes and reads.
//!
//! Words are laid out by falling count, so that a word's count is that of the class its position
//! falls into: a few thousand boundaries instead of a number for each symbol, and a walk over
//! ascending positions meets them in order.

use crate::error::Result;
use crate::progress::Progress;
use crate::vocab::TokenId;

/// A token's id as it is stored in a partition.
pub trait Symbol: Copy + Eq + Default + Send + Sync + 'static {
    /// Stands between words; no token has this id.
    const SENTINEL: Self;
    /// The symbol of a token.
    fn of(id: TokenId) -> Self;
    /// The token of a symbol.
    fn id(self) -> TokenId;
}

impl Symbol for u16 {
    const SENTINEL: Self = u16::MAX;

    #[inline]
    fn of(id: TokenId) -> Self {
        id as u16
    }

    #[inline]
    fn id(self) -> TokenId {
        TokenId::from(self)
    }
}

impl Symbol for u32 {
    const SENTINEL: Self = u32::MAX;

    #[inline]
    fn of(id: TokenId) -> Self {
        id
    }

    #[inline]
    fn id(self) -> TokenId {
        self
    }
}

/// In place of the start of a list: the positions are not listed.
pub const NO_LIST: u32 = u32::MAX;

/// How many positions are fetched from memory together.
const BLOCK: usize = 32;

/// How many symbols are read between two looks at whether to stop: a few milliseconds.
const CHECK_EVERY: usize = 1 << 20;

/// The most symbols a partition may have: indices into its lists of positions, which grow to at
/// most three times as many, must fit into 32 bits.
pub const MAX_SYMBOLS: usize = 1 << 30;

/// Words and the position lists of the pairs in them. Partitions share no word, so each may be
/// worked on by another thread.
pub struct Partition<S> {
    pub symbols: Vec<S>,
    /// How often each word occurs.
    pub classes: Classes,
    /// The position lists of all pairs, end to end.
    pub positions: Vec<u32>,
    /// The left and right neighbours of what the current merge has merged.
    pub left: Neighbours,
    pub right: Neighbours,
    /// Merges that directly followed another merge of the same pair: (c, c) is there now.
    pub double: Neighbour,
}

/// A part of [`Partition::positions`].
#[derive(Clone, Copy, Debug, Default)]
pub struct List {
    /// [`NO_LIST`] if the positions are not listed.
    pub start: u32,
    pub len: u32,
}

impl List {
    /// For a pair that occurs at so many positions at most.
    pub fn unlisted(places: u32) -> Self {
        Self { start: NO_LIST, len: places }
    }
}

/// The merge of neighbours `a` and `b` into `c`, with how many symbols `a` and `b` span.
#[derive(Clone, Copy)]
pub struct MergeStep {
    pub a: TokenId,
    pub b: TokenId,
    pub c: TokenId,
    pub a_span: usize,
    pub b_span: usize,
}

impl<S: Symbol> Partition<S> {
    pub fn new() -> Self {
        Self {
            symbols: vec![S::SENTINEL],
            classes: Classes::default(),
            positions: Vec::new(),
            left: Neighbours::default(),
            right: Neighbours::default(),
            double: Neighbour::default(),
        }
    }

    /// Adds a word. Words come by falling count; one of a single byte holds no pair and should be
    /// left out. `false` if the partition is full.
    pub fn push(&mut self, word: &[u8], count: u64) -> bool {
        debug_assert!(word.len() > 1);
        self.symbols.extend(word.iter().map(|&byte| S::of(TokenId::from(byte))));
        self.symbols.push(S::SENTINEL);
        self.classes.extend(self.symbols.len(), count);
        self.symbols.len() < MAX_SYMBOLS
    }

    /// Merges a pair wherever it still occurs, leftmost first, and counts the neighbours.
    pub fn apply(&mut self, list: List, step: MergeStep) {
        let MergeStep { a_span, b_span, .. } = step;
        let (a, b, c) = (S::of(step.a), S::of(step.b), S::of(step.c));
        let symbols = &mut self.symbols[..];
        let mut class = self.classes.cursor();
        let positions = &self.positions[list.start as usize..][..list.len as usize];
        for block in positions.chunks(BLOCK) {
            // Nothing depends on what is read here, so the reads overlap; the merges below, which
            // depend on each other, then find everything near.
            let read = block.iter().fold(0, |read, &start| read ^ symbols[start as usize].id());
            std::hint::black_box(read);
            for &position in block {
                let start = position as usize;
                let middle = start + a_span;
                if symbols[start] != a || symbols[middle - 1] != a || symbols[middle] != b {
                    continue;
                }
                let end = middle + b_span;
                let (x, y) = (symbols[start - 1], symbols[end]);
                symbols[start] = c;
                symbols[end - 1] = c;
                let count = class.count_at(position);
                if x == c {
                    // The merge before this one counted (c, a); it is (c, c) now.
                    self.double.add(count);
                } else if x != S::SENTINEL {
                    self.left.add(x.id(), count);
                }
                if y != S::SENTINEL {
                    self.right.add(y.id(), count);
                }
            }
        }
    }

    /// Visits the positions that [`apply`](Self::apply) has just merged again, and writes them to
    /// the lists that were reserved for pairs of the new token. Most merges make no such pair, and
    /// then this is not called.
    pub fn fill_lists(&mut self, list: List, step: MergeStep, spans: &[u32]) {
        let c = S::of(step.c);
        let mut end = 0;
        for index in list.start..list.start + list.len {
            let position = self.positions[index as usize];
            let start = position as usize;
            // A position before `end` is the last symbol of the token before.
            if start < end || self.symbols[start] != c {
                continue;
            }
            end = start + step.a_span + step.b_span;
            let (x, y) = (self.symbols[start - 1], self.symbols[end]);
            if x == c {
                let before = position - spans[step.c as usize];
                self.double.note(before, &mut self.positions);
            } else if x != S::SENTINEL {
                let before = position - spans[x.id() as usize];
                self.left.by_token[x.id() as usize].note(before, &mut self.positions);
            }
            if y != c && y != S::SENTINEL {
                self.right.by_token[y.id() as usize].note(position, &mut self.positions);
            }
        }
    }

    /// Forgets the neighbours of the last merge.
    pub fn clear_neighbours(&mut self) {
        self.left.clear();
        self.right.clear();
        self.double = Neighbour::default();
    }

    /// A new list with space for `len` positions.
    pub fn reserve_list(&mut self, len: u32) -> List {
        let start = self.positions.len();
        self.positions.resize(start + len as usize, 0);
        List { start: start as u32, len }
    }

    /// Makes every token a single symbol and drops words that have become one token. Positions from
    /// before mean nothing afterwards; `spans` is how many symbols each token spanned until now.
    ///
    /// # Errors
    /// `progress` says stop; the partition is then of no use.
    #[inline(never)]
    pub fn compact(&mut self, spans: &[u32], progress: &Progress) -> Result<()> {
        let symbols = &mut self.symbols[..];
        let (mut from, mut to) = (1, 1);
        let mut check_at = CHECK_EVERY;
        let mut classes = Classes::default();
        for (&class_end, &count) in self.classes.ends.iter().zip(&self.classes.counts) {
            let mut word = to;
            while from < class_end as usize {
                let token = symbols[from];
                symbols[to] = token;
                to += 1;
                if token != S::SENTINEL {
                    from += spans[token.id() as usize] as usize;
                    continue;
                }
                from += 1;
                if to - word <= 2 {
                    to = word;
                }
                word = to;
                if from > check_at {
                    progress.check()?;
                    check_at = from + CHECK_EVERY;
                }
            }
            classes.extend(to, count);
        }
        self.symbols.truncate(to);
        self.symbols.shrink_to_fit();
        self.classes = classes;
        self.positions.clear();
        self.positions.shrink_to(to); // what a survey may list
        Ok(())
    }

    /// Calls `visit` with every two neighbours, after [`compact`](Self::compact), with the
    /// position of the first and the word's count. Also with those where one is a sentinel: their count
    /// is 0, which is quicker than leaving them out.
    ///
    /// # Errors
    /// `progress` says stop.
    #[inline]
    pub fn for_each_pair(
        &self,
        progress: &Progress,
        mut visit: impl FnMut(usize, TokenId, TokenId, u64),
    ) -> Result<()> {
        for (start, end, count) in self.classes.iter() {
            let mut left = S::SENTINEL;
            for start in (start..end).step_by(CHECK_EVERY) {
                let end = end.min(start + CHECK_EVERY);
                for (at, &right) in (start..end).zip(&self.symbols[start..end]) {
                    let inside = left != S::SENTINEL && right != S::SENTINEL;
                    visit(at - 1, left.id(), right.id(), if inside { count } else { 0 });
                    left = right;
                }
                progress.check()?;
            }
        }
        Ok(())
    }
}

/// Consecutive words of the same count, as ranges of symbols.
#[derive(Default)]
pub struct Classes {
    ends: Vec<u32>,
    counts: Vec<u64>,
}

impl Classes {
    /// All symbols from the last class's end up to `end` belong to words of this count.
    fn extend(&mut self, end: usize, count: u64) {
        let end = end as u32;
        if self.counts.last() == Some(&count) {
            if let Some(last) = self.ends.last_mut() {
                *last = end;
            }
        } else if self.ends.last() != Some(&end) {
            self.ends.push(end);
            self.counts.push(count);
        }
    }

    /// Looks up the counts of ascending positions.
    pub fn cursor(&self) -> ClassCursor<'_> {
        ClassCursor { classes: self, class: 0 }
    }

    /// About how many pairs of neighbours there are in all: sentinels are counted as tokens.
    pub fn total_count(&self) -> u64 {
        self.iter().fold(0, |sum: u64, (start, end, count)| {
            sum.saturating_add(count.saturating_mul((end - start) as u64))
        })
    }

    /// (first symbol, one past the last, count) of each class.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let starts = std::iter::once(1).chain(self.ends.iter().map(|&end| end as usize));
        let ends = self.ends.iter().map(|&end| end as usize);
        starts.zip(ends).zip(&self.counts).map(|((start, end), &count)| (start, end, count))
    }
}

/// Looks up the counts of ascending positions.
pub struct ClassCursor<'c> {
    classes: &'c Classes,
    class: usize,
}

impl ClassCursor<'_> {
    #[inline]
    fn count_at(&mut self, position: u32) -> u64 {
        let ends = &self.classes.ends[..];
        if ends[self.class] <= position {
            // Gallop: the next class is mostly near, and never behind.
            let mut step = 1;
            while self.class + step < ends.len() && ends[self.class + step] <= position {
                self.class += step;
                step *= 2;
            }
            let beyond = ends.len().min(self.class + step);
            self.class += ends[self.class..beyond].partition_point(|&end| end <= position);
        }
        self.classes.counts[self.class]
    }
}

/// The tokens beside the positions where a pair was merged: sums in an array indexed by token, so
/// that a hash table is touched once per distinct neighbour, not once per occurrence.
#[derive(Default)]
pub struct Neighbours {
    pub by_token: Vec<Neighbour>,
    /// The tokens whose sums are not zero.
    pub touched: Vec<TokenId>,
}

/// How often a token is beside the merged pair.
#[derive(Clone, Copy)]
pub struct Neighbour {
    /// The sum of the words' counts.
    pub count: u64,
    /// At how many positions.
    pub places: u32,
    /// Where the next of these positions is to be listed, or [`NO_LIST`].
    pub cursor: u32,
}

impl Neighbours {
    #[inline]
    fn add(&mut self, token: TokenId, count: u64) {
        let neighbour = &mut self.by_token[token as usize];
        if neighbour.places == 0 {
            self.touched.push(token);
        }
        neighbour.add(count);
    }

    fn clear(&mut self) {
        for token in self.touched.drain(..) {
            self.by_token[token as usize] = Neighbour::default();
        }
    }
}

impl Default for Neighbour {
    fn default() -> Self {
        Self { count: 0, places: 0, cursor: NO_LIST }
    }
}

impl Neighbour {
    #[inline]
    fn add(&mut self, count: u64) {
        self.count += count;
        self.places += 1;
    }

    /// Writes a position to its pair's list, if it has one.
    #[inline]
    fn note(&mut self, position: u32, positions: &mut [u32]) {
        if self.cursor != NO_LIST {
            positions[self.cursor as usize] = position;
            self.cursor += 1;
        }
    }
}
