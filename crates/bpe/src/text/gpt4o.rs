//! GPT-4o's pattern (o200k_base) by hand, with U for `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]` and l for
//! `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`:
//!
//! ```text
//! [^\r\n\p{L}\p{N}]?U*l+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//! |[^\r\n\p{L}\p{N}]?U+l*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//! |\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//!
//! A word is upper case and then lower case, with one character of another kind before it and a
//! contraction after it. Letters without case, and marks, are both; where upper case follows them
//! and no lower case follows that, the word ends at the last of them. To the other parts of the
//! pattern marks are not letters: alone they are "other".
//!
//! [`Tekken`] is the same with one digit a pretoken and without contractions.

use std::marker::PhantomData;

use super::block::Block;
use super::classes::{self, Classes, MARK};
use super::gpt4::{SpaceRun, contraction_len, digits_end, line_end_end, run_end};
use super::window::{Boundaries, Kinds, Lanes, Scanner};

const UPPER: u8 = 1;
const LOWER: u8 = 2;
/// Letters without case, and marks after letters.
const BOTH: u8 = 4;
const NUMBER: u8 = 8;
/// Neither letter, number nor white space.
const OTHER: u8 = 16;
const SPACE: u8 = 32;
/// U+0020, with [`SPACE`]: joins others after it. With [`OTHER`]: the apostrophe.
const JOINS: u8 = 64;
/// As in [`super::gpt4`]: with [`SPACE`], a line end.
const LONE: u8 = 128;

const WORD: u8 = UPPER | LOWER | BOTH;

/// In what the patterns of this family differ.
pub trait Rules {
    /// How many digits a pretoken holds at most: 1 or 3.
    const MAX_DIGITS: usize;
    /// Whether a word takes the contraction after it.
    const CONTRACTIONS: bool;
}

/// o200k_base, also Llama 4's and Phi-4-mini's.
pub struct O200k;

impl Rules for O200k {
    const MAX_DIGITS: usize = 3;
    const CONTRACTIONS: bool = true;
}

/// Mistral's from Nemo on.
pub struct Tekken;

impl Rules for Tekken {
    const MAX_DIGITS: usize = 1;
    const CONTRACTIONS: bool = false;
}

/// The scanner of a pattern of this family.
pub struct Gpt4o<R>(PhantomData<R>);

impl<R: Rules> Scanner for Gpt4o<R> {
    #[inline(always)]
    fn ascii_kinds(block: &Block, high: u64) -> Kinds {
        let (lower, upper) = (block.within(b'a', b'z'), block.within(b'A', b'Z'));
        let (numbers, spaces) = (block.digits(), block.spaces());
        let apostrophes = if R::CONTRACTIONS { block.equal(b'\'') } else { 0 };
        Kinds::new([
            (LOWER, lower),
            (UPPER, upper),
            (NUMBER, numbers),
            (SPACE, spaces),
            (OTHER, !(lower | upper | numbers | spaces | high)),
            (JOINS, block.equal(b' ') | apostrophes),
            (LONE, block.newlines()),
        ])
    }

    #[inline(always)]
    fn wide_kind(class: u8, last: u8) -> (u8, bool) {
        match class {
            classes::CASELESS => (BOTH, false),
            classes::LOWER => (LOWER, false),
            classes::UPPER => (UPPER, false),
            classes::MARK => (BOTH, last & WORD == 0),
            classes::BLANK | classes::NEWLINE => (SPACE, true),
            // As in `gpt4`.
            classes::NUMBER => (NUMBER, R::MAX_DIGITS == 1),
            _ if last & (OTHER | JOINS) != 0 => (OTHER, false),
            _ => (OTHER | LONE, false),
        }
    }

    #[inline(always)]
    fn boundaries(lanes: &Lanes) -> Boundaries {
        let Lanes { before_last, last, this, next } = lanes;
        let word = |kinds: &Kinds| kinds.of(UPPER) | kinds.of(LOWER) | kinds.of(BOTH);
        let newline = this.of(SPACE) & this.of(LONE);
        let after_newline = last.of(SPACE) & last.of(LONE);
        let taken = before_last.of(OTHER) | before_last.of(JOINS);
        let after_run = last.of(OTHER) & !last.of(LONE) & taken;
        let new_word = word(this) & (last.of(NUMBER) | after_newline | after_run);
        let hump = this.of(UPPER) & last.of(LOWER);
        let number = match R::MAX_DIGITS {
            1 => this.of(NUMBER),
            _ => this.of(NUMBER) & !last.of(NUMBER),
        };
        let suffix = this.of(OTHER) & this.of(JOINS) & word(last) & word(next);
        let other = this.of(OTHER) & !(last.of(OTHER) | last.of(JOINS) | suffix);
        let line_end = newline & !(last.of(SPACE) | last.of(OTHER));
        let space = this.of(SPACE) & !newline & !(last.of(SPACE) & next.of(SPACE));
        let many_digits = match R::MAX_DIGITS {
            1 => 0,
            _ => before_last.of(NUMBER) & last.of(NUMBER) & this.of(NUMBER) & next.of(NUMBER),
        };
        let upper_after_both = this.of(UPPER) & last.of(BOTH);
        // A line end alone is a pretoken, or the end of one of others, which a slash prolongs.
        let slash = last.of(OTHER) & next.of(OTHER);
        let unsure_newline = newline & (last.of(SPACE) | next.of(SPACE) | slash);
        Boundaries {
            start: new_word | hump | number | other | line_end | space,
            unsure: suffix | many_digits | upper_after_both | unsure_newline,
        }
    }

