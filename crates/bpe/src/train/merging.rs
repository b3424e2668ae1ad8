//! The merge loop: take the most frequent pair, merge it everywhere, follow what that changes.
//!
//! Only pairs of at least a threshold are followed: they have an exact count, lists of positions
//! (in bounded memory only when it is nearly their turn) and a place in the queue. As long as the queue holds one, no other pair can be the most
//! frequent; when it runs dry, [`survey`] lowers the threshold and finds the pairs again. That
//! works because a pair's count only falls once both its tokens exist: a pair is at its most
//! frequent when its younger token is made, and is followed from then on or not at all.

use rayon::prelude::*;

use super::Merge;
use super::budget::Budget;
use super::count::{Ranked, too_many_pretokens};
use super::listing::list_most_frequent;
use super::pairs::{Pair, Pairs, Queue, TokenBytes};
use super::partition::{Gather, Join, List, MAX_SLOTS, Neighbour, Shard, Symbol};
use super::survey::survey;
use crate::error::Result;
use crate::progress::Progress;
use crate::vocab::TokenId;

/// Merging at fewer places than this is over before another thread is awake.
const PARALLEL_PLACES: usize = 1 << 13;

/// A survey finds so many pairs, if there are, however few merges are left: to follow one more is
/// cheaper than to survey again.
const MIN_WANTED: usize = 1 << 16;

/// More shards than this cost more per merge than they give.
const MAX_SHARDS: usize = 16;

pub struct Merging<'p, S> {
    shards: Vec<Shard<S>>,
    pairs: Pairs,
    queue: Queue,
    tokens: TokenBytes,
    /// Each token's length in slots.
    slots: Vec<u32>,
    /// Every pair that is not followed is less frequent than this.
    threshold: u64,
    totals: Totals,
    budget: Budget,
    progress: &'p Progress,
}

impl<'p, S: Symbol> Merging<'p, S> {
    pub fn new(
        words: Ranked,
        threads: usize,
        max_memory: Option<u64>,
        progress: &'p Progress,
    ) -> Result<Self> {
        let mut tokens = TokenBytes::default();
        (0..=255).for_each(|byte: u8| tokens.push(&[byte]));
        let shards = lay_out(words, threads, progress)?;
        Ok(Self {
            budget: Budget::new(max_memory, shards.len()),
            shards,
            pairs: Pairs::default(),
            queue: Queue::default(),
            tokens,
            slots: vec![1; 256],
            threshold: u64::MAX,
            totals: Totals::default(),
            progress,
        })
    }

    pub fn run(mut self, num_merges: usize) -> Result<Vec<Merge>> {
        let mut merges = Vec::new();
        self.grow_tables();
        while merges.len() < num_merges {
            match self.queue.pop(self.threshold, &self.pairs, &self.tokens) {
                Some(id) => {
                    if !self.pairs.is_listed(id) {
                        self.list(id)?;
                    }
                    let pair = self.pairs.get(id);
                    merges.push((pair.left, pair.right));
                    self.merge(id);
                    self.progress.advance(1)?;
                }
                None => {
                    if !self.survey(num_merges - merges.len())? {
                        break;
                    }
                }
            }
        }
        Ok(merges)
    }

    /// Starts again with the pairs that are most frequent now; `false` if there are none.
    fn survey(&mut self, remaining: usize) -> Result<bool> {
        self.pairs.clear();
        self.compact()?;
        // Some will be gone before it is their turn.
        let wanted = (remaining + remaining / 2).max(MIN_WANTED);
        let Self { shards, pairs, budget, progress, .. } = self;
        let found = survey(shards, pairs, self.threshold - 1, wanted, budget, progress)?;
        for id in 0..self.pairs.len() {
            self.queue.push(id as u32, &self.pairs, &self.tokens);
        }
        self.threshold = found.unwrap_or(1);
        Ok(found.is_some())
    }

    /// Lists the places of a pair, and of others whose turn is soon.
    fn list(&mut self, id: u32) -> Result<()> {
        self.compact()?;
        let Self { shards, pairs, budget, progress, .. } = self;
        list_most_frequent(shards, pairs, id, budget.max_places(), progress)
    }

