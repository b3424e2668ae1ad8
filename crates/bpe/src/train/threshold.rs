//! From how many occurrences on a pair is tracked.

/// The greatest count, divided by this, is the threshold: a lower ratio takes more surveys, a
/// higher one tracks more pairs that are never merged.
pub const RATIO: u64 = 64;

/// The greatest of the counts, or bounds of counts, divided by [`RATIO`]; higher if so many of them
/// reach more that `wanted` are found. `None` if there is no pair.
pub fn choose_threshold(counts: impl Iterator<Item = u64> + Clone, wanted: usize) -> Option<u64> {
    let greatest = counts.clone().max().filter(|&greatest| greatest > 0)?;
    // Eight steps an octave are precise enough to estimate how many there are.
    let step_of = |count: u64| {
        let octave = count.ilog2().max(3);
        octave as usize * 8 + (count >> (octave - 3)) as usize % 8
    };
    let mut histogram = vec![0; 64 * 8];
    counts.filter(|&count| count > 0).for_each(|count| histogram[step_of(count)] += 1);
    let mut number = 0;
    let enough = (0..histogram.len()).rev().find(|&step| {
        number += histogram[step];
        number >= wanted
    });
    let by_number = enough.map_or(1, |step| (8 + step as u64 % 8) << (step / 8 - 3));
    Some((greatest / RATIO).max(by_number).clamp(1, greatest))
}
