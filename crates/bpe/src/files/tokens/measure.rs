//! How many ids files have, without writing them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::encode::encoder::Tokenizer;
use crate::error::{Error, Result};
use crate::files::input::{Source, SourceOptions, TextFields};
use crate::progress::{Phase, Progress};
use crate::workers;

/// How many ids [`encode_files`](super::encode_files) would write if nothing else is asked for, and
/// of how many bytes of text.
///
/// # Errors
/// An input that cannot be read, a text that cannot be encoded, [`Error::Cancelled`].
///
/// [`Error::Cancelled`]: crate::error::Error::Cancelled
pub fn count_tokens(
    tokenizer: &Tokenizer,
    paths: &[PathBuf],
    fields: &TextFields,
    threads: usize,
    progress: &Progress,
) -> Result<(u64, u64)> {
    let (pattern, special) = (tokenizer.pattern(), tokenizer.special_tokens());
    let options = SourceOptions { fields: fields.clone(), ..SourceOptions::default() };
    let source = Source::open(paths, pattern, special, &options)?;
    progress.begin(Phase::Encoding, source.total_bytes());
    let (tokens, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicBool::new(false);
    let count = || -> Result<()> {
        tokenizer.with_words(threads, |words| {
            let (mut text, mut ids) = (Vec::new(), Vec::new());
            while !failed.load(Relaxed) {
                let Some(chunk) = source.read_next(&mut text, true)? else { break };
                for piece in chunk.pieces(&text) {
                    ids.clear();
                    match chunk.has_records() {
                        true => tokenizer.encode_ordinary_with(words, piece, &mut ids)?,
                        false => tokenizer.encode_with(words, piece, &mut ids)?,
                    }
                    tokens.fetch_add(ids.len() as u64, Relaxed);
                }
                bytes.fetch_add(text.len() as u64, Relaxed);
                progress.advance(chunk.input_bytes)?;
            }
            Ok(())
        })
    };
    // If one thread fails the others stop too.
    let work = || progress.watched(count).inspect_err(|_| failed.store(true, Relaxed));
    std::thread::scope(|scope| {
        let others = workers::start(scope, threads.saturating_sub(1), work);
        let mut result = work();
        for other in others {
            let panicked = |panic: Box<_>| Err(Error::invalid(workers::panic_message(&*panic)));
            result = result.and(other.join().unwrap_or_else(panicked));
        }
        result
    })?;
    Ok((tokens.into_inner(), bytes.into_inner()))
}
