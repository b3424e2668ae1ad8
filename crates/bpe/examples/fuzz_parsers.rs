//! Damaged and hostile files against everything that reads one, and training against the oracle,
//! for as long as one likes:
//!
//! ```text
//! cargo run --release --example fuzz_parsers -- --minutes 10
//! cargo run --release --example fuzz_parsers -- --seed 1234     (one round again)
//! ```
//!
//! A round takes a good file (a tokenizer in each format, counts, records, compressed text) and, many
//! times, changes some bytes, cuts it, or doubles a part, and reads it. It may be read or refused; a
//! panic fails. Every eighth round trains on a few random words instead, and merges must be the
//! oracle's. Most of the time are files written: `TMPDIR=/dev/shm` keeps them in memory.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bpe::files::input::TextFields;
use bpe::files::tokens::count_tokens;
use bpe::formats::{Extras, load, save};
use bpe::train::count::{CountOptions, save_counts};
use bpe::train::{TrainOptions, count_files, train, train_counts};
use bpe::{Pattern, Progress, SpecialTokens, Tokenizer, Vocab};

#[path = "../tests/oracle/mod.rs"]
mod oracle;
mod random;

use random::Random;

type Failure = Box<dyn Error>;

const EOT: &str = "<|endoftext|>";
const TEXT: &str = "the cat sat on the mat; the dog, 1234 \u{65e5}\u{672c}\u{8a9e}\n";
const FILES_A_ROUND: u64 = 64;
const USAGE: &str = "fuzz_parsers [--minutes N | --seed N]";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (first, minutes) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => (None, 1.0),
        ["--seed", seed] => (Some(seed.parse()?), 0.0),
        ["--minutes", minutes] => (None, minutes.parse()?),
        _ => return Err(USAGE.into()),
    };
    panic::set_hook(Box::new(|_| {})); // what panics is reported below, with its seed
    let folder = tempfile::tempdir()?;
    let good = Good::write(folder.path())?;
    if let Some(seed) = first {
        return good.round(seed).map(drop);
    }
    let (began, limit) = (Instant::now(), Duration::from_secs_f64(60.0 * minutes));
    let mut seed: u64 = std::time::UNIX_EPOCH.elapsed()?.as_secs() << 32;
    let (mut files, mut trainings) = (0, 0);
    while began.elapsed() < limit {
        let read = good.round(seed).map_err(|error| format!("--seed {seed}: {error}"))?;
        files += read;
        trainings += u64::from(read == 0);
        seed += 1;
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{files} files and {trainings} trainings in {seconds:.0} s, nothing panicked");
    Ok(())
}

/// Files that are read, each with its content.
struct Good {
    folder: PathBuf,
    files: Vec<(&'static str, Vec<u8>)>,
    tokenizer: Tokenizer,
}

impl Good {
    fn write(folder: &Path) -> Result<Self, Failure> {
        let words: [&[u8]; 3] = [b" the", b" cat", "\u{65e5}\u{672c}".as_bytes()];
        let vocab = Vocab::from_merges(&oracle::train(&words, 8), &[EOT])?;
        let special = vec![EOT.to_owned()];
        save(folder, &vocab, &special, &Pattern::Gpt2, &Extras::default())?;
        let ranks = (0..=255u8).map(|byte| {
            let text = [byte];
            format!("{} {byte}\n", BASE64_STANDARD.encode(text))
        });
        fs::write(folder.join("ranks.tiktoken"), ranks.collect::<String>())?;
        let text = folder.join("a.txt");
        fs::write(&text, TEXT.repeat(4))?;
        let (tokens, options) = (SpecialTokens::new(&special)?, TrainOptions::new(1));
        let progress = Progress::new();
        let counts = count_files(&[text], &tokens, &Pattern::Gpt2, &options, &progress)?;
        save_counts(&folder.join("a.counts"), counts, &Pattern::Gpt2, &tokens, &progress)?;
        let record = serde_json::json!({"id": [1, {"x": null}], "text": TEXT}).to_string() + "\n";
        fs::write(folder.join("a.jsonl"), record.repeat(3))?;
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(TEXT.repeat(9).as_bytes())?;
        fs::write(folder.join("b.txt.gz"), gz.finish()?)?;
        fs::write(folder.join("b.txt.zst"), zstd::encode_all(TEXT.repeat(9).as_bytes(), 1)?)?;
        let names = [
            "tokenizer.json",
            "tokenizer_config.json",
            "vocab.json",
            "merges.txt",
            "ranks.tiktoken",
            "a.counts",
            "a.jsonl",
            "b.txt.gz",
            "b.txt.zst",
            "a.txt",
        ];
        let read = |name: &'static str| Ok((name, fs::read(folder.join(name))?));
        let files = names.into_iter().map(read).collect::<Result<_, Failure>>()?;
        let tokenizer = Tokenizer::new(vocab, &[EOT], Pattern::Gpt2)?;
        Ok(Self { folder: folder.to_path_buf(), files, tokenizer })
    }

    /// How many damaged files were read; none, where it was a training.
    fn round(&self, seed: u64) -> Result<u64, Failure> {
        let mut random = Random(seed);
        let work = AssertUnwindSafe(|| match random.below(8) {
            0 => training(&mut random).map(|()| 0),
            _ => self.read_damaged(&mut random),
        });
        panic::catch_unwind(work).unwrap_or_else(|panic| {
            let said = panic.downcast_ref::<String>().cloned();
            let said = said.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
            Err(format!("panicked: {}", said.unwrap_or_default()).into())
        })
    }

