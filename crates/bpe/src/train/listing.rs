//! Where memory is bounded, not every tracked pair has lists of its positions: only as many of the
//! most frequent as the budget allows. When the turn of another comes, the positions of the next
//! ones are found in one linear pass.

use std::cmp::Reverse;

use rayon::prelude::*;

use super::pairs::{Pairs, pair_key};
use super::partition::{Partition, Symbol};
use crate::error::Result;
use crate::progress::Progress;

/// The rank of a pair that is not to be listed.
const NOT_CHOSEN: u32 = u32::MAX;

/// Lists, in partitions after [`Partition::compact`], the positions of `first` and of the most
/// frequent other pairs, about `max_places` in all. The rest have no lists afterwards.
///
/// # Errors
/// `progress` says stop.
pub fn list_most_frequent<S: Symbol>(
    partitions: &mut [Partition<S>],
    pairs: &mut Pairs,
    first: u32,
    max_places: u64,
    progress: &Progress,
) -> Result<()> {
    let chosen = choose(pairs, first, max_places);
    let mut rank_of = vec![NOT_CHOSEN; pairs.len()];
    chosen.iter().zip(0..).for_each(|(&id, rank)| rank_of[id as usize] = rank);
    let places = partitions
        .par_iter()
        .map(|partition| find(partition, pairs, &rank_of, progress))
        .collect::<Result<Vec<_>>>()?;

    pairs.unlist();
    for (number, (partition, places)) in partitions.iter_mut().zip(places).enumerate() {
        let mut lengths = vec![0; chosen.len()];
        places.iter().for_each(|&(rank, _)| lengths[rank as usize] += 1);
        let lists: Vec<_> = lengths.into_iter().map(|len| partition.reserve_list(len)).collect();
        let mut cursors: Vec<u32> = lists.iter().map(|list| list.start).collect();
        for (rank, position) in places {
            let cursor = &mut cursors[rank as usize];
            partition.positions[*cursor as usize] = position;
            *cursor += 1;
        }
        chosen.iter().zip(lists).for_each(|(&id, list)| *pairs.list_mut(id, number) = list);
    }
    Ok(())
}

/// `first`, then by falling count.
fn choose(pairs: &Pairs, first: u32, max_places: u64) -> Vec<u32> {
    // A pair has at most as many positions as its count.
    let places = |id: u32| pairs.places(id).min(pairs.get(id).count);
    let others = (0..pairs.len() as u32).filter(|&id| id != first && pairs.get(id).count > 0);
    let mut others: Vec<u32> = others.collect();
    others.sort_unstable_by_key(|&id| (Reverse(pairs.get(id).count), id));
    let mut sum = places(first);
    let affordable = others.into_iter().take_while(|&id| {
        sum += places(id);
        sum <= max_places
    });
    std::iter::once(first).chain(affordable).collect()
}

/// (rank among the chosen, position), ascending by position.
#[inline(never)] // one name per pass in a profile
fn find<S: Symbol>(
    partition: &Partition<S>,
    pairs: &Pairs,
    rank_of: &[u32],
    progress: &Progress,
) -> Result<Vec<(u32, u32)>> {
    let mut places = Vec::new();
    partition.for_each_pair(progress, |at, left, right, count| {
        if count > 0
            && let Some(id) = pairs.id_of(pair_key(left, right))
            && rank_of[id as usize] != NOT_CHOSEN
        {
            places.push((rank_of[id as usize], at as u32));
        }
    })?;
    Ok(places)
}
