use std::collections::HashMap;

use proptest::prelude::*;

use super::count::Ranking;
use super::*;
use crate::vocab::TokenId;

/// Byte-pair encoding, obviously: all pairs are counted again for every merge.
fn obvious(words: &[(Vec<u8>, u64)], num_merges: usize) -> Vec<Merge> {
    let mut words: Vec<(Vec<TokenId>, u64)> = words
        .iter()
        .map(|(word, count)| (word.iter().map(|&byte| byte.into()).collect(), *count))
        .collect();
    let mut tokens: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    let mut merges = Vec::new();
    while merges.len() < num_merges {
        let mut counts: HashMap<Merge, u64> = HashMap::new();
        for (word, count) in &words {
            for pair in word.windows(2) {
                *counts.entry((pair[0], pair[1])).or_default() += count;
            }
        }
        let bytes = |(left, right): Merge| (&tokens[left as usize], &tokens[right as usize]);
        let Some((&pair, _)) = counts.iter().max_by_key(|&(&pair, count)| (count, bytes(pair)))
        else {
            break;
        };
        let joined = [bytes(pair).0.as_slice(), bytes(pair).1.as_slice()].concat();
        let id = tokens.len() as TokenId;
        tokens.push(joined);
        merges.push(pair);
        for (word, _) in &mut words {
            let mut at = 0;
            while at + 1 < word.len() {
                if (word[at], word[at + 1]) == pair {
                    word.splice(at..at + 2, [id]);
                }
                at += 1;
            }
        }
    }
    merges
}

/// The words, sorted in memory or on the disk.
fn ranked(words: &[(Vec<u8>, u64)], max_memory: Option<u64>) -> Ranked {
    let (mut ranking, progress) = (Ranking::new(max_memory), Progress::new());
    for (word, count) in words {
        ranking.push(word, *count, &progress).expect("room on disk");
    }
    ranking.finish(&progress).expect("room on disk")
}

fn train(words: &[(Vec<u8>, u64)], num_merges: usize, threads: usize) -> Vec<Merge> {
    let words = ranked(words, None);
    train_merges(words, num_merges, threads, None, &Progress::new()).expect("trains")
}

/// Words over a few letters, so that ties, overlaps and runs are everywhere.
fn words(
    letters: u8,
    longest: usize,
    most: usize,
    max_count: u64,
) -> impl Strategy<Value = Vec<(Vec<u8>, u64)>> {
    let word = prop::collection::vec((0..letters).prop_map(|letter| b'a' + letter), 1..longest);
    prop::collection::vec((word, 1..=max_count), 0..most).prop_map(|mut words| {
        words.sort();
        words.dedup_by(|one, other| one.0 == other.0);
        words
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn equals_the_obvious_trainer(
        words in prop_oneof![
            words(1, 30, 8, 3),
            words(2, 12, 40, 1),
            words(2, 24, 12, 5),
            words(3, 9, 60, 1000),
            words(5, 16, 60, 2),
            words(26, 8, 80, 20),
        ],
        num_merges in 0usize..150,
        threads in 1usize..5,
    ) {
        prop_assert_eq!(train(&words, num_merges, threads), obvious(&words, num_merges));
    }

    #[test]
    fn equals_the_obvious_trainer_in_little_memory_and_with_wide_ids(
        words in prop_oneof![words(2, 24, 12, 5), words(3, 9, 60, 1000), words(26, 8, 80, 20)],
        max_memory in prop::sample::select(vec![0u64, 100, 1000, 4000]),
    ) {
        let (expected, progress) = (obvious(&words, 80), Progress::new());
        let limit = Some(max_memory);
        let narrow = train_merges(ranked(&words, limit), 80, 2, limit, &progress);
        prop_assert_eq!(narrow.expect("trains"), &expected[..]);
        let wide = Merging::<u32>::new(ranked(&words, None), 2, Some(max_memory), &progress);
        prop_assert_eq!(wide.expect("fits").run(80).expect("trains"), expected);
    }

    #[test]
    fn equals_the_obvious_trainer_on_any_bytes(
        words in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..20), 1u64..4), 0..30),
        threads in 1usize..4,
    ) {
        prop_assert_eq!(train(&words, 60, threads), obvious(&words, 60));
    }
}

#[test]
fn ties_go_to_the_greatest_bytes() {
    // All pairs occur once. (b"b", b"c") is the greatest; then (b"a", b"bc").
    let words = [(b"abc".to_vec(), 1), (b"ab".to_vec(), 1)];
    assert_eq!(train(&words, 1, 1), [(97, 98)]);
    assert_eq!(train(&words[..1], 2, 1), [(98, 99), (97, 256)]);
    // The left token decides first: b"ab" before b"b", however long.
    let words = [(b"xab".to_vec(), 2), (b"zab".to_vec(), 2)];
    assert_eq!(train(&words, 2, 1), obvious(&words, 2));
}

