//! A share of the distinct pretokens, all in one flat array, and what one merge does to it.
//!
//! ```text
//!   ..  |  t  h  e  |  t  h  e  n  |  ..      before: one slot a symbol, a sentinel between words
//!   ..  | th  th e  | th th  e  n  |  ..      after (t, h): the id at the first and last slot
//! ```
//!
//! A token's id stands at the first and at the last slot of its span, so both neighbours of a
//! token are one read away and nothing is linked. Whatever stands between is left over. The span
//! at `p` is still token `a` exactly if its first and its last slot both say so: what merges it
//! with the right overwrites the first, with the left the last, and no merge ever writes `a` again
//! where it was before, for tokens only grow. Hence the start positions that a pair was once seen
//! at may be kept as they are and checked when they are used.
//!
//! Ids are 16 bits wide where the vocabulary allows it ([`Symbol`]): the array is what training
//! takes memory for, and walks through.
//!
//! Words are laid out by falling count, so that a word's count is that of the class its position
//! falls into: a few thousand boundaries instead of a number a slot, and a walk over ascending
//! positions meets them in order.

use crate::error::Result;
use crate::progress::Progress;
use crate::vocab::TokenId;

/// A token's id as it stands in a shard.
pub trait Symbol: Copy + Eq + Default + Send + Sync + 'static {
    /// Stands between words; no token has this id.
    const SENTINEL: Self;
    fn of(id: TokenId) -> Self;
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

/// What a neighbour's cursor says where its pair gets no list.
pub const NO_LIST: u32 = u32::MAX;

/// How many places are fetched from memory together.
const BLOCK: usize = 32;

/// How many slots are walked over between two looks at whether to stop: a few milliseconds.
pub const CHECK_EVERY: usize = 1 << 20;

/// The most slots a shard may have: its positions, at most three times as many over the life of
/// its lists, have to be told by 32 bits.
pub const MAX_SLOTS: usize = 1 << 30;

/// Words and the position lists of the pairs in them. Shards share no word, so that each may be
/// worked on by another thread.
pub struct Shard<S> {
    pub symbols: Vec<S>,
    pub classes: Classes,
    /// The position lists of all pairs, end to end.
    pub positions: Vec<u32>,
    pub left: Gather,
    pub right: Gather,
    /// Merges that followed another merge of the same pair at once: (c, c) stands there now.
    pub double: Neighbour,
}

/// A stretch of [`Shard::positions`].
#[derive(Clone, Copy, Debug, Default)]
pub struct List {
    /// [`NO_LIST`] if the positions are not listed.
    pub start: u32,
    pub len: u32,
}

impl List {
    /// Of a pair that stands at so many places at most.
    pub fn unlisted(places: u32) -> Self {
        Self { start: NO_LIST, len: places }
    }
}

/// The merge of `a` and `b`, neighbours, to `c`. Lengths are in slots.
#[derive(Clone, Copy)]
pub struct Join {
    pub a: TokenId,
    pub b: TokenId,
    pub c: TokenId,
    pub a_slots: usize,
    pub b_slots: usize,
}

impl<S: Symbol> Shard<S> {
    pub fn new() -> Self {
        Self {
            symbols: vec![S::SENTINEL],
            classes: Classes::default(),
            positions: Vec::new(),
            left: Gather::default(),
            right: Gather::default(),
            double: Neighbour::default(),
        }
    }

    /// Adds a word. They come by falling count; one of a single byte holds no pair and should be
    /// left out. `false` if there is no room.
    pub fn push(&mut self, word: &[u8], count: u64) -> bool {
        debug_assert!(word.len() > 1);
        self.symbols.extend(word.iter().map(|&byte| S::of(TokenId::from(byte))));
        self.symbols.push(S::SENTINEL);
        self.classes.extend(self.symbols.len(), count);
        self.symbols.len() < MAX_SLOTS
    }

