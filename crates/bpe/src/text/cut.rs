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
use super::special::SpecialTokens;

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

/// How many places are searched around for special tokens before all of a stride is.
const ONE_BY_ONE: usize = 4;

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
        let found = pattern_cut(text, start..stop, start..stop, pattern, special)
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
        let found = pattern_cut(text, start..stop, (start..stop).rev(), pattern, special)
            .or_else(|| special_cuts(text, start..stop, special).last().copied());
        if found.is_some() {
            return found;
        }
        stop = start;
    }
    None
}

/// The first of `places`, which are those of `range`, that the pattern alone makes a safe cut.
fn pattern_cut(
    text: &[u8],
    range: Range<usize>,
    mut places: impl Iterator<Item = usize>,
    pattern: &Pattern,
    special: &SpecialTokens,
) -> Option<usize> {
    let mut asked = 0;
    let mut found: Option<Vec<Range<usize>>> = None;
    places.find(|&at| {
        let around = at.saturating_sub(LOOK_AROUND)..text.len().min(at + LOOK_AROUND);
        if !pattern.is_certain_boundary(&text[around.clone()], at - around.start) {
            return false;
        }
        if special.is_empty() {
            return true;
        }
        // Mostly the first place is a cut. Where special tokens stand close together none may be,
        // and to search around each place would be to search the same text again and again.
        asked += 1;
        if asked <= ONE_BY_ONE {
            return special_places(text, &around, special).is_empty();
        }
        let wide = range.start.saturating_sub(LOOK_AROUND)..range.end + LOOK_AROUND;
        let found = found.get_or_insert_with(|| special_places(text, &wide, special));
        let near = special.max_len();
        let first = found.partition_point(|place| place.end + near <= around.start);
        found.get(first).is_none_or(|place| place.start >= around.end + near)
    })
}

/// Where special tokens are found that may touch `range`. If one occurs there, it is found or
/// another one that overlaps it.
fn special_places(text: &[u8], range: &Range<usize>, special: &SpecialTokens) -> Vec<Range<usize>> {
    let reach = special.max_len() - 1;
    let from = range.start.saturating_sub(reach);
    let to = text.len().min(range.end + reach);
    let mut places = Vec::new();
    special.for_each_place(&text[from..to], |place| {
        places.push(place.start + from..place.end + from);
    });
    places
}

/// The places in `range` where a special token starts and that no other one straddles, in order.
fn special_cuts(text: &[u8], range: Range<usize>, special: &SpecialTokens) -> Vec<usize> {
    if special.is_empty() {
        return Vec::new();
    }
    let to = text.len().min(range.end + special.max_len() - 1);
    let mut cuts = Vec::new();
    special.for_each_place(&text[range.start..to], |place| cuts.push(range.start + place.start));
    cuts.retain(|at| *at < range.end);
    if !cuts.is_empty() {
        let straddled = special.straddled(text, range.clone());
        cuts.retain(|at| !straddled[at - range.start]);
    }
    cuts
}
