//! Training without Python, phase by phase, for a profiler:
//!
//! ```text
//! cargo build --release --example train
//! target/release/examples/train 32000 2 corpus.txt ...      (vocabulary, threads, files)
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use bpe::files::input::{Source, SourceOptions};
use bpe::train::count::{CountOptions, Counts, PretokenCounts, Ranked, count_pretokens};
use bpe::train::{Merge, num_merges, train_merges};
use bpe::{Pattern, Progress, SpecialTokens, Tokenizer, Vocab};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [vocab_size, threads, paths @ ..] = &arguments[..] else {
        return Err("usage: train VOCAB_SIZE THREADS FILE...".into());
    };
    let (vocab_size, threads) = (vocab_size.parse()?, threads.parse()?);
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    let (pattern, special) = (Pattern::Gpt2, SpecialTokens::new(&["<|endoftext|>"])?);
    let progress = Progress::new();

    let start = Instant::now();
    let source = Source::open(&paths, &pattern, &special, &SourceOptions::default())?;
    let counts = count_pretokens(&source, &CountOptions::new(threads), &progress)?;
    let counting = start.elapsed().as_secs_f64();
    let megabytes = source.total_bytes() as f64 / 1e6;
    let distinct = counts.len();
    println!("counting {counting:.3} s, {:.0} MB/s, {distinct} distinct", megabytes / counting);

    let Counts::Memory(counts) = counts else {
        return Err("the counts are not in memory".into());
    };
    let start = Instant::now();
    let num_merges = num_merges(vocab_size, &special)?;
    let words = Ranked::new(counts.clone())?;
    let merges = train_merges(words, num_merges, threads, None, &progress)?;
    let merging = start.elapsed().as_secs_f64();

    let applied = applied_merges(&counts, &merges)?;
    let nanos = 1e9 * merging / applied as f64;
    println!(
        "merging {merging:.3} s, {} merges, applied at {applied} places: {nanos:.0} ns each",
        merges.len()
    );
    Ok(())
}

/// Each place that a merge is applied at makes one token of two.
fn applied_merges(counts: &PretokenCounts, merges: &[Merge]) -> Result<usize, Box<dyn Error>> {
    let none: [&str; 0] = [];
    let tokenizer = Tokenizer::new(Vocab::from_merges(merges, &none)?, &none, Pattern::Gpt2)?;
    let (mut ids, mut tokens) = (Vec::new(), 0);
    for pretoken in counts.pretokens.iter() {
        ids.clear();
        tokenizer.encode_ordinary(pretoken, &mut ids)?;
        tokens += ids.len();
    }
    Ok(counts.pretokens.total_bytes() - tokens)
}
