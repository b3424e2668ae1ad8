//! The merge loop: take the most frequent pair, merge it everywhere, update the counts around it.
//!
//! Only pairs of at least a threshold are tracked: they have an exact count, lists of positions (in
//! bounded memory only when it is nearly their turn) and a place in the queue. As long as the queue
//! holds one, no other pair can be the most frequent; when it is empty, [`survey`] lowers the
//! threshold and finds the pairs again. That works because a pair's count only falls once both its
//! tokens exist: a pair is at its most frequent when its younger token is made, and is tracked from
//! then on or not at all.

use rayon::prelude::*;

use super::budget::Budget;
use super::count::{Ranked, too_many_pretokens};
use super::listing::list_most_frequent;
use super::pairs::{Pair, Pairs, Queue, TokenBytes};
use super::partition::{List, MAX_SYMBOLS, MergeStep, Neighbour, Neighbours, Partition, Symbol};
use super::survey::survey;
use crate::error::Result;
use crate::progress::Progress;
use crate::vocab::TokenId;

/// The ids of a new token's two parts: 0 to 255 are the bytes, 256 + k is the k-th merge.
pub type Merge = (TokenId, TokenId);

/// Merging at fewer positions than this is done before another thread is awake.
const PARALLEL_PLACES: usize = 1 << 13;

/// A survey finds so many pairs, if there are as many, however few merges are left: tracking one
/// more is cheaper than another survey.
const MIN_WANTED: usize = 1 << 16;

/// More partitions than this cost more per merge than they save.
const MAX_PARTITIONS: usize = 16;

/// In symbols, of a partition where there are several: a pass over fewer is over before another
/// thread has begun, and each partition has an index of the frequent pairs of its own.
const MIN_PARTITION: u64 = if cfg!(test) { 64 } else { 1 << 18 };

/// The state of the merge loop.
pub struct Merging<'p, S> {
    partitions: Vec<Partition<S>>,
    pairs: Pairs,
    queue: Queue,
    tokens: TokenBytes,
    /// How many symbols each token spans.
    spans: Vec<u32>,
    /// Every pair that is not tracked is less frequent than this.
    threshold: u64,
    totals: Totals,
    budget: Budget,
    progress: &'p Progress,
}

impl<'p, S: Symbol> Merging<'p, S> {
    /// Lays out the words, each byte a token.
    ///
    /// # Errors
    /// There are too many words, they cannot be read, or `progress` says stop.
    pub fn new(
        words: Ranked,
        threads: usize,
        max_memory: Option<u64>,
        progress: &'p Progress,
    ) -> Result<Self> {
        let mut tokens = TokenBytes::default();
        (0..=255).for_each(|byte: u8| tokens.push(&[byte]));
        let partitions = lay_out(words, threads, progress)?;
        Ok(Self {
            budget: Budget::new(max_memory, partitions.len()),
            partitions,
            pairs: Pairs::default(),
            queue: Queue::default(),
            tokens,
            spans: vec![1; 256],
            threshold: u64::MAX,
            totals: Totals::default(),
            progress,
        })
    }

    /// Merges up to `num_merges` times; fewer if no pair is left.
    ///
    /// # Errors
    /// `progress` says stop.
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

    /// Starts over with the pairs that are most frequent now; `false` if there are none.
    fn survey(&mut self, remaining: usize) -> Result<bool> {
        self.pairs.clear();
        self.compact()?;
        // Some will be gone before their turn.
        let wanted = (remaining + remaining / 2).max(MIN_WANTED);
        let (tokens, ceiling) = (self.spans.len(), self.threshold - 1);
        let Self { partitions, pairs, budget, progress, .. } = self;
        let found = survey(partitions, pairs, tokens, ceiling, wanted, budget, progress)?;
        for id in 0..self.pairs.len() {
            self.queue.push(id as u32, &self.pairs, &self.tokens);
        }
        self.threshold = found.unwrap_or(1);
        Ok(found.is_some())
    }

    /// Lists the positions of a pair, and of others whose turn is soon.
    fn list(&mut self, id: u32) -> Result<()> {
        self.compact()?;
        let Self { partitions, pairs, budget, progress, .. } = self;
        list_most_frequent(partitions, pairs, id, budget.max_places(), progress)
    }

    /// Makes every token a single symbol; nothing is listed afterwards.
    fn compact(&mut self) -> Result<()> {
        let Self { partitions, spans, progress, .. } = self;
        if spans.iter().all(|&span| span == 1) {
            partitions.iter_mut().for_each(|partition| partition.positions.clear());
            return Ok(()); // nothing has been merged
        }
        partitions.par_iter_mut().try_for_each(|partition| partition.compact(spans, progress))?;
        spans.fill(1);
        Ok(())
    }

    fn merge(&mut self, id: u32) {
        let Pair { left: a, right: b, .. } = self.pairs.get(id);
        let (a_span, b_span) = (self.spans[a as usize], self.spans[b as usize]);
        let c = self.spans.len() as TokenId;
        let step = MergeStep { a, b, c, a_span: a_span as usize, b_span: b_span as usize };
        self.tokens.push_joined(a, b);
        self.spans.push(a_span + b_span);
        self.grow_tables();

        let lists = self.pairs.lists(id).to_vec();
        self.for_each_partition(&lists, |partition, list, _| partition.apply(list, step));
        self.pairs.retire(id);
        let tracked = self.pairs.len();
        self.update_pairs(step);
        if self.pairs.len() > tracked {
            self.for_each_partition(&lists, |partition, list, spans| {
                partition.fill_lists(list, step, spans);
            });
        }
        self.partitions.iter_mut().for_each(Partition::clear_neighbours);
    }

