//! The merge loop: take the most frequent pair, merge it everywhere, follow what that changes.
//!
//! Only pairs of at least a threshold are followed: they have an exact count, lists of positions
//! and a place in the queue. As long as the queue holds one, no other pair can be the most
//! frequent; when it runs dry, [`survey`] lowers the threshold and finds the pairs again. That
//! works because a pair's count only falls once both its tokens exist: a pair is at its most
//! frequent when its younger token is made, and is followed from then on or not at all.

use rayon::prelude::*;

use super::Merge;
use super::pairs::{Pair, Pairs, Queue, TokenBytes};
use super::shard::{Gather, Join, List, MAX_SLOTS, Neighbour, Shard};
use super::survey::survey;
use crate::count::PretokenCounts;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::vocab::TokenId;

/// Merging at fewer places than this is over before another thread is awake.
const PARALLEL_PLACES: usize = 1 << 13;

/// More shards than this cost more per merge than they give.
const MAX_SHARDS: usize = 16;

pub struct Merging {
    shards: Vec<Shard>,
    pairs: Pairs,
    queue: Queue,
    tokens: TokenBytes,
    /// Each token's length in slots.
    slots: Vec<u32>,
    /// Every pair that is followed by no list is less frequent than this.
    threshold: u64,
    totals: Totals,
}

impl Merging {
    pub fn new(counts: &PretokenCounts, threads: usize) -> Result<Self> {
        let mut tokens = TokenBytes::default();
        (0..=255).for_each(|byte: u8| tokens.push(&[byte]));
        Ok(Self {
            shards: lay_out(counts, threads)?,
            pairs: Pairs::default(),
            queue: Queue::default(),
            tokens,
            slots: vec![1; 256],
            threshold: u64::MAX,
            totals: Totals::default(),
        })
    }

    pub fn run(mut self, num_merges: usize, progress: &Progress) -> Result<Vec<Merge>> {
        let mut merges = Vec::new();
        self.grow_tables();
        while merges.len() < num_merges {
            match self.queue.pop(self.threshold, &self.pairs, &self.tokens) {
                Some(id) => {
                    let pair = self.pairs.get(id);
                    merges.push((pair.left, pair.right));
                    self.merge(id);
                    progress.advance(1)?;
                }
                None => {
                    progress.check()?;
                    if !self.survey(num_merges - merges.len()) {
                        break;
                    }
                }
            }
        }
        Ok(merges)
    }

    /// Starts again with the pairs that are most frequent now; `false` if there are none.
    fn survey(&mut self, remaining: usize) -> bool {
        self.pairs.clear();
        self.shards.par_iter_mut().for_each(|shard| shard.compact(&self.slots));
        self.slots.fill(1);
        // Some will be gone before it is their turn.
        let wanted = remaining + remaining / 2 + 1000;
        let found = survey(&mut self.shards, &mut self.pairs, self.threshold, wanted);
        for id in 0..self.pairs.len() {
            self.queue.push(id as u32, &self.pairs, &self.tokens);
        }
        self.threshold = found.unwrap_or(0);
        found.is_some()
    }

    fn merge(&mut self, id: u32) {
        let Pair { left: a, right: b, .. } = self.pairs.get(id);
        let (a_slots, b_slots) = (self.slots[a as usize], self.slots[b as usize]);
        let c = self.slots.len() as TokenId;
        let join = Join { a, b, c, a_slots: a_slots as usize, b_slots: b_slots as usize };
        self.tokens.push_joined(a, b);
        self.slots.push(a_slots + b_slots);
        self.grow_tables();

        let lists = self.pairs.lists(id);
        let parallel = lists.iter().map(|list| list.len as usize).sum::<usize>() > PARALLEL_PLACES;
        if parallel {
            let shards = self.shards.par_iter_mut().zip(lists);
            shards.for_each(|(shard, &list)| shard.apply(list, join));
        } else {
            let shards = self.shards.iter_mut().zip(lists);
            shards.for_each(|(shard, &list)| shard.apply(list, join));
        }
        self.pairs.retire(id);
        self.follow_changes(join);
        if parallel {
            self.shards.par_iter_mut().for_each(|shard| shard.fill_lists(join, &self.slots));
        } else {
            self.shards.iter_mut().for_each(|shard| shard.fill_lists(join, &self.slots));
        }
    }

