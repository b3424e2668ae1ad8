//! The small files beside a tokenizer's own, in which Hugging Face's library says which tokens were
//! added to a vocabulary and which are special: `added_tokens.json` (token -> id),
//! `special_tokens_map.json` and `tokenizer_config.json`.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use super::extras::AddedFlags;
use super::parts::TokenizerParts;
use super::text_file::read_text;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::vocab::TokenId;

/// The fields that name one special token each.
const ROLES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// The fields that name several, as a list or as an object of names and tokens.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];
/// Settings that change the ids of a text, and what they do.
const SWITCHES: [(&str, &str); 3] = [
    ("add_bos_token", "puts a token before each text"),
    ("add_eos_token", "puts a token after each text"),
    ("add_prefix_space", "puts a space before each text"),
];

/// What these files say, in the order of reading.
#[derive(Debug, Default)]
pub struct Companions {
    tokens: Vec<Named>,
    place: HashMap<String, usize>,
    notes: Vec<String>,
}

#[derive(Debug)]
struct Named {
    token: String,
    id: Option<TokenId>,
    flags: AddedFlags,
}

impl Companions {
    /// Those of the files in `folder` whose names begin with `prefix`, as far as they are there.
    ///
    /// # Errors
    /// A file cannot be read, is not JSON, or asks for what is not supported; the message begins
    /// with its path.
    pub fn read(folder: &Path, prefix: &str, progress: &Progress) -> Result<Self> {
        let mut found = Self::default();
        for (name, take) in [
            ("added_tokens.json", Self::take_added as fn(&mut Self, &Value) -> Result<()>),
            ("tokenizer_config.json", Self::take_config),
            ("special_tokens_map.json", Self::take_roles),
        ] {
            let path = folder.join(format!("{prefix}{name}"));
            if !path.is_file() {
                continue;
            }
            let in_file = |reason: String| Error::invalid(format!("{}: {reason}", path.display()));
            let text = read_text(&path, progress)?;
            let object: Value = serde_json::from_str(&text)
                .map_err(|error| in_file(format!("is not JSON: {error}")))?;
            take(&mut found, &object).map_err(|error| in_file(error.to_string()))?;
            found.notes.iter_mut().filter(|note| note.starts_with("sets ")).for_each(|note| {
                *note = format!("{}: {note}", path.display());
            });
        }
        Ok(found)
    }

    /// The tokens that are named.
    pub fn names(&self) -> Vec<String> {
        self.tokens.iter().map(|named| named.token.clone()).collect()
    }

    /// Adds the tokens to a vocabulary that does not say which of its tokens are special.
    ///
    /// # Errors
    /// An id that belongs to another token.
    pub fn add_all(self, parts: &mut TokenizerParts) -> Result<()> {
        let known =
            |named: &Named| named.id.is_some() || parts.vocab.id(named.token.as_bytes()).is_some();
        let (there, missing): (Vec<Named>, Vec<Named>) = self.tokens.into_iter().partition(known);
        parts.notes.extend(self.notes);
        parts.notes.extend(missing.iter().map(|named| {
            format!(
                "the special token {:?} is named beside the vocabulary and has no id in it: name \
                 it as a special token to add it",
                named.token
            )
        }));
        add(parts, there)
    }

    /// Adds the tokens that `tokenizer.json` lacks and that have an id, as `transformers` does.
    ///
    /// # Errors
    /// An id that belongs to another token.
    pub fn add_missing(self, parts: &mut TokenizerParts) -> Result<()> {
        let lacks =
            |named: &Named| named.id.is_some() && parts.vocab.id(named.token.as_bytes()).is_none();
        let missing = self.tokens.into_iter().filter(lacks).collect();
        add(parts, missing)
    }

