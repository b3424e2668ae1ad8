//! Training without Python, phase by phase, for a profiler:
//!
//! ```text
//! cargo build --release --example train
//! target/release/examples/train 32000 2 corpus.txt ...      (vocabulary, threads, files)
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use bpe::count::{CountOptions, count_pretokens};
use bpe::pretokenize::Pattern;
use bpe::progress::Progress;
use bpe::source::{DEFAULT_CHUNK_BYTES, Source};
use bpe::special::SpecialTokens;
use bpe::train::{num_merges, train_merges};

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
    let source = Source::open(&paths, &pattern, &special, DEFAULT_CHUNK_BYTES)?;
    let counts =
        count_pretokens(&source, &pattern, &special, &CountOptions::new(threads), &progress)?;
    let counting = start.elapsed().as_secs_f64();
    let megabytes = source.total_bytes() as f64 / 1e6;
    let distinct = counts.len();
    println!("counting {counting:.3} s, {:.0} MB/s, {distinct} distinct", megabytes / counting);

    let start = Instant::now();
    let num_merges = num_merges(vocab_size, &special)?;
    let words = counts.ranked(None, &progress)?;
    let merges = train_merges(words, num_merges, threads, None, &progress)?;
    let merging = start.elapsed().as_secs_f64();
    let micros = 1e6 * merging / merges.len() as f64;
    println!("merging {merging:.3} s, {} merges, {micros:.1} us each", merges.len());
    Ok(())
}