    #[inline]
    fn resolve(text: &[u8], at: usize, last: u8) -> Option<usize> {
        match text[at] {
            b'\'' => match contraction_len(&text[at + 1..]) {
                0 => Some(at),
                // An apostrophe after it does not start a second suffix.
                len => Some(at + 1 + len).filter(|&end| text.get(end) != Some(&b'\'')),
            },
            b'\r' | b'\n' if last & SPACE == 0 => line_end_end(text, at, last & OTHER != 0),
            _ => None,
        }
    }

    #[inline(always)]
    fn pretoken_end(classes: &Classes, text: &[u8], start: usize) -> usize {
        pretoken_end::<R>(classes, text, start)
    }
}

const WORD_CLASSES: u8 = classes::LETTER | MARK;
const OTHER_CLASSES: u8 = !(classes::LETTER | classes::NUMBER | classes::SPACE);

fn pretoken_end<R: Rules>(classes: &Classes, text: &[u8], start: usize) -> usize {
    let (class, len) = classes.at(text, start);
    let at = start + len;
    // A mark at the start may be the one character before the word or its first: all the same.
    if class & WORD_CLASSES != 0 {
        return word_end::<R>(classes, text, start);
    }
    if class & classes::NUMBER != 0 {
        return digits_end(classes, text, at, R::MAX_DIGITS);
    }
    let next = if at < text.len() { classes.at(text, at).0 } else { classes::SPACE };
    if class != classes::NEWLINE && next & WORD_CLASSES != 0 {
        return word_end::<R>(classes, text, at);
    }
    let joins = text[start] == b' ' && next & OTHER_CLASSES != 0;
    if class & OTHER_CLASSES != 0 || joins {
        let end = run_end(classes, text, at, OTHER_CLASSES);
        let tail = text[end..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n' | b'/'));
        return end + tail.count();
    }
    let run = SpaceRun::at(classes, text, start);
    match run.newline_end {
        None if run.end == text.len() => run.end,
        _ => run.end_before_others(start),
    }
}

/// `U*l+` or else `U+l*`, and the contraction after it, where a letter or mark is at `start`.
fn word_end<R: Rules>(classes: &Classes, text: &[u8], start: usize) -> usize {
    // U*, and the end of the last character in it that could be l as well.
    let (mut at, mut both_end) = (start, None);
    let mut class = classes::OTHER;
    while at < text.len() {
        let len;
        (class, len) = classes.at(text, at);
        if class & (WORD_CLASSES & !classes::LOWER) == 0 {
            break;
        }
        at += len;
        if class != classes::UPPER {
            both_end = Some(at);
        }
    }
    let end = if at < text.len() && class == classes::LOWER {
        run_end(classes, text, at, WORD_CLASSES & !classes::UPPER)
    } else {
        both_end.unwrap_or(at)
    };
    let suffix = match text[end..].split_first() {
        Some((b'\'', rest)) if R::CONTRACTIONS => contraction_len(rest),
        _ => 0,
    };
    if suffix > 0 { end + 1 + suffix } else { end }
}

/// As for GPT-4, but an apostrophe may go on after letters, marks may be part of a word or other,
/// and a slash may follow a line end.
pub fn is_certain_boundary(text: &[u8], at: usize) -> bool {
    let classes = Classes::get();
    let Some(right) = classes.after(text, at) else { return false };
    let Some((left, place)) = classes.before(text, at) else { return false };
    if left & classes::LETTER != 0 {
        return right & WORD_CLASSES == 0 && text[at] != b'\'';
    }
    if left & classes::NUMBER != 0 {
        return right & classes::NUMBER == 0;
    }
    if left & classes::SPACE != 0 {
        return left == classes::NEWLINE && right & classes::SPACE == 0 && text[at] != b'/';
    }
    if right & WORD_CLASSES != 0 {
        let two_others = left == classes::OTHER
            && text[place] != b'/'
            && classes
                .before(text, place)
                .is_some_and(|(class, first)| class == classes::OTHER && text[first] != b'/');
        return two_others && right != MARK;
    }
    right == classes::BLANK || right & classes::NUMBER != 0
}
