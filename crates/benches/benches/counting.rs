//! Text -> counts of pretokens, on one thread and on all: scanner, tables, and their sum.
//!
//! ```text
//! cargo bench --package benches --bench counting
//! CS336LM_BENCH_TEXT=corpus.txt cargo bench --package benches --bench counting
//! ```
//!
//! Without a file, the text is made of words drawn as in a language (Zipf's law).

mod corpus;

use bpe::files::input::{Source, SourceOptions};
use bpe::train::count::{CountOptions, Counts, count_pretokens};
use bpe::{Pattern, Progress, SpecialTokens};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn counting(criterion: &mut Criterion) {
    let corpus = corpus::file();
    let bytes = std::fs::metadata(&corpus.path).expect("CS336LM_BENCH_TEXT names a file").len();
    let (pattern, special) = (Pattern::Gpt2, SpecialTokens::default());
    let count = |options: &CountOptions| -> Counts {
        let paths = [corpus.path.clone()];
        let source = Source::open(&paths, &pattern, &special, &SourceOptions::default());
        let source = source.expect("the file can be read");
        count_pretokens(&source, options, &Progress::new()).expect("counts")
    };
    let mut group = criterion.benchmark_group("counting");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    for threads in corpus::threads() {
        let options = CountOptions::new(threads);
        let id = BenchmarkId::new("threads", threads);
        group.bench_function(id, |bench| bench.iter(|| count(&options).len()));
    }
    let spilling = CountOptions { max_memory: Some(1 << 24), ..CountOptions::new(1) };
    group.bench_function("in 16 MiB", |bench| bench.iter(|| count(&spilling).len()));
    group.finish();
}

criterion_group!(benches, counting);
criterion_main!(benches);
