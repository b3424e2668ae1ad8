//! Encoding, decoding and batches against the plain oracle, on text of all kinds.

use bpe::{Pattern, Progress, TokenId, Tokenizer, Vocab};
use proptest::prelude::*;

use crate::oracle;

/// Overlapping ones, one inside the other, one with a space, one in the vocabulary's own bytes.
const SPECIAL: [&str; 4] = ["<|endoftext|>", "<|endoftext|><|endoftext|>", "|><|", "é x"];

/// Text to train on: enough repetition that merges are long, CJK, accents, digits, code.
const CORPUS: &str = "the cat sat on the mat, the other cats didn't. He'll say the theme is theirs \
    été élève déjà là-bas 日本語の本 日本の日曜日 中国人民 中国中国 Привет, привет мир! 🙂🙂 👨‍👩‍👧 \
    for (i = 0; i < 1000; i++) { return 1234567890; }    \t\t  \n\n\n aaaaaaaaaaaaaaaaaaaaaaaaaaaa \
    internationalization internationalisation antidisestablishmentarianism";

fn trained(num_merges: usize) -> Vocab {
    let mut words = Vec::new();
    Pattern::Gpt2.for_each(CORPUS.as_bytes(), |word| words.push(word)).unwrap();
    Vocab::from_merges(&oracle::train(&words, num_merges), &[] as &[&str]).unwrap()
}

fn tokenizer(num_merges: usize, pattern: &str) -> Tokenizer {
    Tokenizer::new(trained(num_merges), &SPECIAL, Pattern::parse(pattern).unwrap()).unwrap()
}

fn encode(tokenizer: &Tokenizer, text: &[u8]) -> Vec<TokenId> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids).unwrap();
    ids
}

/// Pieces of text that meet at interesting places.
fn text() -> impl Strategy<Value = String> {
    let words: Vec<String> = CORPUS.split_inclusive(' ').map(str::to_owned).collect();
    let piece = prop_oneof![
        4 => prop::sample::select(words),
        1 => prop::sample::select(SPECIAL.to_vec()).prop_map(str::to_owned),
        1 => "[ \t\r\n\u{a0}\u{3000}]{1,5}",
        1 => "[a-c]{1,60}",
        1 => "[日本中国人]{1,20}",
        // Dense text, and what can follow it: marks, digits, an apostrophe after another.
        2 => "[日本中国人のはー、。「\u{3000}\u{3099}']{1,40}",
        1 => "[日本、。’éa1\n 's]{1,20}",
        1 => "[<|>endoftx]{1,16}",
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn encode_equals_the_oracle(
        text in text(),
        merges in 0usize..200,
        pattern in prop::sample::select(vec!["gpt2", "gpt4", "gpt4o", "llama3", "qwen2", "qwen3.5", "nanochat", "tekken", "starcoder", r"\w+|\s+|[^\w\s]+"]),
    ) {
        let tokenizer = tokenizer(merges, pattern);
        let regex = tokenizer.pattern().regex();
        let expected = oracle::encode(tokenizer.vocab(), &SPECIAL, regex, &text);
        prop_assert_eq!(&encode(&tokenizer, text.as_bytes()), &expected);
        // A second time out of the cache; and appended to what is there.
        let mut again = vec![7];
        tokenizer.encode(text.as_bytes(), &mut again).unwrap();
        prop_assert_eq!(&again[1..], expected.as_slice());

        let plain = oracle::encode(tokenizer.vocab(), &[], regex, &text);
        let mut ordinary = Vec::new();
        tokenizer.encode_ordinary(text.as_bytes(), &mut ordinary).unwrap();
        prop_assert_eq!(ordinary, plain);
    }

    #[test]
    fn decode_gives_any_bytes_back(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b' '), Just(0xE6)], 0..300),
    ) {
        let tokenizer = tokenizer(100, "gpt2");
        let mut back = b"before ".to_vec();
        tokenizer.decode(&encode(&tokenizer, &bytes), &mut back).unwrap();
        prop_assert_eq!(back, [b"before ", bytes.as_slice()].concat());
    }

    #[test]
    fn training_never_makes_the_same_bytes_twice(
        words in prop::collection::vec("[ab]{1,16}", 1..12),
        num_merges in 0usize..80,
    ) {
        let words: Vec<&[u8]> = words.iter().map(String::as_bytes).collect();
        let merges = oracle::train(&words, num_merges);
        let vocab = Vocab::from_merges(&merges, &[] as &[&str]);
        prop_assert_eq!(vocab.map(|vocab| vocab.len()).ok(), Some(256 + merges.len()));
    }

    #[test]
    fn a_batch_is_each_text_by_itself(
        texts in prop::collection::vec(text(), 0..20),
        threads in prop::sample::select(vec![1usize, 2, 7]),
    ) {
        let tokenizer = tokenizer(150, "gpt2");
        let batch = tokenizer.encode_batch(&texts, threads, &Progress::new()).unwrap();
        let each: Vec<_> = texts.iter().map(|text| encode(&tokenizer, text.as_bytes())).collect();
        prop_assert_eq!(batch, each);
    }
}

#[test]
fn special_tokens_keep_or_get_ids() {
    let vocab = Vocab::from_merges(&[(97, 98)], &["<|a|>"]).unwrap();
    let tokenizer = Tokenizer::new(vocab, &["<|b|>", "<|a|>"], Pattern::Gpt2).unwrap();
    assert_eq!(tokenizer.special_ids(), [258, 257]);
    assert_eq!(encode(&tokenizer, b"<|a|>ab<|b|>"), [257, 256, 258]);
}

#[test]
fn an_unknown_id_is_refused_by_name_and_leaves_nothing() {
    let tokenizer = tokenizer(3, "gpt2");
    let mut out = b"kept".to_vec();
    let error = tokenizer.decode(&[97, 98, 5000, 99], &mut out).unwrap_err().to_string();
    assert!(error.contains("id 5000 (number 2 of 4)"), "{error}");
    assert_eq!(out, b"kept");
}

#[test]
fn whole_words_first_takes_a_token_that_merges_do_not_reach() {
    // "xyz" has no merge; "xy" has one. With the flag a pretoken "xyz" is one token, and inside a
    // longer pretoken it is not.
    let bytes = (0..=255u8).map(|byte| (TokenId::from(byte), vec![byte]));
    let tokens: Vec<_> = bytes
        .chain([(256, b"xy".to_vec()), (257, b"xyz".to_vec()), (258, b"<s>".to_vec())])
        .collect();
    let mut vocab = Vocab::new(tokens, [("x", "y")]).unwrap();
    let encode_with = |vocab: &Vocab, text: &[u8]| {
        encode(&Tokenizer::new(vocab.clone(), &["<s>"], Pattern::Gpt2).unwrap(), text)
    };
    assert_eq!(encode_with(&vocab, b"xyz"), [256, 122]);
    vocab.set_whole_words_first(true);
    assert_eq!(encode_with(&vocab, b"xyz<s>xyzz xyz"), [257, 258, 256, 122, 122, 32, 256, 122]);
}

#[test]
fn many_threads_share_one_tokenizer() {
    let tokenizer = tokenizer(200, "gpt2");
    let text = CORPUS.repeat(50);
    let expected = encode(&tokenizer, text.as_bytes());
    std::thread::scope(|scope| {
        for _ in 0..7 {
            scope.spawn(|| {
                (0..5).for_each(|_| assert_eq!(encode(&tokenizer, text.as_bytes()), expected));
            });
        }
    });
}