    /// Merges a pair wherever it still stands, leftmost first, and gathers who the neighbours are.
    pub fn apply(&mut self, list: List, join: Join) {
        let Join { a_slots, b_slots, .. } = join;
        let (a, b, c) = (S::of(join.a), S::of(join.b), S::of(join.c));
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
                let middle = start + a_slots;
                if symbols[start] != a || symbols[middle - 1] != a || symbols[middle] != b {
                    continue;
                }
                let end = middle + b_slots;
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

    /// Walks once more over the places that [`apply`](Self::apply) has just merged and writes
    /// them to the lists that were made for pairs of the new token. Most merges make no such pair,
    /// and then there is nothing to walk for.
    pub fn fill_lists(&mut self, list: List, join: Join, slots: &[u32]) {
        let c = S::of(join.c);
        let mut end = 0;
        for index in list.start..list.start + list.len {
            let position = self.positions[index as usize];
            let start = position as usize;
            // What lies before `end` is the last slot of the token before.
            if start < end || self.symbols[start] != c {
                continue;
            }
            end = start + join.a_slots + join.b_slots;
            let (x, y) = (self.symbols[start - 1], self.symbols[end]);
            if x == c {
                let before = position - slots[join.c as usize];
                self.double.note(before, &mut self.positions);
            } else if x != S::SENTINEL {
                let before = position - slots[x.id() as usize];
                self.left.neighbours[x.id() as usize].note(before, &mut self.positions);
            }
            if y != c && y != S::SENTINEL {
                self.right.neighbours[y.id() as usize].note(position, &mut self.positions);
            }
        }
    }

    /// Forgets the neighbours of the last merge.
    pub fn clear_neighbours(&mut self) {
        self.left.clear();
        self.right.clear();
        self.double = Neighbour::default();
    }

    /// A new list for `len` positions that are still to be written.
    pub fn reserve_list(&mut self, len: u32) -> List {
        let start = self.positions.len();
        self.positions.resize(start + len as usize, 0);
        List { start: start as u32, len }
    }

    /// Moves every token to a single slot and drops words that have become one token. Positions
    /// from before mean nothing afterwards; `slots` was every token's length until now.
    ///
    /// # Errors
    /// `progress` says stop; the shard is of no use then.
    #[inline(never)]
    pub fn compact(&mut self, slots: &[u32], progress: &Progress) -> Result<()> {
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
                    from += slots[token.id() as usize] as usize;
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
        self.classes = classes;
        self.positions.clear();
        Ok(())
    }
}

/// Stretches of slots whose words all have the same count.
#[derive(Default)]
pub struct Classes {
    ends: Vec<u32>,
    counts: Vec<u64>,
}

impl Classes {
    /// All slots from the last class's end up to `end` belong to words of this count.
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

    pub fn cursor(&self) -> ClassCursor<'_> {
        ClassCursor { classes: self, class: 0 }
    }

    /// How often any two symbols stand side by side, nearly: sentinels are taken for symbols.
    pub fn total_count(&self) -> u64 {
        self.iter().fold(0, |sum: u64, (start, end, count)| {
            sum.saturating_add(count.saturating_mul((end - start) as u64))
        })
    }

    /// (first slot, slot behind the last, count) of each class.
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize, u64)> {
        let starts = std::iter::once(1).chain(self.ends.iter().map(|&end| end as usize));
        let ends = self.ends.iter().map(|&end| end as usize);
        starts.zip(ends).zip(&self.counts).map(|((start, end), &count)| (start, end, count))
    }
}

/// Answers for ascending positions.
pub struct ClassCursor<'c> {
    classes: &'c Classes,
    class: usize,
}

impl ClassCursor<'_> {
    #[inline]
    fn count_at(&mut self, position: u32) -> u64 {
        let ends = &self.classes.ends[..];
        if ends[self.class] <= position {
            // Gallop: what comes next is mostly near, and never behind.
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

/// Who stands beside the places where a pair was merged: sums in an array indexed by token, so
/// that a hash table is touched once per distinct neighbour, not once per occurrence.
#[derive(Default)]
pub struct Gather {
    pub neighbours: Vec<Neighbour>,
    /// The tokens whose sums are not zero.
    pub touched: Vec<TokenId>,
}

#[derive(Clone, Copy)]
pub struct Neighbour {
    /// How often it stands there: the sum of the words' counts.
    pub count: u64,
    /// At how many places.
    pub places: u32,
    /// Where the next of its positions goes, or [`NO_LIST`].
    pub cursor: u32,
}

impl Gather {
    #[inline]
    fn add(&mut self, token: TokenId, count: u64) {
        let neighbour = &mut self.neighbours[token as usize];
        if neighbour.places == 0 {
            self.touched.push(token);
        }
        neighbour.add(count);
    }

    fn clear(&mut self) {
        for token in self.touched.drain(..) {
            self.neighbours[token as usize] = Neighbour::default();
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
