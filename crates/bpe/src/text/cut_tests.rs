//! Safe cuts, by property; and text that is hard to cut, for the rooms that cut by them.

use proptest::prelude::*;

use super::cut::{last_cut, next_cut};
use super::pattern::Pattern;
use super::special::{SEARCHED, Segment, SpecialTokens};

/// Every pretoken and special token of `text`, in order: what no cut may change.
pub fn parts(text: &[u8], pattern: &Pattern, special: &SpecialTokens) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let walked = special.for_each_segment(text, |segment| match segment {
        Segment::Text(piece) => pattern.for_each(piece, |pretoken| parts.push(pretoken.to_vec())),
        Segment::Special(index) => {
            parts.push(format!("special {index}").into_bytes());
            Ok(())
        }
    });
    walked.expect("these patterns do not fail");
    parts
}

/// Text in which everything that a cut can get wrong is frequent: special tokens whole, nested,
/// overlapping and in pieces, contractions, runs of spaces, wide characters, bytes that are
/// not UTF-8. The special tokens are below.
pub fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        "aba",
        "'s",
        "'ll",
        "'",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "1",
        "23",
        "4567",
        ".",
        "!?",
        "<|x|>",
        "<|x|><|x|>",
        "<|x",
        "|>",
        "<",
        "é",
        "日本",
        "語",
        "\u{3000}",
        "😀",
        "B",
        "Ab",
        "/",
    ]);
    let piece = prop_oneof![
        20 => piece.prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

const SPECIALS: [&[&str]; 4] = [&[], &["<|x|>"], &["<|x|>", "<|x|><|x|>"], &["aba", " ", "ba b"]];

pub fn pattern() -> impl Strategy<Value = Pattern> {
    let custom = Pattern::parse(r"\w+|\s").expect("valid");
    prop::sample::select(Pattern::known().chain([custom]).collect::<Vec<_>>())
}

pub fn special() -> impl Strategy<Value = SpecialTokens> {
    prop::sample::select(SPECIALS.to_vec())
        .prop_map(|tokens| SpecialTokens::new(tokens).expect("good tokens"))
}

proptest! {
    #[test]
    fn parts_at_a_cut_are_the_parts_of_the_whole(
        text in text(),
        rest in text(),
        from in 0usize..80,
        pattern in pattern(),
        special in special(),
    ) {
        let whole = [text.clone(), rest].concat();
        let cuts = [
            next_cut(&text, from, &pattern, &special),
            last_cut(&text, 1, &pattern, &special),
            last_cut(&text, from, &pattern, &special),
        ];
        for cut in cuts.into_iter().flatten() {
            prop_assert!(0 < cut && cut <= text.len());
            let mut apart = parts(&whole[..cut], &pattern, &special);
            apart.extend(parts(&whole[cut..], &pattern, &special));
            prop_assert_eq!(apart, parts(&whole, &pattern, &special), "cut at {}", cut);
        }
    }
}

/// How many bytes are searched for special tokens to cut `text` from end to end, both ways.
fn searched(text: &[u8], pattern: &Pattern, special: &SpecialTokens) -> usize {
    SEARCHED.set(0);
    let mut at = 0;
    while let Some(cut) = next_cut(text, at + 1, pattern, special) {
        at = cut;
    }
    let mut end = text.len();
    while let Some(cut) = last_cut(&text[..end], 1, pattern, special) {
        end = cut;
    }
    SEARCHED.get()
}

#[test]
fn the_number_of_special_tokens_costs_nothing() {
    let text: String = (0..2000).map(|i| format!("<|{:04}|>", i % 10)).collect();
    for pattern in ["gpt2", r"\w+|\W"] {
        let pattern = Pattern::parse(pattern).expect("valid");
        let work = |tokens: usize| {
            let tokens: Vec<String> = (0..tokens).map(|i| format!("<|{i:04}|>")).collect();
            searched(text.as_bytes(), &pattern, &SpecialTokens::new(&tokens).expect("valid"))
        };
        let (few, many) = (work(10), work(3000));
        assert!(few > text.len() && many <= few, "{few} and {many} bytes");
    }
}

#[test]
fn a_long_special_token_is_not_searched_for_around_every_place() {
    let long = "x".repeat(20_000);
    let text = "<|a|> b ".repeat(10_000);
    let special = SpecialTokens::new(&["<|a|>", &long]).expect("valid");
    SEARCHED.set(0);
    let cut = last_cut(text.as_bytes(), 1, &Pattern::Gpt2, &special);
    let searched = SEARCHED.get();
    assert!(cut.is_some() && searched < 20 * text.len(), "{searched} bytes");
}