    fn read_damaged(&self, random: &mut Random) -> Result<u64, Failure> {
        let (name, content) = &self.files[random.below(self.files.len())];
        let path = self.folder.join(name);
        for _ in 0..FILES_A_ROUND {
            fs::write(&path, damaged(random, content))?;
            self.read(name, &path);
        }
        fs::write(&path, content)?; // others are read beside it
        Ok(FILES_A_ROUND)
    }

    /// Read or refused: both are good.
    fn read(&self, name: &str, path: &PathBuf) {
        let progress = Progress::new();
        match name {
            "a.counts" => drop(train_counts(
                std::slice::from_ref(path),
                270,
                &CountOptions::new(1),
                &progress,
            )),
            "a.jsonl" | "b.txt.gz" | "b.txt.zst" | "a.txt" => {
                let fields = TextFields::default();
                drop(count_tokens(
                    &self.tokenizer,
                    std::slice::from_ref(path),
                    &fields,
                    1,
                    &progress,
                ));
            }
            _ => {
                let pattern = (name == "ranks.tiktoken").then_some(Pattern::Gpt2);
                if let Ok(parts) = load(path, pattern.as_ref(), &progress)
                    && let Ok(tokenizer) =
                        Tokenizer::new(parts.vocab, &parts.special_tokens, parts.pattern)
                {
                    drop(tokenizer.encode(TEXT.as_bytes(), &mut Vec::new()));
                }
            }
        }
    }
}

fn damaged(random: &mut Random, content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    for _ in 0..1 + random.below(4) {
        let (at, len) = (random.below(bytes.len()), random.below(12));
        let end = bytes.len().min(at + len);
        match random.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                let copies = copy.repeat(1 + random.below(40));
                bytes.splice(at..at, copies);
            }
            3 => drop(bytes.splice(at..end, random.choose(INTERESTING).bytes())),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

/// What parsers get wrong: limits, nesting, escapes, names that mean something.
const INTERESTING: &[&str] = &[
    "4294967295",
    "4294967296",
    "-1",
    "18446744073709551616",
    "1e999",
    "[[[[[[[[[[[[[[[[",
    "{",
    "null",
    "\"\"",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "\0\0\0\0",
    "(a+)+$",
    "(?<=a)",
    "[^",
    "{1000}",
    "../../x",
    "\"id\": 7",
    "Split",
    "Regex",
    "ByteLevel",
    "<|endoftext|>",
    "\n\n",
    " ",
];

/// Merges of a few random words are those of the oracle, whatever the number of threads.
fn training(random: &mut Random) -> Result<(), Failure> {
    let letters = ["a", "b", "c", "\u{e9}"];
    let word = |random: &mut Random| -> String {
        (0..1 + random.below(7)).map(|_| random.choose(&letters)).collect()
    };
    let words: Vec<String> = (0..1 + random.below(30)).map(|_| word(random)).collect();
    // One letter-only word a line: with the newline, which no word holds, no pair goes across.
    let file = tempfile::Builder::new().suffix(".txt").tempfile()?;
    fs::write(file.path(), words.join("\n"))?;
    let pretokens: Vec<String> = words.iter().map(String::clone).collect();
    let mut pieces: Vec<&[u8]> = pretokens.iter().map(String::as_bytes).collect();
    pieces.extend(std::iter::repeat_n(&b"\n"[..], words.len() - 1));
    let merges = random.below(12);
    let threads = 1 + random.below(3);
    let trained = train(
        &[file.path().to_path_buf()],
        256 + merges,
        &SpecialTokens::default(),
        &Pattern::Gpt2,
        &TrainOptions::new(threads),
        &Progress::new(),
    )?;
    let expected = oracle_train(&pieces, merges);
    match trained.merges == expected {
        true => Ok(()),
        false => Err(format!("{words:?}: {:?} is not {expected:?}", trained.merges).into()),
    }
}

/// The oracle breaks ties by ids; the crate by bytes, left then right, the greatest first.
fn oracle_train(words: &[&[u8]], merges: usize) -> Vec<(u32, u32)> {
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    let mut words: Vec<Vec<u32>> =
        words.iter().map(|word| word.iter().map(|&byte| u32::from(byte)).collect()).collect();
    let mut made = Vec::new();
    for _ in 0..merges {
        let mut counts = std::collections::HashMap::new();
        words.iter().flat_map(|word| word.windows(2)).for_each(|pair| {
            *counts.entry((pair[0], pair[1])).or_insert(0u64) += 1;
        });
        let bytes = |id: u32| tokens[id as usize].clone();
        let best = counts
            .into_iter()
            .max_by_key(|&((left, right), count)| (count, bytes(left), bytes(right)));
        let Some((pair, _)) = best else { break };
        let id = tokens.len() as u32;
        tokens.push([bytes(pair.0), bytes(pair.1)].concat());
        made.push(pair);
        for word in &mut words {
            let mut i = 0;
            while i + 1 < word.len() {
                if (word[i], word[i + 1]) == pair {
                    word.splice(i..i + 2, [id]);
                }
                i += 1;
            }
        }
    }
    made
}