    /// Lowers the counts of pairs that the merge broke, and follows the pairs that it made.
    fn follow_changes(&mut self, join: Join) {
        let Join { a, b, c, .. } = join;
        let doubled: u64 = self.shards.iter().map(|shard| shard.double.count).sum();
        let mut totals = std::mem::take(&mut self.totals);

        totals.gather(&self.shards, |shard| &shard.left);
        for (x, count) in totals.drain() {
            self.pairs.lower(x, a, count);
            self.follow(Pair { left: x, right: c, count }, |shard| {
                &mut shard.left.neighbours[x as usize]
            });
        }
        totals.gather(&self.shards, |shard| &shard.right);
        for (y, count) in totals.drain() {
            self.pairs.lower(b, y, count);
            // Where the next token `a` was merged in turn, (c, a) is (c, c) by now.
            let count = if y == a { count - doubled } else { count };
            self.follow(Pair { left: c, right: y, count }, |shard| {
                &mut shard.right.neighbours[y as usize]
            });
        }
        self.follow(Pair { left: c, right: c, count: doubled }, |shard| &mut shard.double);
        self.totals = totals;
    }

    /// Makes lists for a new pair and queues it, if it reaches the threshold. `neighbour` is where
    /// a shard knows at how many places it stands, and wants to know where to list them.
    fn follow(&mut self, pair: Pair, neighbour: impl Fn(&mut Shard) -> &mut Neighbour) {
        if pair.count < self.threshold {
            return;
        }
        let lists = self.shards.iter_mut().map(|shard| {
            let places = neighbour(shard).places;
            if places == 0 {
                return List::default();
            }
            let list = shard.reserve_list(places);
            neighbour(shard).cursor = list.start;
            list
        });
        let id = self.pairs.push(pair, lists);
        self.queue.push(id, &self.pairs, &self.tokens);
    }

    /// Tables indexed by token have room for every token there is.
    fn grow_tables(&mut self) {
        let tokens = self.slots.len();
        self.totals.counts.resize(tokens, 0);
        for shard in &mut self.shards {
            shard.left.neighbours.resize(tokens, Neighbour::default());
            shard.right.neighbours.resize(tokens, Neighbour::default());
        }
    }
}

/// Words of two bytes or more, by falling count, dealt out to the shards like cards.
fn lay_out(counts: &PretokenCounts, threads: usize) -> Result<Vec<Shard>> {
    let word = |index: u32| counts.pretokens.get(index as usize);
    let words = u32::try_from(counts.pretokens.len()).map_err(|_| too_many())?;
    let mut order: Vec<(u64, u32)> = (0..words)
        .filter(|&index| word(index).len() > 1)
        .map(|index| (counts.counts[index as usize], index))
        .collect();
    order.par_sort_unstable_by_key(|&(count, index)| (std::cmp::Reverse(count), index));

    let total: u64 = order.iter().map(|&(_, index)| word(index).len() as u64 + 1).sum();
    let number = threads.clamp(1, MAX_SHARDS).max((2 * total / MAX_SLOTS) as usize + 1);
    let shards = (0..number).into_par_iter().map(|first| {
        let dealt = || order.iter().skip(first).step_by(number);
        let slots = dealt().map(|&(_, index)| word(index).len() as u64 + 1).sum::<u64>();
        if slots >= MAX_SLOTS {
            return Err(too_many());
        }
        let words = dealt().map(|&(count, index)| (word(index), count));
        Ok(Shard::new(words, slots as usize))
    });
    shards.collect()
}

fn too_many() -> Error {
    Error::invalid("more distinct pretokens than can be trained on: drop rare ones (min_count)")
}

/// Sums over shards, indexed by token.
#[derive(Default)]
struct Totals {
    counts: Vec<u64>,
    touched: Vec<TokenId>,
}

impl Totals {
    fn gather(&mut self, shards: &[Shard], side: impl Fn(&Shard) -> &Gather) {
        for gather in shards.iter().map(side) {
            for &token in &gather.touched {
                let total = &mut self.counts[token as usize];
                if *total == 0 {
                    self.touched.push(token);
                }
                *total += gather.neighbours[token as usize].count;
            }
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = (TokenId, u64)> {
        let counts = &mut self.counts;
        self.touched.drain(..).map(|token| (token, std::mem::take(&mut counts[token as usize])))
    }
}
