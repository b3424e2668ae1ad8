//! The engine of the scanners: where pretokens start, for 64 bytes at once.
//!
//! Each byte is of some kinds (letter, number, ...: bits that the pattern's [`Scanner`] chooses). A
//! kind of 64 bytes is one mask, and whether a pretoken starts at a byte is a function of the kinds
//! of that byte and its neighbours: a few operations on masks, on 64 bytes each. What comes out is a
//! mask, and the loop over its bits is all the branching there is: on English text a scanner that
//! branches on every word waits for mispredictions more than half of its time.
//!
//! What the neighbours do not decide (a contraction, a line's end in the later patterns, four
//! digits in a row) is marked as *unsure*. If a closer look at the text does not decide it, the
//! pattern's plain scanner takes one step from the last start before such a place, and the window
//! starts afresh after it. Where much of a window is not ASCII, the plain scanner takes all of it.
//! That is sound because a pattern has no memory: what follows a pretoken does not depend on what
//! precedes its end.

use super::block::{Block, WIDTH};
use super::classes::Classes;
use super::visitor::Visitor;

/// With this many bytes in a window that are not ASCII, the plain scanner is faster.
const MANY_WIDE: u32 = 20;

/// For each kind, which bytes are of it. A kind is one bit; several in a byte are several kinds.
#[derive(Clone, Copy, Default)]
pub struct Kinds([u64; 8]);

impl Kinds {
    /// The kinds, each with its mask.
    #[inline(always)]
    pub fn new<const N: usize>(masks: [(u8, u64); N]) -> Self {
        let mut kinds = Self::default();
        for (kind, mask) in masks {
            kinds.0[kind.trailing_zeros() as usize] = mask;
        }
        kinds
    }

    /// Which bytes are of `kind`.
    #[inline(always)]
    pub fn of(&self, kind: u8) -> u64 {
        self.0[kind.trailing_zeros() as usize]
    }

    /// The kinds of one byte.
    #[inline(always)]
    fn at(&self, place: usize) -> u8 {
        let bit = |(i, mask): (usize, &u64)| ((mask >> place & 1) as u8) << i;
        self.0.iter().enumerate().map(bit).fold(0, |kind, bit| kind | bit)
    }

    /// Adds `kind` to the bytes of `places`.
    #[inline(always)]
    fn add(&mut self, kind: u8, places: u64) {
        for (i, mask) in self.0.iter_mut().enumerate() {
            *mask |= places & u64::from(kind >> i & 1).wrapping_neg();
        }
    }

    /// Of each byte, the kinds of the `distance`-th byte before it; `before` ends where these begin.
    #[inline(always)]
    fn moved_up(&self, distance: u32, before: &Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] << distance | before.0[i] >> (u64::BITS - distance)))
    }

    /// Of each byte, the kinds of the next one. Nothing is known of what follows the last.
    #[inline(always)]
    fn moved_down(&self) -> Self {
        Self(self.0.map(|mask| mask >> 1))
    }

    /// The first `len` bytes, moved to the end.
    #[inline(always)]
    fn first(&self, len: usize) -> Self {
        Self(self.0.map(|mask| mask << (WIDTH - len)))
    }
}

/// The bytes of a window and their neighbours. What lies before the place where the window started
/// afresh is of no kind.
#[derive(Clone, Copy)]
pub struct Lanes {
    /// The kinds of the byte before the last.
    pub before_last: Kinds,
    /// The kinds of the byte before each.
    pub last: Kinds,
    /// The kinds of each byte itself.
    pub this: Kinds,
    /// The kinds of the byte after each.
    pub next: Kinds,
}

/// What a scanner says about the bytes of a window.
#[derive(Clone, Copy)]
pub struct Boundaries {
    /// Where a pretoken starts.
    pub start: u64,
    /// Where the neighbours do not decide what happens here or right after. `start` must still be
    /// right here, or 0.
    pub unsure: u64,
}

/// A pattern's scanner: what the window asks about kinds, and the plain scanner beside it.
pub trait Scanner {
    /// The kinds of the ASCII characters of a block; those of the others, `high`, are none.
    fn ascii_kinds(block: &Block, high: u64) -> Kinds;

    /// The kinds that all bytes of another character get, of this class and after a byte of kinds
    /// `last`; and whether it is unsure.
    fn wide_kind(class: u8, last: u8) -> (u8, bool);

    /// Where pretokens start.
    fn boundaries(lanes: &Lanes) -> Boundaries;

    /// A closer look at an unsure place, after a byte of kinds `last`: `Some(end)` if a pretoken
    /// starts at `end` (`at` or later), none between the two, and all other places are right.
    fn resolve(text: &[u8], at: usize, last: u8) -> Option<usize>;

