//! Sorting that can be stopped: what takes a second in one piece is split into pieces of moments.

use std::cmp::Ordering;
use std::thread::available_parallelism;

use crate::error::Result;
use crate::progress::Progress;
use crate::workers;

/// So many are sorted in less than a few milliseconds.
const PIECE: usize = 1 << 14;

/// Sorts, on all threads of the pool it is called in, or of one of its own; equal elements end in
/// any order. (The pool that rayon would make by itself panics where there can be no threads.)
///
/// # Errors
/// `progress` says stop; the items are then in any order. No thread can be started.
pub fn sort<T: Send>(
    items: &mut [T],
    compare: &(impl Fn(&T, &T) -> Ordering + Sync),
    progress: &Progress,
) -> Result<()> {
    if items.len() <= PIECE || rayon::current_thread_index().is_some() {
        return sort_here(items, compare, progress);
    }
    let threads = available_parallelism().map_or(1, usize::from);
    workers::pool(threads)?.install(|| sort_here(items, compare, progress))
}

fn sort_here<T: Send>(
    items: &mut [T],
    compare: &(impl Fn(&T, &T) -> Ordering + Sync),
    progress: &Progress,
) -> Result<()> {
    progress.check()?;
    if items.len() <= PIECE {
        items.sort_unstable_by(compare);
        return Ok(());
    }
    let middle = items.len() / 2;
    let (low, _, high) = items.select_nth_unstable_by(middle, compare);
    let (low, high) =
        rayon::join(|| sort_here(low, compare, progress), || sort_here(high, compare, progress));
    low.and(high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn sorts(mut items in prop::collection::vec(0u32..50_000, 0..4 * PIECE)) {
            let mut expected = items.clone();
            expected.sort();
            sort(&mut items, &u32::cmp, &Progress::new()).expect("nobody says stop");
            prop_assert_eq!(items, expected);
        }
    }

    #[test]
    fn stops_on_request() {
        let progress = Progress::new();
        progress.cancel();
        assert!(sort(&mut [2, 1], &u32::cmp, &progress).is_err());
    }
}
