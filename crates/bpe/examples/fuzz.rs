//! Hostile texts against the plain encoder of the tests, for as long as one likes:
//!
//! ```text
//! cargo run --release --example fuzz -- --minutes 10
//! cargo run --release --example fuzz -- --seed 1234      (one case again, as a failure names it)
//! ```
//!
//! A case is a small random vocabulary (trained, or of merges that no training would make), a
//! pattern, a few special tokens that overlap, and a number of texts: all classes of Unicode, mixed
//! scripts, long runs, bytes that are not UTF-8, special tokens whole and broken. Of each text:
//! the ids are the oracle's, they decode to its bytes, and pushed in pieces it has the same ids.

use std::collections::HashSet;
use std::error::Error;
use std::time::{Duration, Instant};

use bpe::{Pattern, StreamEncoder, TokenId, Tokenizer, Vocab};

#[path = "../tests/oracle/mod.rs"]
mod oracle;
mod random;
use oracle::Oracle;

use random::Random;

type Failure = Box<dyn Error>;

const CUSTOM: &str = r"\w+|\s+|[^\w\s]+";
const TEXTS_A_CASE: usize = 40;

/// Characters where scanners go wrong: each class that a pattern asks for, and its neighbours.
const CHARS: &[char] = &[
    'a',
    'b',
    'z',
    'A',
    'Z',
    's',
    'S',
    't',
    'l',
    'v',
    'e',
    'r',
    'd',
    'm',
    '\'',
    '’',
    ' ',
    ' ',
    ' ',
    '\t',
    '\n',
    '\r',
    '\u{b}',
    '\u{c}',
    '\u{1c}',
    '\u{85}',
    '\u{a0}',
    '\u{1680}',
    '\u{180e}',
    '\u{2003}',
    '\u{2028}',
    '\u{200b}',
    '\u{202f}',
    '\u{3000}',
    '\u{feff}',
    '0',
    '1',
    '9',
    '²',
    '½',
    'Ⅷ',
    '٣',
    '१',
    '𝟘',
    '.',
    ',',
    '/',
    '!',
    '<',
    '|',
    '>',
    '_',
    '-',
    '«',
    '€',
    '+',
    '©',
    'é',
    'ß',
    'ſ',
    'K',
    'ª',
    'ʰ',
    'ǅ',
    'İ',
    'ı',
    'Σ',
    'ς',
    'я',
    'Ё',
    'ა',
    'Ა',
    'א',
    'ش',
    'ا',
    'ह',
    'ि',
    '्',
    'ก',
    'ำ',
    '中',
    '国',
    '日',
    '本',
    'の',
    'カ',
    'ー',
    '한',
    '글',
    '\u{301}',
    '\u{20e3}',
    '\u{e000}',
    '\u{fffd}',
    '😀',
    '👩',
    '\u{200d}',
    '🏽',
    '🇩',
    '𝓗',
    '𠜎',
    '\u{1f9ff}',
    '\u{e0100}',
    '\u{10fffd}',
    '\0',
    '\u{7f}',
];

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--seed", seed] => {
            run_case(seed.parse()?)?;
            println!("case {seed}: no finding");
            Ok(())
        }
        ["--minutes", minutes] => run_for(Duration::from_secs_f64(60.0 * minutes.parse::<f64>()?)),
        _ => Err("usage: fuzz --minutes N | --seed N".into()),
    }
}