    /// The plain scanner: where the pretoken ends that starts at `start`, below `text.len()`.
    fn pretoken_end(classes: &Classes, text: &[u8], start: usize) -> usize;
}

/// Calls `visitor` with each pretoken of `text` in order.
#[inline]
pub fn scan<S: Scanner>(text: &[u8], visitor: &mut impl Visitor) {
    let classes = Classes::get();
    let mut window = Window::default();
    // The pretoken at hand starts at `start`; the window has passed `at`.
    let (mut start, mut at) = (0, 0);
    while start < text.len() {
        // How far the plain scanner goes when it is its turn, and whether the visitor may consume
        // text before it.
        let (mut plain_to, mut may_consume) = (text.len(), true);
        if let Some(block) = text.get(at..).and_then(|rest| rest.first_chunk::<WIDTH>()) {
            let block = Block::new(block);
            let high = block.high();
            if high.count_ones() < MANY_WIDE {
                let (mut starts, unsure) = window.starts::<S>(classes, text, at, &block, high);
                if start == at {
                    starts &= !1;
                }
                let base = at;
                while starts != 0 {
                    let end = base + starts.trailing_zeros() as usize;
                    starts &= starts - 1;
                    visitor.pretoken(start, end);
                    start = end;
                }
                if !unsure {
                    at += window.passed;
                    continue;
                }
                (plain_to, may_consume) = (start + 1, false);
            } else {
                plain_to = at + WIDTH;
            }
        }
        while start < plain_to {
            if may_consume {
                start = visitor.consume(start);
            }
            let end = S::pretoken_end(classes, text, start);
            visitor.pretoken(start, end);
            start = end;
        }
        at = start;
        window.restart();
    }
}

/// What is kept from one window to the next.
#[derive(Default)]
struct Window {
    /// The kinds of the bytes before the window, which end with the highest bits.
    before: Kinds,
    /// How many bytes the last window has passed.
    passed: usize,
}

impl Window {
    fn restart(&mut self) {
        *self = Self::default();
    }

    /// Where pretokens start in `text[at..at + 64]`, which is `block`, as far as that is sure; and
    /// whether something is unsure after the last of them. The bits of `high` are the bytes that
    /// are not ASCII. The window's last character only serves as a neighbour: the next window
    /// begins with it.
    #[inline(always)]
    fn starts<S: Scanner>(
        &mut self,
        classes: &Classes,
        text: &[u8],
        at: usize,
        block: &Block,
        high: u64,
    ) -> (u64, bool) {
        let mut kinds = S::ascii_kinds(block, high);
        self.passed = WIDTH - 1;
        let wide_unsure =
            if high != 0 { self.widen::<S>(&mut kinds, classes, text, at, high) } else { 0 };

        let last = kinds.moved_up(1, &self.before);
        let lanes = Lanes {
            before_last: kinds.moved_up(2, &self.before),
            last,
            this: kinds,
            next: kinds.moved_down(),
        };
        self.before = kinds.first(self.passed);
        let Boundaries { start, unsure } = S::boundaries(&lanes);
        let passed = (1 << self.passed) - 1;
        let mut starts = start & !wide_unsure & passed;
        let mut unsure = (unsure | wide_unsure) & passed;
        while unsure != 0 {
            let i = unsure.trailing_zeros() as usize;
            let resolved = match wide_unsure >> i & 1 {
                0 => S::resolve(text, at + i, last.at(i)),
                _ => None,
            };
            let Some(end) = resolved.map(|end| end - at).filter(|end| *end < self.passed) else {
                // Up to this place, it included.
                return (starts & ((2 << i) - 1), true);
            };
            let before_end = (1 << end) - 1;
            starts &= !before_end | ((2 << i) - 1);
            starts |= 1 << end;
            unsure &= !(before_end | 1 << i);
        }
        (starts, false)
    }

    /// Gives the bytes that are not ASCII (`left`) their kinds; returns the unsure places.
    #[inline(always)]
    fn widen<S: Scanner>(
        &mut self,
        kinds: &mut Kinds,
        classes: &Classes,
        text: &[u8],
        at: usize,
        mut left: u64,
    ) -> u64 {
        let mut unsure = 0;
        while left != 0 {
            let i = left.trailing_zeros() as usize % WIDTH;
            let (class, len) = classes.wide_at(text, at + i);
            let (kind, is_unsure) = S::wide_kind(class, kinds.moved_up(1, &self.before).at(i));
            unsure |= u64::from(is_unsure) << i;
            kinds.add(kind, ((1 << len) - 1) << i);
            if i + len >= WIDTH {
                self.passed = i;
                break;
            }
            left &= u64::MAX << (i + len);
        }
        unsure
    }
}
