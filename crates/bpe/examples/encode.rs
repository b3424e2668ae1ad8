//! Times the steps of encoding one by one: load the tokenizer, encode in memory, encode into a
//! file.
//!
//! ```text
//! cargo run --release --example encode -- TOKENIZER THREADS FILE...
//! ```

#![allow(clippy::unwrap_used)] // a tool for developers: what goes wrong is shown as it is

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use bpe::files::input::{Source, SourceOptions};
use bpe::files::tokens::{EncodeOptions, encode_files};
use bpe::formats;
use bpe::{Progress, Tokenizer};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(tokenizer), Some(threads)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: encode TOKENIZER THREADS FILE...");
        std::process::exit(2);
    };
    let threads: usize = threads.parse().unwrap();
    let paths: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    let megabytes =
        paths.iter().map(|path| path.metadata().unwrap().len()).sum::<u64>() as f64 / 1e6;

    let began = Instant::now();
    let files = formats::load(Path::new(&tokenizer), None, &Progress::new()).unwrap();
    let parsed = began.elapsed();
    let tokenizer = Tokenizer::new(files.vocab, &files.special_tokens, files.pattern).unwrap();
    println!("load {:.1} ms, of it {:.1} to read", ms(began), 1e3 * parsed.as_secs_f64());

    for call in ["first", "second", "third"] {
        let began = Instant::now();
        let ids = in_memory(&tokenizer, &paths, threads);
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "in memory, {call} call: {:.0} MB/s, {:.3} s, {ids} ids",
            megabytes / seconds,
            seconds
        );
    }
    let folder = tempfile::tempdir().unwrap();
    let options = EncodeOptions { threads, ..EncodeOptions::default() };
    for call in ["fourth", "fifth"] {
        let began = Instant::now();
        let out = folder.path().join("tokens.npy");
        encode_files(&tokenizer, &paths, &out, &options, &Progress::new()).unwrap();
        let seconds = began.elapsed().as_secs_f64();
        println!("into a file, {call} call: {:.0} MB/s, {:.3} s", megabytes / seconds, seconds);
    }
}

fn ms(since: Instant) -> f64 {
    1e3 * since.elapsed().as_secs_f64()
}

/// Encodes all chunks and forgets the ids; returns how many there were.
fn in_memory(tokenizer: &Tokenizer, paths: &[PathBuf], threads: usize) -> u64 {
    let (pattern, special) = (tokenizer.pattern(), tokenizer.special_tokens());
    let source = Source::open(paths, pattern, special, &SourceOptions::default()).unwrap();
    let count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let (mut text, mut ids) = (Vec::new(), Vec::new());
                while source.read_next(&mut text, true).unwrap().is_some() {
                    ids.clear();
                    tokenizer.encode(&text, &mut ids).unwrap();
                    count.fetch_add(ids.len() as u64, Relaxed);
                }
            });
        }
    });
    count.into_inner()
}
