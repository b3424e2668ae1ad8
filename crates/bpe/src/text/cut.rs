//! Safe cuts: places where text may be split, and its parts pretokenized separately, without
//! changing a single pretoken.
//!
//! A place is safe if no occurrence of a special token straddles it, and either a special token
//! starts there (the search cannot be inside another one, so this one is found, and a segment ends
//! where it starts) or the pattern is certain that a pretoken ends there and no special token is so
//! near that it could end the segment within what the pattern looked at. The test is conservative:
//! a place that it cannot decide is not a cut, and some other place will be.

use std::ops::Range;

use super::pattern::Pattern;
use super::special::{Segment, SpecialTokens};

/// How far to either side of a place a pattern may look, in bytes. It is given no more.
const LOOK_AROUND: usize = 16;

/// How many places are tried against the pattern before special tokens are searched for.
const STRIDE: usize = 4096;

/// How many bytes on either side decide whether a place is a safe cut. Nearer than this to the end
/// of a text that may go on, no place is one; this far from the text's start, the start does not
/// matter.
pub fn reach(special: &SpecialTokens) -> usize {
    LOOK_AROUND + special.max_len()
}

/// A safe cut at or after `from`, the first or not far from it, or `None` if there is none. `text`
/// may go on to the right; on the left it must have started at a safe cut, or [`reach`] bytes
/// before `from`.
pub fn next_cut(
    text: &[u8],
    from: usize,
    pattern: &Pattern,
    special: &SpecialTokens,
) -> Option<usize> {
    let end = (text.len() + 1).saturating_sub(reach(special));
    let mut start = from.max(1);
    while start < end {
        let stop = end.min(start + STRIDE);
        let found = (start..stop)
            .find(|&at| is_pattern_cut(text, at, pattern, special))
            .or_else(|| special_cuts(text, start..stop, special).first().copied());
        if found.is_some() {
            return found;
        }
        start = stop;
    }
    None
}

/// The last safe cut in `text` at or after `from` that stays one whatever is appended, or one not
/// far from it; `None` if there is none. `text` must have started at a safe cut.
pub fn last_cut(
    text: &[u8],
    from: usize,
    pattern: &Pattern,
    special: &SpecialTokens,
) -> Option<usize> {
    let from = from.max(1);
    let mut stop = (text.len() + 1).saturating_sub(reach(special));
    while from < stop {
        let start = from.max(stop.saturating_sub(STRIDE));
        let found = (start..stop)
            .rev()
            .find(|&at| is_pattern_cut(text, at, pattern, special))
            .or_else(|| special_cuts(text, start..stop, special).last().copied());
        if found.is_some() {
            return found;
        }
        stop = start;
    }
    None
}

/// Whether the pattern alone makes `at` a safe cut.
fn is_pattern_cut(text: &[u8], at: usize, pattern: &Pattern, special: &SpecialTokens) -> bool {
    let around = at.saturating_sub(LOOK_AROUND)..text.len().min(at + LOOK_AROUND);
    pattern.is_certain_boundary(&text[around.clone()], at - around.start)
        && !has_special(text, around, special)
}

/// Whether some occurrence of a special token touches `range`.
fn has_special(text: &[u8], range: Range<usize>, special: &SpecialTokens) -> bool {
    if special.is_empty() {
        return false;
    }
    let from = range.start.saturating_sub(special.max_len() - 1);
    let to = text.len().min(range.end + special.max_len() - 1);
    let mut found = false;
    for_each_special(&text[from..to], special, |_| found = true);
    found
}

/// The places in `range` where a special token starts and that no other one straddles, in order.
fn special_cuts(text: &[u8], range: Range<usize>, special: &SpecialTokens) -> Vec<usize> {
    let mut cuts = Vec::new();
    if special.is_empty() {
        return cuts;
    }
    let to = text.len().min(range.end + special.max_len() - 1);
    for_each_special(&text[range.start..to], special, |start| {
        let at = range.start + start;
        if at < range.end && !special.straddles(text, at) {
            cuts.push(at);
        }
    });
    cuts
}

/// Calls `visit` with the start of each special token found in `text`.
fn for_each_special(text: &[u8], special: &SpecialTokens, mut visit: impl FnMut(usize)) {
    let mut at = 0;
    let walked = special.for_each_segment(text, |segment| {
        match segment {
            Segment::Text(piece) => at += piece.len(),
            Segment::Special(index) => {
                visit(at);
                at += special.tokens()[index].len();
            }
        }
        Ok(())
    });
    debug_assert!(walked.is_ok(), "the walk fails only if its visitor does");
}
