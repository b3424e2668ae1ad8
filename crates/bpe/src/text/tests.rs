//! The scanners against the regex engine, by property.

use std::sync::LazyLock;

use fancy_regex::Regex;
use proptest::prelude::*;

use super::classes;
use super::custom::CustomPattern;
use super::known::tests::spelled;
use super::pattern::Pattern;

/// Characters that stand for every class, and every one that a pattern names.
const ALPHABET: &[&str] = &[
    "a",
    "b",
    "z",
    "A",
    "Z",
    "\u{1C5}",
    "\u{E9}",
    "\u{391}",
    "\u{3B1}",
    "\u{4E2D}",
    "\u{3042}",
    "\u{2B0}",
    "\u{301}",
    "\u{903}",
    "\u{20DD}",
    "0",
    "1",
    "9",
    "\u{661}",
    "\u{BD}",
    "\u{2167}",
    "\u{1D7D8}",
    " ",
    "\t",
    "\n",
    "\r",
    "\u{B}",
    "\u{C}",
    "\u{1C}",
    "\u{85}",
    "\u{A0}",
    "\u{1680}",
    "\u{180E}",
    "\u{2003}",
    "\u{2028}",
    "\u{2029}",
    "\u{202F}",
    "\u{205F}",
    "\u{3000}",
    "\u{200B}",
    "\u{FEFF}",
    "'",
    "s",
    "t",
    "d",
    "m",
    "l",
    "v",
    "e",
    "r",
    "S",
    "T",
    "D",
    "M",
    "L",
    "V",
    "E",
    "R",
    "\u{17F}",
    "\u{212A}",
    "!",
    "/",
    "-",
    "\u{0}",
    "\u{7F}",
    "\u{20AC}",
    "\u{2019}",
    "\u{1F600}",
    "\u{FFFD}",
    "\u{E000}",
    "\u{10FFFF}",
    "\u{1E900}",
    "\u{20000}",
    "  ",
    "\n\n",
    "'ll",
    "'re",
    "'VE",
    "'s",
    " '",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        20 => prop::sample::select(ALPHABET).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => any::<u8>().prop_map(|byte| vec![byte]),
        1 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
        1 => "[a-z]{5,20}".prop_map(String::into_bytes),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

/// Mostly ASCII, so that windows look at it, with every now and then something else.
fn sparse_text() -> impl Strategy<Value = Vec<u8>> {
    let ascii = prop::sample::select(vec![
        "a",
        "B",
        "word",
        "Word",
        "WORDs",
        "camelCase",
        " ",
        " ",
        " ",
        "  ",
        "    ",
        "\t",
        "\n",
        "\n",
        "\r\n",
        "\n\n",
        "\n    ",
        " \n",
        "'",
        "'s",
        "'ll",
        "'RE",
        "'l",
        "n't",
        "1",
        "12",
        "1234567",
        ".",
        ", ",
        "!",
        "//",
        "/",
        "--",
        "\"",
        "(",
        "\u{1}",
    ]);
    let piece = prop_oneof![
        12 => ascii.prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::sample::select(ALPHABET).prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat())
}

/// Long enough for several windows, with long runs in it.
fn long_text() -> impl Strategy<Value = Vec<u8>> {
    let run = (prop::sample::select(ALPHABET), 1usize..40)
        .prop_map(|(piece, times)| piece.repeat(times).into_bytes());
    prop::collection::vec(prop_oneof![text(), run], 0..16).prop_map(|texts| texts.concat())
}

fn pretokens<'t>(pattern: &Pattern, text: &'t [u8]) -> Vec<&'t [u8]> {
    let mut pretokens = Vec::new();
    pattern.for_each(text, |pretoken| pretokens.push(pretoken)).expect("no limit is reached");
    pretokens
}

/// The known patterns, and each as the engine has it, compiled once.
fn known() -> &'static [(Pattern, Pattern)] {
    static KNOWN: LazyLock<Vec<(Pattern, Pattern)>> = LazyLock::new(|| {
        let engine = |pattern: &Pattern| CustomPattern::new(pattern.regex()).expect("valid");
        Pattern::known()
            .map(|pattern| (pattern.clone(), Pattern::Custom(engine(&pattern))))
            .collect()
    });
    &KNOWN
}

proptest! {
    #[test]
    fn a_scanner_equals_its_regex(text in prop_oneof![text(), long_text(), sparse_text()]) {
        for (pattern, engine) in known() {
            let (name, by_hand) = (pattern.name(), pretokens(pattern, &text));
            prop_assert_eq!(by_hand, pretokens(engine, &text), "{}", name);
        }
    }

    #[test]
    fn a_scanner_equals_every_spelling(
        (name, spelling) in spelled(),
        text in prop_oneof![text(), sparse_text()],
    ) {
        let pattern = Pattern::parse(&spelling).expect("known");
        prop_assert_eq!(pattern.name(), name);
        let engine = Pattern::Custom(CustomPattern::new(&spelling).expect("valid"));
        prop_assert_eq!(pretokens(&pattern, &text), pretokens(&engine, &text), "{}", spelling);
    }

    #[test]
    fn certain_boundaries_are_certain(text in text(), before in text(), after in text()) {
        for (pattern, _) in known() {
            for at in 0..=text.len() {
                if pattern.is_certain_boundary(&text, at) {
                    let left = [&before, &text[..at]].concat();
                    let right = [&text[at..], &after].concat();
                    let whole = [left.as_slice(), &right].concat();
                    let mut apart = pretokens(pattern, &left);
                    apart.extend(pretokens(pattern, &right));
                    prop_assert_eq!(pretokens(pattern, &whole), apart);
                }
            }
        }
    }
}

#[test]
fn every_character_has_the_engines_class() {
    let classes = classes::Classes::get();
    let sets = [
        (classes::LETTER, r"\p{L}"),
        (classes::UPPER, r"[\p{Lu}\p{Lt}]"),
        (classes::LOWER, r"\p{Ll}"),
        (classes::CASELESS, r"[\p{Lm}\p{Lo}]"),
        (classes::MARK, r"\p{M}"),
        (classes::NUMBER, r"\p{N}"),
        (classes::SPACE, r"\s"),
        (classes::NEWLINE, r"[\r\n]"),
        (classes::OTHER, r"[^\s\p{L}\p{N}\p{M}]"),
    ];
    let sets = sets.map(|(class, set)| (class, Regex::new(&format!("^{set}$")).expect("valid")));
    let mut buffer = [0; 4];
    for character in '\0'..=char::MAX {
        let text = character.encode_utf8(&mut buffer);
        let (class, len) = classes.at(text.as_bytes(), 0);
        assert_eq!(len, text.len());
        for (bit, set) in &sets {
            let matches = set.is_match(text).expect("no limit is reached");
            assert_eq!(class & bit != 0, matches, "{character:?} {set}");
        }
    }
}

#[test]
fn names_and_regexes_come_back() {
    for (pattern, _) in known() {
        assert_eq!(Pattern::parse(pattern.name()).expect("known").name(), pattern.name());
        assert_eq!(Pattern::parse(pattern.regex()).expect("known").name(), pattern.name());
    }
    let custom = Pattern::parse(r"\w+|\W").expect("valid");
    assert_eq!((custom.name(), custom.regex()), (r"\w+|\W", r"\w+|\W"));
}
