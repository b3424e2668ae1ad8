//! Reads Hugging Face's `tokenizer.json`, as far as it holds a byte-level BPE tokenizer.
//!
//! What would change the ids and is not supported is refused by name: normalizers, pre-tokenizers
//! other than one split by a regular expression, dropout, affixes, byte fallback, added tokens that
//! strip white space. Regular expressions are Oniguruma's there and are translated
//! ([`super::dialect`]). Post-processors (which add tokens around a text), truncation and padding
//! are not part of a tokenizer here, where a text's ids are those of all of its bytes and of nothing
//! else: a note says so, and they are kept for saving.
//!
//! Source: the serialized form of the library `tokenizers`.

use std::path::Path;

use aho_corasick::AhoCorasick;
use serde::Deserialize;
use serde_json::Value;

use super::dialect::{Dialect, translate};
use super::extras::{AddedFlags, Extras};
use super::json::{Merges, Tokens};
use super::parts::TokenizerParts;
use super::spelling::unspell_tokens;
use super::text_file::{in_file, read_text};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::text::custom::THEN;
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

/// A field of a Split that only this crate writes and reads: the pattern as it was before it was
/// translated, which is the one where the translation of both is the same.
pub const FANCY_REGEX: &str = "fancy_regex";

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    padding: Value,
    model: Model,
}

#[derive(Deserialize)]
struct AddedToken {
    id: TokenId,
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Tokens,
    #[serde(default)]
    merges: Merges,
}

/// Reads a `tokenizer.json`. With a `pattern` of the caller's, its own is not looked at.
pub fn load(path: &Path, pattern: Option<&Pattern>, progress: &Progress) -> Result<TokenizerParts> {
    let text = read_text(path, progress)?;
    let mut parts = read(&text, pattern, progress).map_err(|error| in_file(path, error))?;
    for note in &mut parts.notes {
        *note = format!("{}: {note}", path.display());
    }
    Ok(parts)
}

fn read(text: &str, pattern: Option<&Pattern>, progress: &Progress) -> Result<TokenizerParts> {
    let file: TokenizerJson = serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!("is not a byte-level BPE tokenizer.json: {error}"))
    })?;
    check_model(&file.model)?;
    check_normalizer(&file.normalizer)?;
    check_added_tokens(&file.added_tokens)?;
    let pattern = match pattern {
        Some(pattern) => pattern.clone(),
        None => pattern_of(&file.pre_tokenizer)?,
    };
    progress.check()?;
    let mut vocab = read_vocab(&file, progress)?;
    vocab.set_whole_words_first(file.model.ignore_merges);
    let notes = notes(&file)?;
    let mut extras = Extras::default();
    for token in &file.added_tokens {
        let AddedToken { special, normalized, .. } = *token;
        extras.set_flags(&token.content, AddedFlags { special, normalized });
    }
    extras.post_processor = file.post_processor;
    extras.truncation = file.truncation;
    extras.padding = file.padding;
    let special_tokens = file.added_tokens.into_iter().map(|token| token.content).collect();
    let parts = TokenizerParts::new(vocab, special_tokens, pattern);
    Ok(TokenizerParts { extras, notes, ..parts })
}

/// What Hugging Face's library does to ids beyond what is done here.
fn notes(file: &TokenizerJson) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if let Some(added) = added_around(&file.post_processor)? {
        notes.push(format!(
            "its post-processor adds {added} to each text in Hugging Face's library; here the ids \
             are those of the text alone"
        ));
    }
    if !file.truncation.is_null() {
        let length = file.truncation.get("max_length").unwrap_or(&Value::Null);
        notes.push(format!("truncation (to {length} ids) is not done here: ids are of all text"));
    }
    if !file.padding.is_null() {
        notes.push("padding is not done here: no ids are added to short texts".to_owned());
    }
    Ok(notes)
}

/// The special tokens that a post-processor adds, as a list in words.
fn added_around(processor: &Value) -> Result<Option<String>> {
    let kind = processor.get("type").and_then(Value::as_str).unwrap_or_default();
    let tokens: Vec<String> = match kind {
        // Without a change to ids: it trims offsets.
        _ if processor.is_null() => return Ok(None),
        "ByteLevel" => return Ok(None),
        "Sequence" => {
            let steps = processor.get("processors").and_then(Value::as_array);
            let steps = steps.into_iter().flatten().map(added_around);
            steps.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect()
        }
        "TemplateProcessing" => {
            let pieces = processor.get("single").and_then(Value::as_array);
            let id =
                |piece: &Value| Some(piece.get("SpecialToken")?.get("id")?.as_str()?.to_owned());
            pieces.into_iter().flatten().filter_map(id).collect()
        }
        "BertProcessing" | "RobertaProcessing" => {
            let name = |key| Some(processor.get(key)?.get(0)?.as_str()?.to_owned());
            ["cls", "sep"].into_iter().filter_map(name).collect()
        }
        _ => return refuse(format!("the post-processor ({kind}) is not supported")),
    };
    Ok((!tokens.is_empty()).then(|| tokens.join(" and ")))
}

