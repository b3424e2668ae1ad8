//! Text -> pretokens: each scanner, and the regex engine on the same pattern.
//!
//! ```text
//! cargo bench --package benches --bench scanner
//! CS336LM_BENCH_TEXT=corpus.txt cargo bench --package benches --bench scanner
//! ```
//!
//! Without a file, the text is made of the sentences in `samples`.

mod samples;

use std::hint::black_box;

use bpe::{CustomPattern, Pattern};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use samples::texts;

fn count(pattern: &Pattern, text: &[u8]) -> usize {
    let mut count = 0;
    pattern
        .for_each(text, |pretoken| count += usize::from(!black_box(pretoken).is_empty()))
        .expect("no limit");
    count
}

fn scanners(criterion: &mut Criterion) {
    for (name, text) in texts() {
        let mut group = criterion.benchmark_group(format!("scanner/{name}"));
        group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
        for pattern in Pattern::known() {
            group.bench_function(pattern.name(), |bench| bench.iter(|| count(&pattern, &text)));
            let engine = CustomPattern::new(pattern.regex()).expect("valid");
            let engine = Pattern::Custom(engine);
            let id = format!("{}-by-fancy-regex", pattern.name());
            group.bench_function(id, |bench| bench.iter(|| count(&engine, &text)));
        }
        group.finish();
    }
}

criterion_group!(benches, scanners);
criterion_main!(benches);
