use std::collections::HashMap;
use std::io::Write;

use proptest::prelude::*;

use super::*;

/// The definition: the pretokens of whole files, one after the other, in a map.
fn obvious(texts: &[Vec<u8>], pattern: &Pattern, special: &SpecialTokens) -> HashMap<Vec<u8>, u64> {
    let mut counts = HashMap::new();
    for text in texts {
        let walked = special.for_each_segment(text, |segment| match segment {
            Segment::Text(piece) => pattern.for_each(piece, |pretoken| {
                *counts.entry(pretoken.to_vec()).or_default() += 1;
            }),
            Segment::Special(_) => Ok(()),
        });
        walked.expect("this pattern does not fail");
    }
    counts
}

fn write(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text).expect("room on disk");
    file
}

fn count(
    texts: &[Vec<u8>],
    pattern: &Pattern,
    special: &SpecialTokens,
    chunk_bytes: usize,
    threads: usize,
    progress: &Progress,
) -> Result<HashMap<Vec<u8>, u64>> {
    let files: Vec<_> = texts.iter().map(|text| write(text)).collect();
    let paths: Vec<_> = files.iter().map(|file| file.path().to_path_buf()).collect();
    let source = Source::open(&paths, pattern, special, chunk_bytes)?;
    let counts = count_pretokens(&source, pattern, special, threads, progress)?;
    let distinct = counts.pretokens.len();
    let map: HashMap<_, _> =
        counts.pretokens.iter().map(<[u8]>::to_vec).zip(counts.counts).collect();
    assert_eq!(map.len(), distinct, "every pretoken once");
    Ok(map)
}

proptest! {
    #[test]
    fn any_threads_chunks_and_files_count_alike(
        pieces in prop::collection::vec(
            prop::collection::vec(
                prop::sample::select(vec![
                    "a", "bc", " ", "  ", "'s", "1", "!", "\n", "<|e|>", "<|", "|>", "é", "日本",
                    "a word of more than fifteen bytes", "internationalisation",
                ]),
                0..80,
            ),
            1..4,
        ),
        chunk_bytes in prop::sample::select(vec![1usize, 7, 50, 1 << 20]),
        threads in prop::sample::select(vec![1usize, 2, 7]),
        custom in any::<bool>(),
    ) {
        let texts: Vec<Vec<u8>> = pieces.iter().map(|pieces| pieces.concat().into()).collect();
        let pattern = Pattern::parse(if custom { r"\w+" } else { "gpt2" }).expect("a pattern");
        let special = SpecialTokens::new(&["<|e|>"]).expect("good tokens");
        let progress = Progress::new();
        let found = count(&texts, &pattern, &special, chunk_bytes, threads, &progress);
        prop_assert_eq!(found.expect("counts"), obvious(&texts, &pattern, &special));
        let bytes = texts.iter().map(|text| text.len() as u64).sum();
        prop_assert_eq!(progress.snapshot(), (Phase::Counting, bytes, bytes));
    }
}

#[test]
fn stops_on_request() {
    let progress = Progress::new();
    progress.cancel();
    let texts = [b"some words ".repeat(1000)];
    let pattern = Pattern::parse("gpt2").expect("a known pattern");
    let stopped = count(&texts, &pattern, &SpecialTokens::default(), 10, 3, &progress);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

#[test]
fn says_which_regular_expression_gives_up() {
    let texts = [[b"a".repeat(64), b"!".to_vec()].concat()];
    let pattern = Pattern::parse(r"(a|a|aa)*\1b|(?=.)x").expect("a regular expression");
    let result = count(&texts, &pattern, &SpecialTokens::default(), 10, 2, &Progress::new());
    assert!(matches!(result, Err(Error::Invalid(_))));
}
