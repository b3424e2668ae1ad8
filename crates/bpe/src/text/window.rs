//! The engine of the scanners: where pretokens start, for 64 bytes at once.
//!
//! Each byte gets its kind (letter, number, ...: bits that the pattern's [`Scanner`] chooses), and
//! whether a pretoken starts there is a function of the kinds of that byte and its neighbours,
//! written without branches so that the compiler makes vector instructions of it. What comes out
//! is a bit mask, and the loop over its bits is all the branching there is: on English text a
//! scanner that branches on every word waits for mispredictions more than half of its time.
//!
//! What the neighbours do not decide (a contraction, a line's end in the later patterns, four
//! digits in a row) is marked as *unsure*. If a closer look at the text does not decide it, the
//! pattern's plain scanner takes one step from the last start before such a place, and the window
//! starts afresh after it. Where much of a window is not ASCII, the plain scanner takes all of it.
//! That is sound because a pattern has no memory: what follows a pretoken does not depend on what
//! precedes its end.

use super::classes::Classes;
use super::visitor::Visitor;

/// How many bytes are looked at together: one for each bit of a mask.
const WIDTH: usize = 64;

/// With this many bytes in a window that are not ASCII, the plain scanner is faster.
const MANY_WIDE: u32 = 20;

/// A byte and its neighbours, as kinds; 0 is the kind of what lies before the place where the
/// window started afresh.
#[derive(Clone, Copy)]
pub struct Lane {
    /// The kind of the byte before the last.
    pub before_last: u8,
    /// The kind of the byte before this one.
    pub last: u8,
    /// The kind of the byte itself.
    pub this: u8,
    /// The kind of the byte after it.
    pub next: u8,
}

/// What a scanner says about one lane.
#[derive(Clone, Copy)]
pub struct Boundary {
    /// 1: a pretoken starts here.
    pub start: u8,
    /// 1: the neighbours do not decide what happens here or right after. `start` must still be
    /// right here, or 0.
    pub unsure: u8,
}

/// All bits of `kind` or none: with `|` between them, a choice without a branch.
#[inline(always)]
pub fn kind_if(condition: bool, kind: u8) -> u8 {
    u8::from(condition).wrapping_neg() & kind
}

/// 1 if `kind` has the bit `of`, 0 if not. Shifts and masks stay in the byte's lane, where
/// comparisons, combined, make the compiler widen it.
#[inline(always)]
pub fn has(kind: u8, of: u8) -> u8 {
    (kind >> of.trailing_zeros()) & 1
}

/// A pattern's scanner: what the window asks about kinds, and the plain scanner beside it.
pub trait Scanner {
    /// The kind of an ASCII character. No branches, no tables.
    fn ascii_kind(byte: u8) -> u8;

    /// The kind that all bytes of another character get, of this class and after a byte of kind
    /// `last`; and whether it is unsure.
    fn wide_kind(class: u8, last: u8) -> (u8, bool);

    /// Whether a pretoken starts at the lane. No branches, no tables.
    fn boundary(lane: Lane) -> Boundary;

    /// A closer look at an unsure place, after a byte of kind `last`: `Some(end)` if a pretoken
    /// starts at `end` (`at` or later), none between the two, and all other lanes are right.
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
            let high = high_bits(block);
            if high.count_ones() < MANY_WIDE {
                let (mut starts, unsure) = window.starts::<S>(classes, text, at, block, high);
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

/// The kinds of two bytes before the window and of the window, with space for a character that
/// begins at its end.
struct Window {
    kinds: [u8; 2 + WIDTH + 4],
    passed: usize,
}

impl Default for Window {
    fn default() -> Self {
        Window { kinds: [0; 2 + WIDTH + 4], passed: 0 }
    }
}

impl Window {
    fn restart(&mut self) {
        self.passed = 0;
        self.kinds[..2].fill(0);
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
        block: &[u8; WIDTH],
        high: u64,
    ) -> (u64, bool) {
        self.kinds.copy_within(self.passed..self.passed + 2, 0);
        for (kind, &byte) in self.kinds[2..].iter_mut().zip(block) {
            *kind = S::ascii_kind(byte);
        }
        self.passed = WIDTH - 1;
        let wide_unsure = if high != 0 { self.widen::<S>(classes, text, at, high) } else { 0 };

        let kinds = &self.kinds;
        let lane = |i: usize| Lane {
            before_last: kinds[i],
            last: kinds[i + 1],
            this: kinds[i + 2],
            next: kinds[i + 3],
        };
        let (mut starts, mut unsure) = ([0; WIDTH], [0; WIDTH]);
        // Two loops: in one, the compiler widens the lanes, and the code is half as fast.
        for (i, start) in starts.iter_mut().enumerate() {
            *start = S::boundary(lane(i)).start;
        }
        for (i, lane_unsure) in unsure.iter_mut().enumerate() {
            *lane_unsure = S::boundary(lane(i)).unsure;
        }
        let passed = (1 << self.passed) - 1;
        let mut starts = gather(&starts) & !wide_unsure & passed;
        let mut unsure = (gather(&unsure) | wide_unsure) & passed;
        while unsure != 0 {
            let i = unsure.trailing_zeros() as usize;
            let resolved = match wide_unsure >> i & 1 {
                0 => S::resolve(text, at + i, self.kinds[i + 1]),
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
        classes: &Classes,
        text: &[u8],
        at: usize,
        mut left: u64,
    ) -> u64 {
        let mut unsure = 0;
        while left != 0 {
            let i = left.trailing_zeros() as usize % WIDTH;
            let (class, len) = classes.wide_at(text, at + i);
            let (kind, is_unsure) = S::wide_kind(class, self.kinds[i + 1]);
            unsure |= u64::from(is_unsure) << i;
            // Written out: a loop would become a call, for these two or three bytes.
            self.kinds[i + 2] = kind;
            if len >= 2 {
                self.kinds[i + 3] = kind;
            }
            if len >= 3 {
                self.kinds[i + 4] = kind;
            }
            if len >= 4 {
                self.kinds[i + 5] = kind;
            }
            if i + len >= WIDTH {
                self.passed = i;
                break;
            }
            left &= u64::MAX << (i + len);
        }
        unsure
    }
}

/// One bit for each byte that is not ASCII.
#[inline(always)]
fn high_bits(block: &[u8; WIDTH]) -> u64 {
    let all = block.iter().fold(0, |all, byte| all | byte);
    if all < 0x80 { 0 } else { gather(&block.map(|byte| byte >> 7)) }
}

/// One bit for each byte, which must be 0 or 1: the first byte's is the lowest.
#[inline(always)]
fn gather(bytes: &[u8; WIDTH]) -> u64 {
    let mut mask = 0;
    for (place, lanes) in bytes.as_chunks::<8>().0.iter().enumerate() {
        // The factor moves the bit of lane k to bit 56 + k; no two land on the same place.
        let top = u64::from_le_bytes(*lanes).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= top << (8 * place);
    }
    mask
}