/// Added tokens may or may not be listed in the model's vocabulary; if so, that id counts.
fn read_vocab(file: &TokenizerJson, progress: &Progress) -> Result<Vocab> {
    let written = &file.model.vocab;
    let mut added: Vec<&[u8]> =
        file.added_tokens.iter().map(|token| token.content.as_bytes()).collect();
    added.sort_unstable();
    let mut listed = vec![false; added.len()];
    let tokens = unspell_tokens(written, |token, _| match added.binary_search(&token) {
        Ok(place) => {
            listed[place] = true;
            true
        }
        Err(_) => false,
    });
    check_ids(file, |token| added.binary_search(&token).is_ok_and(|place| listed[place]))?;
    let is_listed = |token: &[u8]| added.binary_search(&token).is_ok_and(|place| listed[place]);
    let others = file.added_tokens.iter().map(|token| (token.id, token.content.as_bytes()));
    let others = others.filter(|(_, token)| !is_listed(token));
    let listed = written.ids.iter().copied().zip(tokens.iter());
    // Where the caller says stop, the merges end and so does the reading.
    let merges = file.model.merges.iter().take_while(|_| progress.check().is_ok());
    let vocab = Vocab::new(listed.chain(others), merges);
    progress.check()?;
    vocab
}

/// Hugging Face's library numbers added tokens that the model does not list by itself, one after
/// the other, whatever their id in the file is.
fn check_ids(file: &TokenizerJson, is_listed: impl Fn(&[u8]) -> bool) -> Result<()> {
    let size = file.model.vocab.ids.len() as TokenId;
    let mut largest = None;
    for token in &file.added_tokens {
        let id = match is_listed(token.content.as_bytes()) {
            true => token.id,
            false => largest.map_or(size, |largest: TokenId| size.max(largest + 1)),
        };
        if id != token.id {
            return refuse(format!(
                "added token {:?} has id {}, to which Hugging Face's library pays no heed: it gives \
                 it {id}, the next one after the vocabulary; list it in the model's vocabulary",
                token.content, token.id
            ));
        }
        largest = largest.max(Some(id));
    }
    Ok(())
}

fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::invalid(reason))
}

fn check_model(model: &Model) -> Result<()> {
    let affix = |affix: &Option<String>| affix.as_ref().is_some_and(|affix| !affix.is_empty());
    let feature = match &model.kind {
        Some(kind) if kind != "BPE" => return refuse(format!("the model is {kind}, not BPE")),
        _ if model.dropout.is_some_and(|dropout| dropout != 0.0) => "dropout",
        _ if affix(&model.continuing_subword_prefix) => "continuing_subword_prefix",
        _ if affix(&model.end_of_word_suffix) => "end_of_word_suffix",
        _ if model.byte_fallback => "byte_fallback",
        _ => return Ok(()),
    };
    refuse(format!("the model's {feature} is not supported"))
}

fn check_normalizer(normalizer: &Value) -> Result<()> {
    let empty = |steps: &Value| steps.as_array().is_some_and(Vec::is_empty);
    if normalizer.is_null() || normalizer.get("normalizers").is_some_and(empty) {
        return Ok(());
    }
    let kind = normalizer.get("type").and_then(Value::as_str).unwrap_or("without a type");
    refuse(format!("the normalizer ({kind}) is not supported: text is encoded as it is"))
}

fn check_added_tokens(tokens: &[AddedToken]) -> Result<()> {
    for token in tokens {
        let flag = match token {
            AddedToken { single_word: true, .. } => "single_word",
            AddedToken { lstrip: true, .. } => "lstrip",
            AddedToken { rstrip: true, .. } => "rstrip",
            _ => continue,
        };
        return refuse(format!("added token {:?}: {flag} is not supported", token.content));
    }
    // `tokenizers` looks for all tokens that are not "normalized" first, and for the others in
    // what is left; here the leftmost and longest of all wins. The result is the same unless one of
    // the first kind can begin inside one of the second.
    let of = |normalized: bool| {
        let kind = tokens.iter().filter(move |token| token.normalized == normalized);
        kind.map(|token| token.content.as_str()).filter(|content| !content.is_empty())
    };
    let mut early: Vec<&str> = of(false).collect();
    early.sort_unstable();
    let finder = AhoCorasick::new(&early)
        .map_err(|error| Error::invalid(format!("added tokens: {error}")))?;
    let longest = early.iter().map(|token| token.len()).max().unwrap_or(0);
    for late in of(true) {
        let inside = finder.find(late).filter(|found| found.len() < late.len());
        let inside = inside.map(|found| early[found.pattern().as_usize()]);
        if let Some(early) = inside.or_else(|| begins_with_end_of(late, &early, longest)) {
            return refuse(format!(
                "added tokens {late:?} and {early:?} overlap, and only one is \"normalized\": this \
                 is not supported"
            ));
        }
    }
    Ok(())
}

