//! GPT-4's pattern (cl100k_base) by hand:
//!
//! ```text
//! '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+
//! |\s++$|\s*[\r\n]|\s+(?!\S)|\s
//! ```
//!
//! A pretoken is a contraction; letters with one character of another kind before them; up to
//! three digits; others with one space before and line ends after them; or white space: what ends
//! the text, up to the last line end, all but the last character, or one character.
//!
//! Most patterns that came later are this one with other [`Rules`]: how many digits are a pretoken,
//! whether marks are letters, whether white space that ends the text stops at its last line end.

use std::marker::PhantomData;

use super::ascii;
use super::block::Block;
use super::classes::{self, Classes};
use super::window::{Boundaries, Kinds, Lanes, Scanner};

/// In what the patterns of this family differ.
pub trait Rules {
    /// How many digits a pretoken holds at most: 1 to 3.
    const MAX_DIGITS: usize;
    /// The classes that a word is made of.
    const LETTERS: u8;
    /// Whether white space at the end of the text is one pretoken (`\s++$`), or only what follows
    /// its last line end.
    const WHOLE_END: bool;
}

/// cl100k_base as tiktoken has it today.
pub struct Cl100k;

impl Rules for Cl100k {
    const MAX_DIGITS: usize = 3;
    const LETTERS: u8 = classes::LETTER;
    const WHOLE_END: bool = true;
}

/// Llama 3's, which is what cl100k_base was; also rustbpe's, Phi-4's, GLM-4's and OLMo 2's.
pub struct Llama3;

impl Rules for Llama3 {
    const MAX_DIGITS: usize = 3;
    const LETTERS: u8 = classes::LETTER;
    const WHOLE_END: bool = false;
}

/// Llama 3's with one digit a pretoken: Qwen's, from 2 to 3.
pub struct Qwen2;

impl Rules for Qwen2 {
    const MAX_DIGITS: usize = 1;
    const LETTERS: u8 = classes::LETTER;
    const WHOLE_END: bool = false;
}

/// Qwen 2's with marks as letters: Qwen's from 3.5 on.
pub struct Qwen35;

impl Rules for Qwen35 {
    const MAX_DIGITS: usize = 1;
    const LETTERS: u8 = classes::LETTER | classes::MARK;
    const WHOLE_END: bool = false;
}

/// Llama 3's with two digits a pretoken.
pub struct Nanochat;

impl Rules for Nanochat {
    const MAX_DIGITS: usize = 2;
    const LETTERS: u8 = classes::LETTER;
    const WHOLE_END: bool = false;
}

const LETTER: u8 = 1;
const NUMBER: u8 = 2;
/// Neither letter, number nor white space.
const OTHER: u8 = 4;
const SPACE: u8 = 8;
/// U+0020, with [`SPACE`]: joins others after it. With [`OTHER`]: the apostrophe.
const JOINS: u8 = 16;
/// With [`OTHER`]: a character of several bytes that can be the one before letters, for it follows
/// neither another of its kind nor a space that would take it. With [`SPACE`]: a line end.
const LONE: u8 = 32;

/// The scanner of a pattern of this family.
pub struct Gpt4<R>(PhantomData<R>);

impl<R: Rules> Scanner for Gpt4<R> {
    #[inline(always)]
    fn ascii_kinds(block: &Block, high: u64) -> Kinds {
        let (letters, numbers, spaces) = (block.letters(), block.digits(), block.spaces());
        Kinds::new([
            (LETTER, letters),
            (NUMBER, numbers),
            (SPACE, spaces),
            (OTHER, !(letters | numbers | spaces | high)),
            (JOINS, block.equal(b' ') | block.equal(b'\'')),
            (LONE, block.newlines()),
        ])
    }

    #[inline(always)]
    fn wide_kind(class: u8, last: u8) -> (u8, bool) {
        if class & R::LETTERS != 0 {
            (LETTER, false)
        } else if class & classes::SPACE != 0 {
            (SPACE, true)
        } else if class & classes::NUMBER != 0 {
            // A digit alone starts at its first byte, which a kind of all its bytes cannot say.
            (NUMBER, R::MAX_DIGITS == 1)
        } else if last & (OTHER | JOINS) != 0 {
            (OTHER, false)
        } else {
            (OTHER | LONE, false)
        }
    }

    #[inline(always)]
    fn boundaries(lanes: &Lanes) -> Boundaries {
        let Lanes { before_last, last, this, next } = lanes;
        let newline = this.of(SPACE) & this.of(LONE);
        let after_newline = last.of(SPACE) & last.of(LONE);
        let taken = before_last.of(OTHER) | before_last.of(JOINS);
        let after_run = last.of(OTHER) & !last.of(LONE) & taken;
        let letter = this.of(LETTER) & (last.of(NUMBER) | after_newline | after_run);
        let number = match R::MAX_DIGITS {
            1 => this.of(NUMBER),
            _ => this.of(NUMBER) & !last.of(NUMBER),
        };
        let other = this.of(OTHER) & !(last.of(OTHER) | last.of(JOINS));
        let line_end = newline & !(last.of(SPACE) | last.of(OTHER));
        let space = this.of(SPACE) & !newline & !(last.of(SPACE) & next.of(SPACE));
        // A line end alone is a pretoken, or the end of one of others.
        let unsure_newline = newline & (last.of(SPACE) | next.of(SPACE));
        let contraction = other & this.of(JOINS) & next.of(LETTER);
        let many_digits = match R::MAX_DIGITS {
            1 => 0,
            2 => last.of(NUMBER) & this.of(NUMBER) & next.of(NUMBER),
            _ => before_last.of(NUMBER) & last.of(NUMBER) & this.of(NUMBER) & next.of(NUMBER),
        };
        Boundaries {
            start: letter | number | other | line_end | space,
            unsure: unsure_newline | contraction | many_digits,
        }
    }