    fn take_added(&mut self, object: &Value) -> Result<()> {
        let entries = object.as_object().ok_or_else(|| expected("tokens and their ids"))?;
        let mut entries: Vec<(TokenId, &str)> = entries
            .iter()
            .map(|(token, id)| Ok((id_of(token, id)?, token.as_str())))
            .collect::<Result<_>>()?;
        entries.sort_unstable();
        for (id, token) in entries {
            self.put(token, Some(id), AddedFlags { special: false, normalized: true });
        }
        Ok(())
    }

    fn take_config(&mut self, object: &Value) -> Result<()> {
        let decoder = object.get("added_tokens_decoder").and_then(Value::as_object);
        for (id, token) in decoder.into_iter().flatten() {
            let id = id.parse().map_err(|_| {
                Error::invalid(format!("added_tokens_decoder: {id:?} is not a token id"))
            })?;
            let (content, flags) = added_token(token, false)?;
            self.put(content, Some(id), flags);
        }
        for (switch, effect) in SWITCHES {
            if object.get(switch).and_then(Value::as_bool) == Some(true) {
                self.notes.push(format!(
                    "sets {switch}, which {effect} in Hugging Face's library; here a text is \
                     encoded as it is"
                ));
            }
        }
        self.take_roles(object)
    }

    fn take_roles(&mut self, object: &Value) -> Result<()> {
        let named = ROLES.iter().filter_map(|role| object.get(role)).filter(|one| !one.is_null());
        let mut tokens: Vec<&Value> = named.collect();
        for list in LISTS.iter().filter_map(|list| object.get(list)) {
            match list {
                Value::Array(list) => tokens.extend(list),
                Value::Object(list) => tokens.extend(list.values()),
                _ => {}
            }
        }
        for token in tokens {
            let (content, mut flags) = added_token(token, true)?;
            flags.special = true;
            self.put(content, None, flags);
        }
        Ok(())
    }

    /// What is said later about a token adds to what was said before: an id, that it is special.
    fn put(&mut self, token: &str, id: Option<TokenId>, flags: AddedFlags) {
        if let Some(&place) = self.place.get(token) {
            let named = &mut self.tokens[place];
            named.id = named.id.or(id);
            if flags.special && !named.flags.special {
                named.flags = flags;
            }
            return;
        }
        self.place.insert(token.to_owned(), self.tokens.len());
        self.tokens.push(Named { token: token.to_owned(), id, flags });
    }
}

fn add(parts: &mut TokenizerParts, named: Vec<Named>) -> Result<()> {
    for Named { token, flags, .. } in &named {
        parts.extras.set_flags(token, *flags);
    }
    let tokens: Vec<(String, Option<TokenId>)> =
        named.into_iter().map(|named| (named.token, named.id)).collect();
    parts.add_special_tokens(&tokens)
}

fn expected(what: &str) -> Error {
    Error::invalid(format!("expected an object of {what}"))
}

fn id_of(token: &str, id: &Value) -> Result<TokenId> {
    let number = id.as_u64().and_then(|id| TokenId::try_from(id).ok());
    number.ok_or_else(|| Error::invalid(format!("token {token:?}: {id} is not a token id")))
}

/// A token as a string, or as an object that says more about it.
fn added_token(value: &Value, special: bool) -> Result<(&str, AddedFlags)> {
    if let Some(token) = value.as_str() {
        return Ok((token, AddedFlags { special, normalized: false }));
    }
    let content = value.get("content").and_then(Value::as_str);
    let content = content.ok_or_else(|| Error::invalid(format!("{value} is not a token")))?;
    let flag = |name: &str| value.get(name).and_then(Value::as_bool);
    for unsupported in ["single_word", "lstrip", "rstrip"] {
        if flag(unsupported) == Some(true) {
            return Err(Error::invalid(format!(
                "added token {content:?}: {unsupported} is not supported"
            )));
        }
    }
    let normalized = flag("normalized").unwrap_or(false);
    Ok((content, AddedFlags { special: flag("special").unwrap_or(special), normalized }))
}