/// One of the sorted `tokens`, none longer than `longest`, that begins with an end of `text`
/// (shorter than all of it).
fn begins_with_end_of<'t>(text: &str, tokens: &[&'t str], longest: usize) -> Option<&'t str> {
    let first = text.len().saturating_sub(longest).max(1);
    (first..text.len()).filter(|&at| text.is_char_boundary(at)).find_map(|at| {
        let end = &text[at..];
        let place = tokens.partition_point(|token| *token < end);
        tokens.get(place).copied().filter(|token| token.starts_with(end))
    })
}

/// How text is divided into pretokens.
fn pattern_of(pre_tokenizer: &Value) -> Result<Pattern> {
    let single = std::slice::from_ref(pre_tokenizer);
    let steps = match pre_tokenizer.get("pretokenizers").and_then(Value::as_array) {
        Some(steps) => steps.as_slice(),
        None => single,
    };
    let kind = |step: &Value| step.get("type").and_then(Value::as_str).unwrap_or("none").to_owned();
    match steps {
        [bytes] if kind(bytes) == "ByteLevel" => {
            check_byte_level(bytes)?;
            match uses_regex(bytes) {
                true => Ok(Pattern::Gpt2),
                // The text is one pretoken.
                false => Pattern::parse(r"(?s).+"),
            }
        }
        [split, bytes] if isolates_digits(split) && kind(bytes) == "ByteLevel" => {
            check_byte_level(bytes)?;
            match uses_regex(bytes) {
                true => Ok(Pattern::Starcoder),
                false => Pattern::parse(r"\p{N}"),
            }
        }
        [splits @ .., bytes]
            if splits.iter().all(|split| kind(split) == "Split") && kind(bytes) == "ByteLevel" =>
        {
            check_byte_level(bytes)?;
            let mut patterns = splits.iter().map(pattern_of_split).collect::<Result<Vec<_>>>()?;
            if uses_regex(bytes) {
                patterns.push(Pattern::Gpt2);
            }
            match patterns.as_slice() {
                [pattern] => Ok(pattern.clone()),
                several => Pattern::parse(
                    &several.iter().map(Pattern::regex).collect::<Vec<_>>().join(THEN),
                ),
            }
        }
        _ => refuse(format!(
            "the pre-tokenizer ({}) is not supported: expected ByteLevel, alone or after Splits or \
             after Digits, one by one",
            steps.iter().map(kind).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Whether this step makes every digit a piece of its own, on whose sides what follows works apart.
fn isolates_digits(step: &Value) -> bool {
    let text = |key: &str| step.get(key).and_then(Value::as_str).unwrap_or_default();
    let flag = |key: &str| step.get(key).and_then(Value::as_bool).unwrap_or_default();
    match text("type") {
        "Digits" => flag("individual_digits"),
        "Split" => {
            let regex = step.get("pattern").and_then(|pattern| pattern.get("Regex"));
            let is_digit = regex.and_then(Value::as_str) == Some(r"\p{N}");
            is_digit && text("behavior") == "Isolated" && !flag("invert")
        }
        _ => false,
    }
}

fn uses_regex(byte_level: &Value) -> bool {
    byte_level.get("use_regex").and_then(Value::as_bool).unwrap_or(true)
}

fn check_byte_level(byte_level: &Value) -> Result<()> {
    match byte_level.get("add_prefix_space").and_then(Value::as_bool) {
        Some(false) => Ok(()),
        // Left out, it is on.
        _ => refuse("the pre-tokenizer's add_prefix_space is not supported"),
    }
}

fn pattern_of_split(split: &Value) -> Result<Pattern> {
    let text = |key: &str| split.get(key).and_then(Value::as_str).unwrap_or_default();
    let invert = split.get("invert").and_then(Value::as_bool).unwrap_or(false);
    let removed = (text("behavior"), invert) == ("Removed", true);
    if !removed && (text("behavior"), invert) != ("Isolated", false) {
        return refuse(format!(
            "the pre-tokenizer Split with behavior {:?}{} is not supported: expected \"Isolated\"",
            text("behavior"),
            if invert { ", inverted," } else { "" }
        ));
    }
    let pattern = split.get("pattern");
    let of = |key: &str| pattern.and_then(|pattern| pattern.get(key)).and_then(Value::as_str);
    let regex = match (of("Regex"), of("String")) {
        (Some(regex), _) => regex.to_owned(),
        (None, Some(literal)) => fancy_regex::escape(literal).into_owned(),
        (None, None) => return refuse("the pre-tokenizer Split has no pattern"),
    };
    let named = |error| Error::invalid(format!("the pre-tokenizer's pattern {regex:?}: {error}"));
    let translated = translate(&regex, Dialect::Oniguruma).map_err(named)?;
    if removed && !translated.covers_all {
        return refuse(format!(
            "the pre-tokenizer Split with behavior \"Removed\", inverted, drops the text between \
             two matches, which is not supported, and the pattern {regex:?} may leave some"
        ));
    }
    let original = split.get(FANCY_REGEX).and_then(Value::as_str).filter(|fancy| {
        translate(fancy, Dialect::Fancy).is_ok_and(|translated| translated.regex == regex)
    });
    Pattern::parse(original.unwrap_or(&translated.regex))
}
