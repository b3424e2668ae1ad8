//! Where memory is bounded, not every pair that is followed has lists of its places: only the most
//! frequent have, so many as there is room for. When the turn of another comes, the places of the
//! next so many are looked up in one linear pass.

use std::cmp::Reverse;

use rayon::prelude::*;

use super::pairs::{Pairs, key};
use super::partition::{Shard, Symbol};
use super::survey::for_each_pair;
use crate::error::Result;
use crate::progress::Progress;

/// No pair of those to be listed.
const NOT_CHOSEN: u32 = u32::MAX;

/// Lists, in shards that [`Shard::compact`] left, the places of `first` and of the most frequent
/// pairs beside it, about `max_places` in all. The others have no lists afterwards.
pub fn list_most_frequent<S: Symbol>(
    shards: &mut [Shard<S>],
    pairs: &mut Pairs,
    first: u32,
    max_places: u64,
    progress: &Progress,
) -> Result<()> {
    let chosen = choose(pairs, first, max_places);
    let mut rank_of = vec![NOT_CHOSEN; pairs.len()];
    chosen.iter().zip(0..).for_each(|(&id, rank)| rank_of[id as usize] = rank);
    let places = shards
        .par_iter()
        .map(|shard| find(shard, pairs, &rank_of, progress))
        .collect::<Result<Vec<_>>>()?;

    pairs.unlist();
    for (number, (shard, places)) in shards.iter_mut().zip(places).enumerate() {
        let mut lengths = vec![0; chosen.len()];
        places.iter().for_each(|&(rank, _)| lengths[rank as usize] += 1);
        let lists: Vec<_> = lengths.into_iter().map(|len| shard.reserve_list(len)).collect();
        let mut cursors: Vec<u32> = lists.iter().map(|list| list.start).collect();
        for (rank, position) in places {
            let cursor = &mut cursors[rank as usize];
            shard.positions[*cursor as usize] = position;
            *cursor += 1;
        }
        chosen.iter().zip(lists).for_each(|(&id, list)| *pairs.list_mut(id, number) = list);
    }
    Ok(())
}

/// `first`, then by falling count.
fn choose(pairs: &Pairs, first: u32, max_places: u64) -> Vec<u32> {
    // What is not so frequent has no more places than it is frequent.
    let places = |id: u32| pairs.places(id).min(pairs.get(id).count);
    let others = (0..pairs.len() as u32).filter(|&id| id != first && pairs.get(id).count > 0);
    let mut others: Vec<u32> = others.collect();
    others.sort_unstable_by_key(|&id| (Reverse(pairs.get(id).count), id));
    let mut sum = places(first);
    let room = others.into_iter().take_while(|&id| {
        sum += places(id);
        sum <= max_places
    });
    std::iter::once(first).chain(room).collect()
}

/// (rank among the chosen, position), ascending by position.
#[inline(never)] // one name per pass in a profile
fn find<S: Symbol>(
    shard: &Shard<S>,
    pairs: &Pairs,
    rank_of: &[u32],
    progress: &Progress,
) -> Result<Vec<(u32, u32)>> {
    let mut places = Vec::new();
    for_each_pair(shard, progress, |at, left, right, count| {
        if count > 0
            && let Some(id) = pairs.id_of(key(left, right))
            && rank_of[id as usize] != NOT_CHOSEN
        {
            places.push((rank_of[id as usize], at as u32));
        }
    })?;
    Ok(places)
}
