//! Text -> ids with warm caches, one thread: prose, text without spaces, code.
//!
//! ```text
//! cargo bench --package benches --bench encode
//! CS336LM_BENCH_TEXT=corpus.txt CS336LM_BENCH_TOKENIZER=tokenizer/ \
//!     cargo bench --package benches --bench encode
//! ```
//!
//! Without files, the text is made of the sentences in `samples` and the tokenizer is trained on
//! them, so every word is in the cache and most are tokens: an upper bound.

mod samples;

use std::io::Write;
use std::path::Path;

use bpe::files::input::{Source, SourceOptions};
use bpe::formats;
use bpe::train::count::{CountOptions, count_pretokens};
use bpe::train::train_merges;
use bpe::{Pattern, Progress, SpecialTokens, Tokenizer, Vocab};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use samples::{SAMPLES, texts};

fn tokenizer() -> Tokenizer {
    let (vocab, special, pattern) = match std::env::var_os("CS336LM_BENCH_TOKENIZER") {
        Some(path) => {
            let files = formats::load(Path::new(&path), None, &Progress::new())
                .expect("it names a tokenizer");
            (files.vocab, files.special_tokens, files.pattern)
        }
        None => (trained(), Vec::new(), Pattern::Gpt2),
    };
    Tokenizer::new(vocab, &special, pattern).expect("no special token is empty")
}

/// 200 merges of the sentences: some words are tokens, some are several.
fn trained() -> Vocab {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    SAMPLES.iter().for_each(|(_, text)| file.write_all(text.as_bytes()).expect("written"));
    let (pattern, special) = (Pattern::Gpt2, SpecialTokens::default());
    let paths = [file.path().to_path_buf()];
    let source =
        Source::open(&paths, &pattern, &special, &SourceOptions::default()).expect("opened");
    let progress = Progress::new();
    let counts = count_pretokens(&source, &CountOptions::new(1), &progress).expect("counted");
    let words = counts.ranked(None, &progress).expect("in memory");
    let merges = train_merges(words, 200, 1, None, &progress).expect("trained");
    Vocab::from_merges(&merges, &[] as &[&str]).expect("merges of a training")
}

fn encode(criterion: &mut Criterion) {
    let tokenizer = tokenizer();
    let mut group = criterion.benchmark_group("encode");
    for (name, text) in texts() {
        group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
        let mut ids = Vec::new();
        group.bench_function(name, |bench| {
            bench.iter(|| {
                ids.clear();
                tokenizer.encode(&text, &mut ids).expect("no limit");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, encode);
criterion_main!(benches);