#[test]
fn runs_count_every_place_and_merge_leftmost_first() {
    let words = [(b"aaaaa".to_vec(), 1), (b"bc".to_vec(), 3)];
    // (a, a) occurs at four places; then aa aa a: (aa, aa) and (aa, a) once each.
    assert_eq!(train(&words, 9, 1), [(97, 97), (98, 99), (256, 256), (258, 97)]);
}

#[test]
fn counts_beyond_32_bits() {
    let words = [(b"ab".to_vec(), 3 << 32), (b"cd".to_vec(), (3 << 32) + 1), (b"ef".to_vec(), 7)];
    assert_eq!(train(&words, 3, 2), [(99, 100), (97, 98), (101, 102)]);
}

#[test]
fn many_places_are_merged_by_several_threads() {
    let mut state = 1u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let mut words: HashMap<Vec<u8>, u64> = HashMap::new();
    for _ in 0..30_000 {
        let word = (0..2 + random(12)).map(|_| b"aabc"[random(4) as usize]).collect();
        *words.entry(word).or_default() += 1 + random(3);
    }
    let words: Vec<_> = words.into_iter().collect();
    let expected = obvious(&words, 40);
    assert_eq!(train(&words, 40, 1), expected);
    assert_eq!(train(&words, 40, 3), expected);
}

fn train_file(text: &str, vocab_size: usize, special: &[&str]) -> Result<Trained> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("corpus.txt");
    std::fs::write(&path, text).expect("room on disk");
    let special = SpecialTokens::new(special)?;
    super::train(
        &[path],
        vocab_size,
        &special,
        &Pattern::Gpt2,
        &TrainOptions::new(2),
        &Progress::new(),
    )
}

#[test]
fn special_tokens_bound_pretokens_and_come_last() {
    let trained = train_file("abab<|e|>abab<|e|><|e|>a", 259, &["<|e|>"]).expect("trains");
    assert_eq!(trained.merges, [(97, 98), (256, 256)]);
    assert_eq!(trained.missing_merges, 0);
    let vocab = trained.vocab().expect("a vocabulary");
    assert_eq!(vocab.token(257), Some(b"abab".as_slice()));
    assert_eq!(vocab.token(258), Some(b"<|e|>".as_slice()));
}

#[test]
fn stops_early_where_no_pair_is_left() {
    let trained = train_file("abc", 1000, &["<|e|>"]).expect("trains");
    assert_eq!((trained.merges.len(), trained.missing_merges), (2, 1000 - 257 - 2));
}

#[test]
fn refuses_what_cannot_be() {
    let refused = |text, vocab_size, special: &[&str]| {
        train_file(text, vocab_size, special).expect_err("refused").to_string()
    };
    assert!(refused("abc", 257, &["<|e|>", "<|f|>"]).contains("vocab_size 257"));
    assert!(refused("abc", 1000, &["x"]).contains("\"x\""));
    assert!(refused("", 1000, &[]).contains("corpus.txt"));
    assert!(refused("<|e|>", 1000, &["<|e|>"]).contains("corpus.txt"));
}

#[test]
fn stops_on_request() {
    let progress = Progress::new();
    progress.cancel();
    let words = ranked(&[(b"ab".to_vec(), 1)], None);
    let stopped = train_merges(words, 1, 1, None, &progress);
    assert!(matches!(stopped, Err(Error::Cancelled)));
}

#[test]
fn training_on_counts_files_is_training_on_the_text() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let texts = ["low lower lowest<|e|>newer newest", "wider low", "lowest of the low, the widest"];
    let special = SpecialTokens::new(&["<|e|>"]).expect("good tokens");
    let (pattern, options, progress) = (Pattern::Gpt2, TrainOptions::new(2), Progress::new());
    let (mut shards, mut counted) = (Vec::new(), Vec::new());
    for (index, text) in texts.iter().enumerate() {
        shards.push(folder.path().join(format!("{index}.txt")));
        std::fs::write(&shards[index], text).expect("room on disk");
        let counts = count_files(&shards[index..=index], &special, &pattern, &options, &progress);
        counted.push(folder.path().join(format!("{index}.bin")));
        let counts = counts.expect("counts");
        crate::train::count::save_counts(&counted[index], counts, &pattern, &special, &progress)
            .expect("saves");
    }
    let whole = super::train(&shards, 290, &special, &pattern, &options, &progress);
    let from_counts = train_counts(&counted, 290, &options.count, &progress).expect("trains");
    assert_eq!(from_counts.merges, whole.expect("trains").merges);
    assert_eq!(from_counts.special.tokens(), ["<|e|>"]);
}
