//! Text -> pretokens: each scanner, and the regex engine on the same pattern.
//!
//! ```text
//! cargo bench --package bpe --bench scanner
//! CS336LM_BENCH_TEXT=corpus.txt cargo bench --package bpe --bench scanner
//! ```
//!
//! Without a file, the text is made of the sentences below.

use std::hint::black_box;

use bpe::pretokenize::{CustomPattern, Pattern};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SIZE: usize = 4 << 20;

const SAMPLES: [(&str, &str); 3] = [
    (
        "prose",
        "\"I don't know,\" she said, and put the lamp down; it was past ten o'clock.\n\
         Nobody had come along the road since the 3rd of May, and the rain hadn't stopped.\n\n",
    ),
    (
        "cjk",
        "雨は三日も降り続いていた。彼女はランプを置いて「わからない」と言った。\n没有人知道。\n",
    ),
    ("code", "    if index >= 1024:\n        return self.table[index & 0xFF]  # wraps around\n\n"),
];

fn texts() -> Vec<(String, Vec<u8>)> {
    if let Some(path) = std::env::var_os("CS336LM_BENCH_TEXT") {
        let mut text = std::fs::read(&path).expect("CS336LM_BENCH_TEXT names a file");
        text.truncate(4 * SIZE);
        return vec![("file".to_owned(), text)];
    }
    let repeat = |(name, text): &(&str, &str)| {
        ((*name).to_owned(), text.repeat(SIZE / text.len()).into_bytes())
    };
    SAMPLES.iter().map(repeat).collect()
}

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
        for pattern in [Pattern::Gpt2, Pattern::Gpt4, Pattern::Gpt4o] {
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
