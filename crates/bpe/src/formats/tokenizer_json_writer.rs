//! Writes `tokenizer.json` so that `tokenizers` and `transformers` load it as it is and give the
//! same ids, and the few lines of `tokenizer_config.json` by which `AutoTokenizer` recognizes it.
//! They match a custom regular expression with Oniguruma, into whose dialect it is translated
//! ([`super::dialect`]).

use std::io::{self, Write};

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::{Value, json};

use super::alphabet;
use super::dialect::{Dialect, translate};
use super::extras::Extras;
use super::tokenizer_json::FANCY_REGEX;
use crate::error::{Error, Result};
use crate::text::pattern::Pattern;
use crate::vocab::{TokenId, Vocab};

/// What ends a document in the tokenizers of GPT-2 and its successors.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Writes `tokenizer.json`. `tokens` are all of the vocabulary as they are spelled, by rising id;
/// `pre_tokenizer` is what [`pre_tokenizer`] makes of the pattern.
pub fn write(
    out: &mut impl Write,
    vocab: &Vocab,
    tokens: &[(TokenId, String)],
    special_tokens: &[(TokenId, &str)],
    pre_tokenizer: Value,
    extras: &Extras,
) -> io::Result<()> {
    let added = special_tokens.iter().map(|&(id, token)| {
        let mut added = added_token(token, extras);
        added["id"] = id.into();
        added
    });
    let whole = TokenizerJson {
        version: "1.0",
        truncation: &extras.truncation,
        padding: &extras.padding,
        added_tokens: added.collect(),
        normalizer: (),
        pre_tokenizer,
        post_processor: &extras.post_processor,
        decoder: byte_level(true, true),
        model: Model {
            model_type: "BPE",
            dropout: (),
            unk_token: (),
            continuing_subword_prefix: (),
            end_of_word_suffix: (),
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: vocab.whole_words_first(),
            vocab: TokenMap(tokens),
            merges: MergeList(vocab),
        },
    };
    serde_json::to_writer_pretty(&mut *out, &whole)?;
    out.write_all(b"\n")
}

/// Writes `tokenizer_config.json`. It also says which tokens of `vocab.json` are special, where that
/// is read without `tokenizer.json`.
pub fn write_config(
    out: &mut impl Write,
    special_tokens: &[(TokenId, &str)],
    extras: &Extras,
) -> io::Result<()> {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
    });
    if special_tokens.iter().any(|(_, token)| *token == END_OF_TEXT) {
        config["eos_token"] = END_OF_TEXT.into();
    }
    if !special_tokens.is_empty() {
        let decoder =
            special_tokens.iter().map(|&(id, token)| (id.to_string(), added_token(token, extras)));
        config["added_tokens_decoder"] = decoder.collect();
    }
    serde_json::to_writer_pretty(&mut *out, &config)?;
    out.write_all(b"\n")
}

#[derive(serde::Serialize)]
struct TokenizerJson<'a> {
    version: &'a str,
    truncation: &'a Value,
    padding: &'a Value,
    added_tokens: Vec<Value>,
    normalizer: (),
    pre_tokenizer: Value,
    post_processor: &'a Value,
    decoder: Value,
    model: Model<'a>,
}

#[derive(serde::Serialize)]
struct Model<'a> {
    #[serde(rename = "type")]
    model_type: &'a str,
    dropout: (),
    unk_token: (),
    continuing_subword_prefix: (),
    end_of_word_suffix: (),
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: TokenMap<'a>,
    merges: MergeList<'a>,
}

fn added_token(token: &str, extras: &Extras) -> Value {
    let flags = extras.flags_of(token);
    json!({
        "content": token,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": flags.normalized,
        "special": flags.special,
    })
}

/// GPT-2's pattern is built into `ByteLevel`; any other is a `Split` before it, or several.
///
/// # Errors
/// A regular expression that Oniguruma cannot be told.
pub fn pre_tokenizer(pattern: &Pattern) -> Result<Value> {
    let mut steps = match pattern {
        Pattern::Gpt2 => return Ok(byte_level(false, true)),
        Pattern::Custom(custom) => {
            custom.expressions().map(translated_split).collect::<Result<Vec<_>>>()?
        }
        _ => vec![split(pattern.regex())],
    };
    steps.push(byte_level(false, false));
    Ok(json!({"type": "Sequence", "pretokenizers": steps}))
}

/// The step that does in Oniguruma's words what `regex` does in fancy-regex's.
fn translated_split(regex: &str) -> Result<Value> {
    let translated = translate(regex, Dialect::Fancy).map_err(|error| {
        Error::invalid(format!(
            "pattern {regex:?}: it cannot be written to a tokenizer.json: {error}"
        ))
    })?;
    let mut step = split(&translated.regex);
    if translated.regex != regex {
        step[FANCY_REGEX] = regex.into();
    }
    Ok(step)
}

fn split(regex: &str) -> Value {
    json!({
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": "Isolated",
        "invert": false,
    })
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": true,
        "use_regex": use_regex,
    })
}

struct TokenMap<'a>(&'a [(TokenId, String)]);

impl Serialize for TokenMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in self.0 {
            map.serialize_entry(token, id)?;
        }
        map.end()
    }
}

/// As pairs: the older form, one string with a space, drops merges that begin with `#version`.
struct MergeList<'a>(&'a Vocab);

impl Serialize for MergeList<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let merges = self.0.merge_bytes();
        let mut list = serializer.serialize_seq(Some(merges.len()))?;
        for (left, right) in merges {
            list.serialize_element(&[alphabet::spell(left), alphabet::spell(right)])?;
        }
        list.end()
    }
}
