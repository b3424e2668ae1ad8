//! The text that counting and merging are measured on.

use std::io::Write;
use std::path::PathBuf;

use tempfile::NamedTempFile;

const WORDS: usize = 4 << 20;

/// How many different words there are at most.
const LEXICON: f64 = 200_000.0;

pub struct Corpus {
    pub path: PathBuf,
    /// Removed with this, if it was made here.
    _made: Option<NamedTempFile>,
}

pub fn file() -> Corpus {
    let (path, made) = match std::env::var_os("CS336LM_BENCH_TEXT") {
        Some(path) => (path.into(), None),
        None => {
            let made = make();
            (made.path().to_owned(), Some(made))
        }
    };
    Corpus { path, _made: made }
}

/// One thread, and all there are.
pub fn threads() -> Vec<usize> {
    let all = std::thread::available_parallelism().map_or(1, |number| number.get());
    if all == 1 { vec![1] } else { vec![1, all] }
}

/// Word r comes with a probability of about 1 / r, and is the number r spelled in syllables.
fn make() -> NamedTempFile {
    const SYLLABLES: [&str; 16] = [
        "the", "an", "er", "in", "or", "st", "ed", "la", "mo", "ki", "sh", "ou", "ing", "re", "ta",
        "wu",
    ];
    let mut text = String::new();
    let mut state = 1u64;
    for _ in 0..WORDS {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let uniform = (state >> 11) as f64 / (1u64 << 53) as f64;
        let mut rank = LEXICON.powf(uniform) as usize;
        text.push(' ');
        while rank > 0 {
            text.push_str(SYLLABLES[rank % SYLLABLES.len()]);
            rank /= SYLLABLES.len();
        }
    }
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("room on disk");
    file
}
