//! Reads Hugging Face's `tokenizer.json`, as far as it holds a byte-level BPE tokenizer.
//!
//! What would change the ids and is not supported is refused by name: normalizers, pre-tokenizers
//! other than one split by a regular expression, dropout, affixes, byte fallback, added tokens that
//! strip white space. Post-processors (which add tokens around a text), truncation and padding are
//! not part of a tokenizer here and are ignored.
//!
//! Source: the serialized form of the library `tokenizers`.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::json::{Merges, Tokens};
use super::parts::TokenizerParts;
use super::spelling::unspell_tokens;
use super::text_file::{in_file, read_text};
use crate::error::{Error, Result};
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

#[derive(Deserialize)]
struct TokenizerJson {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
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

/// Reads a `tokenizer.json`.
pub fn load(path: &Path) -> Result<TokenizerParts> {
    read(&read_text(path)?).map_err(|error| in_file(path, error))
}

fn read(text: &str) -> Result<TokenizerParts> {
    let file: TokenizerJson = serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!("is not a byte-level BPE tokenizer.json: {error}"))
    })?;
    check_model(&file.model)?;
    check_normalizer(&file.normalizer)?;
    check_added_tokens(&file.added_tokens)?;
    let pattern = Pattern::parse(&regex_of(&file.pre_tokenizer)?)?;
    let mut vocab = read_vocab(&file)?;
    vocab.set_whole_words_first(file.model.ignore_merges);
    let special_tokens = file.added_tokens.into_iter().map(|token| token.content).collect();
    Ok(TokenizerParts { vocab, special_tokens, pattern })
}

/// Added tokens may or may not be listed in the model's vocabulary; if so, that id counts.
fn read_vocab(file: &TokenizerJson) -> Result<Vocab> {
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
    let is_listed = |token: &[u8]| added.binary_search(&token).is_ok_and(|place| listed[place]);
    let others = file.added_tokens.iter().map(|token| (token.id, token.content.as_bytes()));
    let others = others.filter(|(_, token)| !is_listed(token));
    let listed = written.ids.iter().copied().zip(tokens.iter());
    Vocab::new(listed.chain(others), file.model.merges.iter())
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
    for late in tokens.iter().filter(|token| token.normalized) {
        for early in tokens.iter().filter(|token| !token.normalized) {
            let late_bytes = late.content.as_bytes();
            let inside = (1..late_bytes.len()).any(|start| {
                let (rest, early) = (&late_bytes[start..], early.content.as_bytes());
                rest.starts_with(early) || early.starts_with(rest)
            });
            if inside
                || (late.content.len() > early.content.len()
                    && late.content.starts_with(&early.content))
            {
                return refuse(format!(
                    "added tokens {:?} and {:?} overlap, and only one is \"normalized\": this is \
                     not supported",
                    late.content, early.content
                ));
            }
        }
    }
    Ok(())
}

/// The regular expression that divides text into pretokens.
fn regex_of(pre_tokenizer: &Value) -> Result<String> {
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
                true => Ok(Pattern::Gpt2.regex().to_owned()),
                // The text is one pretoken.
                false => Ok(r"(?s).+".to_owned()),
            }
        }
        [split, bytes] if kind(split) == "Split" && kind(bytes) == "ByteLevel" => {
            check_byte_level(bytes)?;
            if uses_regex(bytes) {
                return refuse(
                    "the pre-tokenizer ByteLevel with use_regex after a Split is not supported",
                );
            }
            split_regex(split)
        }
        _ => refuse(format!(
            "the pre-tokenizer ({}) is not supported: expected ByteLevel, or Split and ByteLevel",
            steps.iter().map(kind).collect::<Vec<_>>().join(", ")
        )),
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

fn split_regex(split: &Value) -> Result<String> {
    let text = |key: &str| split.get(key).and_then(Value::as_str).unwrap_or_default();
    let invert = split.get("invert").and_then(Value::as_bool).unwrap_or(false);
    // "Removed" and inverted drops what is between the matches. Patterns written that way leave
    // nothing between them; if one does, it is kept here.
    if (text("behavior"), invert) != ("Isolated", false)
        && (text("behavior"), invert) != ("Removed", true)
    {
        return refuse(format!(
            "the pre-tokenizer Split with behavior {:?}{} is not supported: expected \"Isolated\"",
            text("behavior"),
            if invert { ", inverted," } else { "" }
        ));
    }
    let pattern = split.get("pattern");
    let of = |key: &str| pattern.and_then(|pattern| pattern.get(key)).and_then(Value::as_str);
    match (of("Regex"), of("String")) {
        (Some(regex), _) => Ok(regex.to_owned()),
        (None, Some(literal)) => Ok(fancy_regex::escape(literal).into_owned()),
        (None, None) => refuse("the pre-tokenizer Split has no pattern"),
    }
}
