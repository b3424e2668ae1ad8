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

use super::ascii;
use super::classes::{self, Classes};
use super::window::{Boundary, Lane, Scanner, has, kind_if};

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

/// The scanner of this pattern.
pub struct Gpt4;

impl Scanner for Gpt4 {
    #[inline(always)]
    fn ascii_kind(byte: u8) -> u8 {
        let kind = kind_if(ascii::is_letter(byte), LETTER)
            | kind_if(ascii::is_digit(byte), NUMBER)
            | kind_if(ascii::is_space(byte), SPACE)
            | kind_if(byte == b' ', JOINS)
            | kind_if(ascii::is_newline(byte), LONE)
            | kind_if(byte == b'\'', JOINS | OTHER);
        kind | kind_if(kind == 0, OTHER)
    }

    #[inline(always)]
    fn wide_kind(class: u8, last: u8) -> (u8, bool) {
        if class & classes::LETTER != 0 {
            (LETTER, false)
        } else if class & classes::SPACE != 0 {
            (SPACE, true)
        } else if class & classes::NUMBER != 0 {
            (NUMBER, false)
        } else if last & (OTHER | JOINS) != 0 {
            (OTHER, false)
        } else {
            (OTHER | LONE, false)
        }
    }

    #[inline(always)]
    fn boundary(lane: Lane) -> Boundary {
        let Lane { before_last, last, this, next } = lane;
        let newline = has(this, SPACE) & has(this, LONE);
        let after_newline = has(last, SPACE) & has(last, LONE);
        let taken = has(before_last, OTHER) | has(before_last, JOINS);
        let after_run = has(last, OTHER) & !has(last, LONE) & taken;
        let letter = has(this, LETTER) & (has(last, NUMBER) | after_newline | after_run);
        let number = has(this, NUMBER) & !has(last, NUMBER);
        let other = has(this, OTHER) & !(has(last, OTHER) | has(last, JOINS));
        let line_end = newline & !(has(last, SPACE) | has(last, OTHER));
        let space = has(this, SPACE) & !newline & !(has(last, SPACE) & has(next, SPACE));
        // A line end alone is a pretoken, or the end of one of others.
        let unsure_newline = newline & (has(last, SPACE) | has(next, SPACE));
        let contraction = other & has(this, JOINS) & has(next, LETTER);
        let many_digits = has(before_last & last & this & next, NUMBER);
        Boundary {
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
        pretoken_end(classes, text, start)
    }
}

fn pretoken_end(classes: &Classes, text: &[u8], start: usize) -> usize {
    let (class, len) = classes.at(text, start);
    let at = start + len;
    if class & classes::LETTER != 0 {
        return letters_end(classes, text, at);
    }
    if class & classes::NUMBER != 0 {
        return digits_end(classes, text, at);
    }
    if text[start] == b'\'' {
        let contraction = contraction_len(&text[at..]);
        if contraction > 0 {
            return at + contraction;
        }
    }
    let next = if at < text.len() { classes.at(text, at).0 } else { classes::SPACE };
    if class != classes::NEWLINE && next & classes::LETTER != 0 {
        return letters_end(classes, text, at);
    }
    let joins = text[start] == b' ' && is_other(next);
    if is_other(class) || joins {
        return newlines_end(text, others_end(classes, text, at));
    }
    space_end(classes, text, start)
}

#[inline(always)]
pub fn is_other(class: u8) -> bool {
    class & (classes::LETTER | classes::NUMBER | classes::SPACE) == 0
}

/// The end of a run of letters that goes on at `at`.
fn letters_end(classes: &Classes, text: &[u8], at: usize) -> usize {
    let mut at = ascii::letters_end(text, at);
    while at < text.len() {
        let (class, len) = classes.at(text, at);
        if class & classes::LETTER == 0 {
            break;
        }
        at += len;
    }
    at
}

/// The end of up to three digits, of which the first ends at `at`.
pub fn digits_end(classes: &Classes, text: &[u8], mut at: usize) -> usize {
    for _ in 1..3 {
        match text.get(at).map(|_| classes.at(text, at)) {
            Some((class, len)) if class & classes::NUMBER != 0 => at += len,
            _ => break,
        }
    }
    at
}

/// The end of a run of others that goes on at `at`.
pub fn others_end(classes: &Classes, text: &[u8], mut at: usize) -> usize {
    while at < text.len() {
        let (class, len) = classes.at(text, at);
        if !is_other(class) {
            break;
        }
        at += len;
    }
    at
}

fn newlines_end(text: &[u8], at: usize) -> usize {
    let newlines = text[at..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
    at + newlines.count()
}

/// `\s++$|\s*[\r\n]|\s+(?!\S)|\s`, where white space is at `start`.
fn space_end(classes: &Classes, text: &[u8], start: usize) -> usize {
    let run = SpaceRun::at(classes, text, start);
    if run.end == text.len() { run.end } else { run.end_before_others(start) }
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
/// space, or others to digits and blanks; others join letters only one at a time.
pub fn is_certain_boundary(text: &[u8], at: usize) -> bool {
    let classes = Classes::get();
    let Some(right) = classes.after(text, at) else { return false };
    let Some((left, place)) = classes.before(text, at) else { return false };
    if left & classes::LETTER != 0 {
        return right & classes::LETTER == 0;
    }
    if left & classes::NUMBER != 0 {
        return right & classes::NUMBER == 0;
    }
    if left & classes::SPACE != 0 {
        return left == classes::NEWLINE && right & classes::SPACE == 0;
    }
    if right & classes::LETTER != 0 {
        return classes.before(text, place).is_some_and(|(class, _)| is_other(class));
    }
    right == classes::BLANK || right & classes::NUMBER != 0
}