fn run_for(time: Duration) -> Result<(), Failure> {
    let began = Instant::now();
    let (mut cases, mut texts, mut bytes) = (0u64, 0u64, 0u64);
    // Another run looks at other cases.
    let mut seed = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_nanos() as u64;
    while began.elapsed() < time {
        seed = seed.wrapping_add(1);
        let case = std::panic::catch_unwind(|| run_case(seed).map_err(|why| why.to_string()));
        let (more_texts, more_bytes) = match case {
            Ok(Ok(sizes)) => sizes,
            Ok(Err(why)) => return Err(format!("seed {seed}: {why}").into()),
            Err(_) => return Err(format!("seed {seed}: panicked").into()),
        };
        (cases, texts, bytes) = (cases + 1, texts + more_texts, bytes + more_bytes);
    }
    println!(
        "{cases} tokenizers, {texts} texts, {:.1} MB in {:.0} s: no finding",
        bytes as f64 / 1e6,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// How many texts were looked at, and how many bytes they had.
fn run_case(seed: u64) -> Result<(u64, u64), Failure> {
    let mut random = Random(seed);
    let known: Vec<Pattern> = Pattern::known().collect();
    let mut names: Vec<&str> = known.iter().map(Pattern::name).collect();
    names.push(CUSTOM);
    let name = random.choose(&names);
    let pattern = Pattern::parse(name)?;
    let special = special_tokens(&mut random);
    let sample = text(&mut random, &special);
    let mut vocab = match random.below(3) {
        0 => weird_vocab(&mut random, &sample, &special)?,
        _ => trained_vocab(&mut random, &pattern, &sample, &special)?,
    };
    vocab.set_whole_words_first(random.below(4) == 0);
    let whole_words = vocab.whole_words_first();
    let tokenizer = Tokenizer::new(vocab, &special, pattern)?;
    let oracle = Oracle::new(tokenizer.vocab(), tokenizer.pattern().regex());
    let words = Words { tokenizer: &tokenizer, oracle, special: &special, whole_words };
    let mut total = 0;
    for _ in 0..TEXTS_A_CASE {
        let text = text(&mut random, &special);
        total += text.len() as u64;
        check(&mut random, &words, &text)
            .map_err(|why| format!("{why}\n  pattern {name:?}, special {special:?}\n  {text:?}"))?;
    }
    Ok((TEXTS_A_CASE as u64, total))
}

fn check(random: &mut Random, words: &Words, text: &[u8]) -> Result<(), Failure> {
    let tokenizer = words.tokenizer;
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids)?;
    if ids != words.encode(text, words.special) {
        return Err("other ids than the oracle's".into());
    }
    let mut back = Vec::new();
    tokenizer.decode(&ids, &mut back)?;
    if back != text {
        return Err("does not decode to what was encoded".into());
    }
    let mut ordinary = Vec::new();
    tokenizer.encode_ordinary(text, &mut ordinary)?;
    if ordinary != words.encode(text, &[]) {
        return Err("other ids than the oracle's for ordinary text".into());
    }
    // Often enough repeated to be worth a cut.
    let repeated = text.repeat(1 + random.below(3) * (40_000 / (text.len() + 1)));
    let mut expected = Vec::new();
    tokenizer.encode(&repeated, &mut expected)?;
    let mut stream = StreamEncoder::new(tokenizer);
    let (mut rest, mut streamed) = (repeated.as_slice(), Vec::new());
    while !rest.is_empty() {
        let most = random.choose(&[2, 30, 5_000, 40_000]);
        let (piece, after) = rest.split_at(rest.len().min(1 + random.below(most)));
        stream.push(piece, &mut streamed)?;
        rest = after;
    }
    stream.finish(&mut streamed)?;
    if streamed != expected {
        return Err(format!("other ids in pieces, of {} bytes", repeated.len()).into());
    }
    Ok(())
}

/// The oracle, for bytes: one that is not UTF-8 is shown to it as a character of its own.
struct Words<'w> {
    tokenizer: &'w Tokenizer,
    oracle: Oracle<'w>,
    special: &'w [&'w str],
    whole_words: bool,
}

/// Stands for an invalid byte, `STAND_IN + byte`: a private-use character, so not a letter, number
/// or space; no text has it otherwise.
const STAND_IN: u32 = 0xF_0000;

impl Words<'_> {
    fn encode(&self, text: &[u8], special: &[&str]) -> Vec<TokenId> {
        let mut shown = String::new();
        for chunk in text.utf8_chunks() {
            shown.push_str(chunk.valid());
            let stand_in = |&byte: &u8| char::from_u32(STAND_IN + u32::from(byte));
            shown.extend(chunk.invalid().iter().filter_map(stand_in));
        }
        let vocab = self.tokenizer.vocab();
        let mut ids = Vec::new();
        self.oracle.for_each_word(special, &shown, |word, is_special| {
            let word = bytes_of(word);
            match vocab.id(&word) {
                Some(id) if is_special => ids.push(id),
                Some(id) if self.whole_words && !self.is_special(&word) => ids.push(id),
                _ => ids.extend(self.oracle.encode_word(&word)),
            }
        });
        ids
    }

    fn is_special(&self, word: &[u8]) -> bool {
        self.special.iter().any(|token| token.as_bytes() == word)
    }
}