    /// Makes every token a single slot; nothing is listed afterwards.
    fn compact(&mut self) -> Result<()> {
        let Self { shards, slots, progress, .. } = self;
        shards.par_iter_mut().try_for_each(|shard| shard.compact(slots, progress))?;
        slots.fill(1);
        Ok(())
    }

    fn merge(&mut self, id: u32) {
        let Pair { left: a, right: b, .. } = self.pairs.get(id);
        let (a_slots, b_slots) = (self.slots[a as usize], self.slots[b as usize]);
        let c = self.slots.len() as TokenId;
        let join = Join { a, b, c, a_slots: a_slots as usize, b_slots: b_slots as usize };
        self.tokens.push_joined(a, b);
        self.slots.push(a_slots + b_slots);
        self.grow_tables();

        let lists = self.pairs.lists(id).to_vec();
        self.for_each_shard(&lists, |shard, list, _| shard.apply(list, join));
        self.pairs.retire(id);
        let followed = self.pairs.len();
        self.follow_changes(join);
        if self.pairs.len() > followed {
            self.for_each_shard(&lists, |shard, list, slots| shard.fill_lists(list, join, slots));
        }
        self.shards.iter_mut().for_each(Shard::clear_neighbours);
    }

    /// Calls `work` with every shard, its list and the tokens' lengths; on several threads where
    /// there is enough to do.
    fn for_each_shard(
        &mut self,
        lists: &[List],
        work: impl Fn(&mut Shard<S>, List, &[u32]) + Sync,
    ) {
        let slots = &self.slots[..];
        if lists.iter().map(|list| list.len as usize).sum::<usize>() > PARALLEL_PLACES {
            let shards = self.shards.par_iter_mut().zip(lists);
            shards.for_each(|(shard, &list)| work(shard, list, slots));
        } else {
            let shards = self.shards.iter_mut().zip(lists);
            shards.for_each(|(shard, &list)| work(shard, list, slots));
        }
    }

    /// Lowers the counts of pairs that the merge broke, and follows the pairs that it made.
    fn follow_changes(&mut self, join: Join) {
        let Join { a, b, c, .. } = join;
        let doubled: u64 = self.shards.iter().map(|shard| shard.double.count).sum();
        for shard in &mut self.shards {
            // Where the next token `a` was merged in turn, (c, a) is (c, c) by now.
            shard.right.neighbours[a as usize].places -= shard.double.places;
        }
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
    fn follow(&mut self, pair: Pair, neighbour: impl Fn(&mut Shard<S>) -> &mut Neighbour) {
        if pair.count < self.threshold {
            return;
        }
        let listed = self.shards.iter().map(|shard| shard.positions.len() as u64).sum::<u64>();
        let full = listed >= self.budget.max_listed();
        let lists = self.shards.iter_mut().map(|shard| {
            let places = neighbour(shard).places;
            if full {
                return List::unlisted(places);
            }
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

/// Deals the words, by falling count, out to the shards like cards.
fn lay_out<S: Symbol>(words: Ranked, threads: usize, progress: &Progress) -> Result<Vec<Shard<S>>> {
    let number =
        threads.clamp(1, MAX_SHARDS).max((2 * words.slots() / MAX_SLOTS as u64) as usize + 1);
    let mut shards: Vec<Shard<S>> = (0..number).map(|_| Shard::new()).collect();
    let mut next = 0;
    words.for_each(progress, |word, count| {
        let fits = shards[next].push(word, count);
        next = (next + 1) % number;
        if fits { Ok(()) } else { Err(too_many_pretokens()) }
    })?;
    Ok(shards)
}

/// Sums over shards, indexed by token.
#[derive(Default)]
struct Totals {
    counts: Vec<u64>,
    touched: Vec<TokenId>,
}

impl Totals {
    fn gather<S>(&mut self, shards: &[Shard<S>], side: impl Fn(&Shard<S>) -> &Gather) {
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