    #[inline]
    fn resolve(text: &[u8], at: usize, last: u8) -> Option<usize> {
        match text[at] {
            b'\'' => match contraction_len(&text[at + 1..]) {
                0 => Some(at),
                len => Some(at + 1 + len),
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

fn pretoken_end<R: Rules>(classes: &Classes, text: &[u8], start: usize) -> usize {
    let (class, len) = classes.at(text, start);
    let at = start + len;
    if class & R::LETTERS != 0 {
        return run_end(classes, text, ascii::letters_end(text, at), R::LETTERS);
    }
    if class & classes::NUMBER != 0 {
        return digits_end(classes, text, at, R::MAX_DIGITS);
    }
    if text[start] == b'\'' {
        let contraction = contraction_len(&text[at..]);
        if contraction > 0 {
            return at + contraction;
        }
    }
    let next = if at < text.len() { classes.at(text, at).0 } else { classes::SPACE };
    if class != classes::NEWLINE && next & R::LETTERS != 0 {
        return run_end(classes, text, ascii::letters_end(text, at), R::LETTERS);
    }
    let others = !(R::LETTERS | classes::NUMBER | classes::SPACE);
    let joins = text[start] == b' ' && next & others != 0;
    if class & others != 0 || joins {
        return newlines_end(text, run_end(classes, text, at, others));
    }
    let run = SpaceRun::at(classes, text, start);
    let whole = run.end == text.len() && (R::WHOLE_END || run.newline_end.is_none());
    if whole { run.end } else { run.end_before_others(start) }
}

/// The end of a run of characters of `set`, which goes on at `at`.
#[inline(always)]
pub fn run_end(classes: &Classes, text: &[u8], mut at: usize, set: u8) -> usize {
    while at < text.len() {
        let (class, len) = classes.at(text, at);
        if class & set == 0 {
            break;
        }
        at += len;
    }
    at
}

/// The end of up to `max` digits, of which the first ends at `at`.
#[inline(always)]
pub fn digits_end(classes: &Classes, text: &[u8], mut at: usize, max: usize) -> usize {
    for _ in 1..max {
        match text.get(at).map(|_| classes.at(text, at)) {
            Some((class, len)) if class & classes::NUMBER != 0 => at += len,
            _ => break,
        }
    }
    at
}

fn newlines_end(text: &[u8], at: usize) -> usize {
    let newlines = text[at..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    at + newlines.count()
}

/// White space up to the next character of another kind.
pub struct SpaceRun {
    pub end: usize,
    /// Where the run's last character starts.
    last: usize,
    /// The end of the last `\r` or `\n` in the run, if there is one.
    pub newline_end: Option<usize>,
}

impl SpaceRun {
    pub fn at(classes: &Classes, text: &[u8], start: usize) -> SpaceRun {
        let mut run = SpaceRun { end: start, last: start, newline_end: None };
        while run.end < text.len() {
            let (class, len) = classes.at(text, run.end);
            if class & classes::SPACE == 0 {
                break;
            }
            run.last = run.end;
            run.end += len;
            if class == classes::NEWLINE {
                run.newline_end = Some(run.end);
            }
        }
        run
    }

    /// Where the pretoken that starts with the run ends, if something follows the run.
    pub fn end_before_others(&self, start: usize) -> usize {
        match self.newline_end {
            Some(end) => end,
            None if self.last > start => self.last,
            None => self.end,
        }
    }
}

/// Where the pretoken ends that the line end at `at` is part of, if ASCII decides it: `[\r\n]*`
/// after others, else `\s*[\r\n]`, with something after it.
pub fn line_end_end(text: &[u8], at: usize, after_others: bool) -> Option<usize> {
    let mut end = at;
    for (place, &byte) in text.iter().enumerate().skip(at) {
        match byte {
            b'\r' | b'\n' => end = place + 1,
            _ if after_others => return (byte != b'/' && byte < 0x80).then_some(end),
            b' ' | b'\t' => {}
            b'!'..=b'~' => return Some(end),
            _ => return None,
        }
    }
    None
}

/// How much of `rest`, which follows an apostrophe, `(?i:[sdmt]|ll|ve|re)` matches. To a regular
/// expression that ignores case, U+017F (long s) is an s.
pub fn contraction_len(rest: &[u8]) -> usize {
    match rest {
        [b's' | b'S' | b'd' | b'D' | b'm' | b'M' | b't' | b'T', ..] => 1,
        [b'l' | b'L', b'l' | b'L', ..] => 2,
        [b'v' | b'V' | b'r' | b'R', b'e' | b'E', ..] => 2,
        [0xC5, 0xBF, ..] => 2,
        _ => 0,
    }
}

/// Nothing joins letters or digits to a different kind after them, a line end to anything but white
/// space, or others to digits and blanks; others join letters (the classes of `letters`) only one at
/// a time.
pub fn is_certain_boundary(text: &[u8], at: usize, letters: u8) -> bool {
    let classes = Classes::get();
    let Some(right) = classes.after(text, at) else { return false };
    let Some((left, place)) = classes.before(text, at) else { return false };
    if left & letters != 0 {
        return right & letters == 0;
    }
    if left & classes::NUMBER != 0 {
        return right & classes::NUMBER == 0;
    }
    if left & classes::SPACE != 0 {
        return left == classes::NEWLINE && right & classes::SPACE == 0;
    }
    if right & letters != 0 {
        let others = !(letters | classes::NUMBER | classes::SPACE);
        return classes.before(text, place).is_some_and(|(class, _)| class & others != 0);
    }
    right == classes::BLANK || right & classes::NUMBER != 0
}