fn bytes_of(shown: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for char in shown.chars() {
        match u32::from(char).checked_sub(STAND_IN).and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend(char.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

fn special_tokens(random: &mut Random) -> Vec<&'static str> {
    const ALL: [&str; 9] = ["<|e|>", "<|e|><|e|>", "|>", "|><|", "aba", "ab", " b", "日本", "\n\n"];
    ALL.into_iter().filter(|_| random.below(4) == 0).collect()
}

/// What training on `sample` makes.
fn trained_vocab(
    random: &mut Random,
    pattern: &Pattern,
    sample: &[u8],
    special: &[&str],
) -> Result<Vocab, Failure> {
    let mut words = Vec::new();
    pattern.for_each(sample, |word| words.push(word))?;
    let merges = oracle::train(&words, random.below(120));
    let mut tokens = merged(&merges);
    tokens.extend(special.iter().map(|token| token.as_bytes().to_vec()));
    let distinct: HashSet<&Vec<u8>> = tokens.iter().collect();
    match distinct.len() == tokens.len() {
        true => Ok(Vocab::from_merges(&merges, special)?),
        // A merge made what is also a special token, which this training takes for text.
        false => weird_vocab(random, sample, special),
    }
}

/// Tokens that are merged from any two before, in an order that is not that of their making.
fn weird_vocab(random: &mut Random, sample: &[u8], special: &[&str]) -> Result<Vocab, Failure> {
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    let mut letters: Vec<Vec<u8>> = sample.iter().take(12).map(|&byte| vec![byte]).collect();
    letters.push(b"a".to_vec());
    let mut merges = Vec::new();
    for _ in 0..random.below(60) {
        let (left, right) = (random.choose(&letters), random.choose(&letters));
        let token = [left.as_slice(), &right].concat();
        let is_special = special.iter().any(|special| special.as_bytes() == token);
        if token.len() <= 40 && !tokens.contains(&token) && !is_special {
            letters.push(token.clone());
            tokens.push(token);
            merges.push((left, right));
        }
    }
    for i in (1..merges.len()).rev() {
        merges.swap(i, random.below(i + 1));
    }
    tokens.extend(special.iter().map(|token| token.as_bytes().to_vec()));
    let tokens = tokens.into_iter().enumerate().map(|(id, token)| (id as TokenId, token));
    Ok(Vocab::new(tokens, merges)?)
}

/// The bytes of all tokens that merges make.
fn merged(merges: &[(TokenId, TokenId)]) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
    for &(left, right) in merges {
        tokens.push([tokens[left as usize].as_slice(), &tokens[right as usize]].concat());
    }
    tokens
}

fn text(random: &mut Random, special: &[&str]) -> Vec<u8> {
    let mut text = Vec::new();
    // A text of few different characters is merged most.
    let few: Vec<char> = (0..1 + random.below(6)).map(|_| random.choose(CHARS)).collect();
    for _ in 0..random.below(40) {
        match random.below(10) {
            0..4 => push(&mut text, random.choose(&few), 1 + random.below(4)),
            4 | 5 => push(&mut text, random.choose(CHARS), 1),
            6 => push(&mut text, random.any_char(), 1),
            7 if random.below(6) == 0 => push(&mut text, random.choose(&few), random.below(150)),
            7 => text.push(random.next() as u8),
            8 if !special.is_empty() => {
                let token = random.choose(special).as_bytes();
                let broken = random.below(3) == 0;
                text.extend(&token[..if broken { random.below(token.len()) } else { token.len() }]);
            }
            _ => text.extend(
                random.choose(&["the", " the", "'ll", "'S", "<|e|", "123", "  \n"]).bytes(),
            ),
        }
    }
    text
}

fn push(text: &mut Vec<u8>, char: char, times: usize) {
    (0..times).for_each(|_| text.extend(char.encode_utf8(&mut [0; 4]).as_bytes()));
}

impl Random {
    /// Any but surrogates and those that stand for bytes.
    fn any_char(&mut self) -> char {
        loop {
            let most = self.choose(&[0x250, 0x3000, 0x1_0000, 0x11_0000]);
            let code = self.below(most) as u32;
            if !(STAND_IN..STAND_IN + 256).contains(&code)
                && let Some(char) = char::from_u32(code)
            {
                return char;
            }
        }
    }
}