    /// Calls `work` with every partition, its list and the tokens' spans; on several threads where
    /// there is enough to do.
    fn for_each_partition(
        &mut self,
        lists: &[List],
        work: impl Fn(&mut Partition<S>, List, &[u32]) + Sync,
    ) {
        let spans = &self.spans[..];
        if lists.iter().map(|list| list.len as usize).sum::<usize>() > PARALLEL_PLACES {
            let partitions = self.partitions.par_iter_mut().zip(lists);
            partitions.for_each(|(partition, &list)| work(partition, list, spans));
        } else {
            let partitions = self.partitions.iter_mut().zip(lists);
            partitions.for_each(|(partition, &list)| work(partition, list, spans));
        }
    }

    /// Lowers the counts of pairs that the merge broke, and tracks the pairs that it made.
    fn update_pairs(&mut self, step: MergeStep) {
        let MergeStep { a, b, c, .. } = step;
        let doubled: u64 = self.partitions.iter().map(|partition| partition.double.count).sum();
        for partition in &mut self.partitions {
            // Where the next token `a` was merged in turn, (c, a) is (c, c) by now.
            partition.right.by_token[a as usize].places -= partition.double.places;
        }
        let mut totals = std::mem::take(&mut self.totals);

        totals.add(&self.partitions, |partition| &partition.left);
        for (x, count) in totals.drain() {
            self.pairs.lower(x, a, count);
            self.track(Pair { left: x, right: c, count }, |partition| {
                &mut partition.left.by_token[x as usize]
            });
        }
        totals.add(&self.partitions, |partition| &partition.right);
        for (y, count) in totals.drain() {
            self.pairs.lower(b, y, count);
            let count = if y == a { count - doubled } else { count };
            self.track(Pair { left: c, right: y, count }, |partition| {
                &mut partition.right.by_token[y as usize]
            });
        }
        self.track(Pair { left: c, right: c, count: doubled }, |partition| &mut partition.double);
        self.totals = totals;
    }

    /// Reserves lists for a new pair and queues it, if it reaches the threshold. `neighbour` is
    /// where a partition has the number of its positions, and is told where to list them.
    fn track(&mut self, pair: Pair, neighbour: impl Fn(&mut Partition<S>) -> &mut Neighbour) {
        if pair.count < self.threshold {
            return;
        }
        let positions = self.partitions.iter().map(|partition| partition.positions.len() as u64);
        let listed = positions.sum::<u64>();
        let full = listed >= self.budget.max_listed();
        let lists = self.partitions.iter_mut().map(|partition| {
            let places = neighbour(partition).places;
            if full {
                return List::unlisted(places);
            }
            if places == 0 {
                return List::default();
            }
            let list = partition.reserve_list(places);
            neighbour(partition).cursor = list.start;
            list
        });
        let id = self.pairs.push(pair, lists);
        self.queue.push(id, &self.pairs, &self.tokens);
    }

    /// Makes tables indexed by token as long as there are tokens.
    fn grow_tables(&mut self) {
        let tokens = self.spans.len();
        self.totals.counts.resize(tokens, 0);
        for partition in &mut self.partitions {
            partition.left.by_token.resize(tokens, Neighbour::default());
            partition.right.by_token.resize(tokens, Neighbour::default());
        }
    }
}

/// Lays out the words, by falling count, in as many partitions as are useful.
fn lay_out<S: Symbol>(
    words: Ranked,
    threads: usize,
    progress: &Progress,
) -> Result<Vec<Partition<S>>> {
    let needed = (2 * words.symbols() / MAX_SYMBOLS as u64) as usize + 1;
    let useful = words.symbols() / MIN_PARTITION + 1;
    let number = threads.clamp(1, MAX_PARTITIONS).min(useful as usize).max(needed);
    let mut partitions: Vec<Partition<S>> = (0..number).map(|_| Partition::new()).collect();
    words.deal(&mut partitions, progress, |partition, word, count| {
        if partition.push(word, count) { Ok(()) } else { Err(too_many_pretokens()) }
    })?;
    Ok(partitions)
}

/// Sums over partitions, indexed by token.
#[derive(Default)]
struct Totals {
    counts: Vec<u64>,
    touched: Vec<TokenId>,
}

impl Totals {
    fn add<S>(&mut self, partitions: &[Partition<S>], side: impl Fn(&Partition<S>) -> &Neighbours) {
        for neighbours in partitions.iter().map(side) {
            for &token in &neighbours.touched {
                let total = &mut self.counts[token as usize];
                if *total == 0 {
                    self.touched.push(token);
                }
                *total += neighbours.by_token[token as usize].count;
            }
        }
    }

    fn drain(&mut self) -> impl Iterator<Item = (TokenId, u64)> {
        let counts = &mut self.counts;
        self.touched.drain(..).map(|token| (token, std::mem::take(&mut counts[token as usize])))
    }
}
