//! Compares each hand-written scanner with its regular expression on whole files, and says how
//! fast both are:
//!
//! ```text
//! cargo run --release --package bpe --example compare_scanners -- FILE...
//! ```
//!
//! Ends with status 1, and the place, at the first difference.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::process::ExitCode;
use std::time::Instant;

use bpe::{CustomPattern, Pattern};

/// What both ways are compared by: a place in the text where they part is found again with it.
#[derive(PartialEq, Eq)]
struct Pretokens {
    count: usize,
    ends: u64,
}

fn scan(pattern: &Pattern, text: &[u8]) -> bpe::Result<(Pretokens, f64)> {
    let start = Instant::now();
    let (mut count, mut at) = (0, 0usize);
    let mut hash = DefaultHasher::new();
    pattern.for_each(text, |pretoken| {
        at += pretoken.len();
        count += 1;
        // Cheap, so that it is the scanner that is timed: one number per 64 pretokens.
        if count % 64 == 0 {
            at.hash(&mut hash);
        }
    })?;
    at.hash(&mut hash);
    let megabytes_per_second = text.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
    Ok((Pretokens { count, ends: hash.finish() }, megabytes_per_second))
}

fn first_difference(one: &Pattern, other: &Pattern, text: &[u8]) -> bpe::Result<usize> {
    let ends = |pattern: &Pattern| -> bpe::Result<Vec<usize>> {
        let mut ends = Vec::new();
        pattern.for_each(text, |pretoken| ends.push(ends.last().unwrap_or(&0) + pretoken.len()))?;
        Ok(ends)
    };
    let (one, other) = (ends(one)?, ends(other)?);
    let same = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    Ok(one.get(same).copied().unwrap_or(0).min(other.get(same).copied().unwrap_or(0)))
}

fn compare(path: &str) -> bpe::Result<bool> {
    let text = std::fs::read(path).map_err(|error| bpe::Error::io(path, error))?;
    println!("{path}: {:.1} MB", text.len() as f64 / 1e6);
    for pattern in Pattern::known() {
        let engine = Pattern::Custom(CustomPattern::new(pattern.regex())?);
        let (by_hand, speed) = scan(&pattern, &text)?;
        let (by_engine, engine_speed) = scan(&engine, &text)?;
        let name = pattern.name();
        if by_hand != by_engine {
            let place = first_difference(&pattern, &engine, &text)?;
            println!("  {name:6} DIFFERS: a pretoken ends otherwise at or after byte {place}");
            return Ok(false);
        }
        println!(
            "  {name:6} equal, {} pretokens; by hand {speed:.0} MB/s, by the engine \
             {engine_speed:.0} MB/s",
            by_hand.count
        );
    }
    Ok(true)
}

fn main() -> ExitCode {
    let mut status = ExitCode::SUCCESS;
    for path in std::env::args().skip(1) {
        match compare(&path) {
            Ok(true) => {}
            Ok(false) => status = ExitCode::FAILURE,
            Err(error) => {
                eprintln!("{error}");
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}
