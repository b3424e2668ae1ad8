use std::collections::HashMap;
use std::io::Write;

use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::files::input::SourceOptions;

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
    options: &CountOptions,
    progress: &Progress,
) -> Result<HashMap<Vec<u8>, u64>> {
    let files: Vec<_> = texts.iter().map(|text| write(text)).collect();
    let paths: Vec<_> = files.iter().map(|file| file.path().to_path_buf()).collect();
    let chunks = SourceOptions { chunk_bytes, ..SourceOptions::default() };
    let source = Source::open(&paths, pattern, special, &chunks)?;
    let counts = count_pretokens(&source, options, progress)?;
    let distinct = counts.len();
    let mut map = HashMap::new();
    let mut last = Vec::new();
    counts.for_each_ascending(&Progress::new(), |pretoken, count| {
        assert!(map.is_empty() || *last < *pretoken, "ascending, every pretoken once");
        last = pretoken.to_vec();
        map.insert(pretoken.to_vec(), count);
        Ok(())
    })?;
    assert_eq!(map.len() as u64, distinct);
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
        max_memory in prop::sample::select(vec![None, Some(0)]),
        min_count in 0u64..4,
    ) {
        let texts: Vec<Vec<u8>> = pieces.iter().map(|pieces| pieces.concat().into()).collect();
        let pattern = Pattern::parse(if custom { r"\w+" } else { "gpt2" }).expect("a pattern");
        let special = SpecialTokens::new(&["<|e|>"]).expect("good tokens");
        let progress = Progress::new();
        let options = CountOptions { threads, max_memory, min_count };
        let found = count(&texts, &pattern, &special, chunk_bytes, &options, &progress);
        let mut expected = obvious(&texts, &pattern, &special);
        expected.retain(|_, count| *count >= min_count);
        prop_assert_eq!(found.expect("counts"), expected);
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
    let stopped =
        count(&texts, &pattern, &SpecialTokens::default(), 10, &CountOptions::new(3), &progress);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

#[test]
fn says_which_regular_expression_gives_up() {
    let texts = [[b"a".repeat(64), b"!".to_vec()].concat()];
    let pattern = Pattern::parse(r"(a|a|aa)*\1b|(?=.)x").expect("a regular expression");
    let result = count(
        &texts,
        &pattern,
        &SpecialTokens::default(),
        10,
        &CountOptions::new(2),
        &Progress::new(),
    );
    assert!(matches!(result, Err(Error::Invalid(_))));
}

fn counts_of(words: &[(&str, u64)]) -> Counts {
    Counts::Memory(PretokenCounts {
        pretokens: words.iter().map(|(word, _)| word).collect(),
        counts: words.iter().map(|&(_, count)| count).collect(),
    })
}

fn save(path: &std::path::Path, counts: Counts, pattern: &Pattern, special: &SpecialTokens) {
    save_counts(path, counts, pattern, special, &Progress::new()).expect("saves");
}

/// Counts files of these words, in a folder of their own.
fn saved(files: &[&[(&str, u64)]]) -> (tempfile::TempDir, Vec<std::path::PathBuf>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let special = SpecialTokens::new(&["<|e|>"]).expect("good tokens");
    let paths: Vec<_> =
        (0..files.len()).map(|index| folder.path().join(format!("{index}.bin"))).collect();
    for (path, words) in paths.iter().zip(files) {
        save(path, counts_of(words), &Pattern::Gpt2, &special);
    }
    (folder, paths)
}

fn refused(paths: &[std::path::PathBuf]) -> String {
    match load_counts(paths, 1, None, &Progress::new()) {
        Ok(_) => panic!("not refused"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn counts_files_add_up() {
    let (_folder, paths) = saved(&[
        &[("bb", 1), ("a", 5), ("a longer one than fits", 1 << 40)],
        &[],
        &[("bb", 2), ("c", 1), ("a longer one than fits", 1 << 40)],
    ]);
    let progress = Progress::new();
    for max_memory in [None, Some(0)] {
        let (words, ..) = load_counts(&paths, 2, max_memory, &progress).expect("loads");
        assert_eq!((words.pretokens(), words.symbols()), (3, 23 + 3));
        let mut hands = [vec![], vec![], vec![]];
        let dealt = words.deal(&mut hands, &progress, |hand, word, count| {
            hand.push((word.to_vec(), count));
            Ok(())
        });
        dealt.expect("readable");
        let expected = [(b"a longer one than fits".to_vec(), 1 << 41), (b"bb".to_vec(), 3)];
        assert_eq!(hands, [&expected[..1], &expected[1..], &[]]);
    }
    let (_, pattern, special) = load_counts(&paths, 2, None, &progress).expect("loads");
    assert_eq!((pattern.name(), special.tokens()), ("gpt2", &["<|e|>".to_owned()][..]));
}

#[test]
fn counts_files_do_not_depend_on_the_order_of_counting() {
    let (_folder, paths) = saved(&[&[("b", 1), ("a", 5)], &[("a", 5), ("b", 1)]]);
    let read = |path: &std::path::PathBuf| std::fs::read(path).expect("readable");
    assert_eq!(read(&paths[0]), read(&paths[1]));
}

#[test]
fn refuses_counts_that_were_counted_differently() {
    let (folder, mut paths) = saved(&[&[("a", 1)]]);
    let special = SpecialTokens::new(&["<|e|>"]).expect("good tokens");
    let pattern = Pattern::parse(r"\w+").expect("a regular expression");
    paths.push(folder.path().join("pattern.bin"));
    save(&paths[1], counts_of(&[]), &pattern, &special);
    let error = refused(&paths);
    assert!(error.contains("pattern.bin") && error.contains("gpt2"), "{error}");
    paths[1] = folder.path().join("special.bin");
    let none = SpecialTokens::default();
    save(&paths[1], counts_of(&[]), &Pattern::Gpt2, &none);
    let error = refused(&paths);
    assert!(error.contains("special.bin") && error.contains("<|e|>"), "{error}");
}

#[test]
fn refuses_every_counts_file_with_a_byte_changed_cut_or_added() {
    let (_folder, paths) = saved(&[&[("a", 1), ("bc", 300)]]);
    let good = std::fs::read(&paths[0]).expect("readable");
    let mut wrong: Vec<Vec<u8>> = (0..good.len()).map(|len| good[..len].to_vec()).collect();
    wrong.push([&good[..], b"x"].concat());
    for at in 0..good.len() {
        wrong.push(good.clone());
        wrong.last_mut().expect("just pushed")[at] ^= 1;
    }
    for bytes in wrong {
        std::fs::write(&paths[0], bytes).expect("room on disk");
        assert!(refused(&paths).contains("0.bin"));
    }
}
