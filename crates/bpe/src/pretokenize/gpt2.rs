//! GPT-2's pattern by hand: `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`.
//!
//! A pretoken is a contraction, a run of one kind (letters, numbers, other) with one space before
//! it, or white space: all of a run but the last character if something follows, which is then a
//! pretoken of its own or, if it is U+0020, the next run's space.

use super::classes::{Classes, LETTER, NUMBER, OTHER, SPACE};

/// What takes part in runs of the same kind: marks are "other" to this pattern.
#[inline(always)]
fn kind(class: u8) -> u8 {
    if class & LETTER != 0 {
        LETTER
    } else if class & SPACE != 0 {
        SPACE
    } else if class & NUMBER != 0 {
        NUMBER
    } else {
        OTHER
    }
}

pub fn for_each<'t>(text: &'t [u8], mut visit: impl FnMut(&'t [u8])) {
    let classes = Classes::get();
    let mut start = 0;
    while start < text.len() {
        let end = pretoken_end(classes, text, start);
        visit(&text[start..end]);
        start = end;
    }
}

fn pretoken_end(classes: &Classes, text: &[u8], start: usize) -> usize {
    if text[start] == b'\'' {
        let len = contraction_len(&text[start + 1..]);
        if len > 0 {
            return start + 1 + len;
        }
    }
    let at = start + usize::from(text[start] == b' ');
    if at < text.len() {
        let first = kind(classes.at(text, at).0);
        if first != SPACE {
            return run_end(classes, text, at, first);
        }
    }
    space_end(classes, text, start)
}

/// The end of the run of `kind` that goes on at `at`.
fn run_end(classes: &Classes, text: &[u8], mut at: usize, run: u8) -> usize {
    while at < text.len() {
        let (class, len) = classes.at(text, at);
        if kind(class) != run {
            break;
        }
        at += len;
    }
    at
}

/// `\s+(?!\S)|\s+`, where white space stands at `start`.
fn space_end(classes: &Classes, text: &[u8], start: usize) -> usize {
    let (mut last, mut at) = (start, start);
    while at < text.len() {
        let (class, len) = classes.at(text, at);
        if class & SPACE == 0 {
            return if last > start { last } else { at };
        }
        last = at;
        at += len;
    }
    at
}

/// How much of `rest`, which follows an apostrophe, `[sdmt]|ll|ve|re` matches.
fn contraction_len(rest: &[u8]) -> usize {
    match rest {
        [b's' | b'd' | b'm' | b't', ..] => 1,
        [b'l', b'l', ..] | [b'v', b'e', ..] | [b'r', b'e', ..] => 2,
        _ => 0,
    }
}

/// No pretoken goes from one kind into another but for a space at its start and for contractions;
/// and only white space looks ahead.
pub fn is_certain_boundary(text: &[u8], at: usize) -> bool {
    let classes = Classes::get();
    let Some(right) = classes.after(text, at) else { return false };
    let Some((left, place)) = classes.before(text, at) else { return false };
    let (left, right) = (kind(left), kind(right));
    let contraction = text[place] == b'\'' && b"sdmtlvr".contains(&text[at]);
    left != SPACE && left != right && !contraction
}
