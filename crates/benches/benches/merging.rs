//! Counts -> merges, counting left out: how the time grows with the vocabulary and with threads.
//!
//! ```text
//! cargo bench --package benches --bench merging
//! CS336LM_BENCH_TEXT=corpus.txt cargo bench --package benches --bench merging
//! ```
//!
//! Without a file, the text is made of words drawn as in a language (Zipf's law).

mod corpus;

use bpe::files::input::{Source, SourceOptions};
use bpe::train::count::{CountOptions, Counts, PretokenCounts, Ranked, count_pretokens};
use bpe::train::train_merges;
use bpe::{Pattern, Progress, SpecialTokens};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn counts() -> PretokenCounts {
    let corpus = corpus::file();
    let (pattern, special) = (Pattern::Gpt2, SpecialTokens::default());
    let source = Source::open(&[corpus.path], &pattern, &special, &SourceOptions::default());
    let source = source.expect("the file can be read");
    let options = CountOptions::new(1);
    match count_pretokens(&source, &options, &Progress::new()) {
        Ok(Counts::Memory(counts)) => counts,
        _ => panic!("the counts of the benchmark fit into memory"),
    }
}

fn merging(criterion: &mut Criterion) {
    let counts = counts();
    let words = || Ranked::new(counts.clone()).expect("few enough");
    let mut group = criterion.benchmark_group("merging");
    group.sample_size(10);
    for merges in [1_000, 10_000, 32_000] {
        group.throughput(Throughput::Elements(merges));
        for threads in corpus::threads() {
            let id = BenchmarkId::new(format!("threads {threads}"), merges);
            let train = |words| {
                let trained = train_merges(words, merges as usize, threads, None, &Progress::new());
                trained.expect("trains").len()
            };
            group.bench_function(id, |bench| {
                bench.iter_batched(words, train, BatchSize::PerIteration);
            });
        }
    }
    group.finish();
}

criterion_group!(benches, merging);
criterion_main!(benches);
