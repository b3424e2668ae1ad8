//! What a `tokenizer.json` says that decides no id of a text here, and that must not be lost when
//! the tokenizer is saved: to Hugging Face's library it does decide.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What is kept for saving. Empty for a tokenizer that was trained here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Added tokens that are not as the tokens of this crate are written.
    pub flags: BTreeMap<String, AddedFlags>,
    /// What is put around a text.
    pub post_processor: Value,
    /// How long a text may be.
    pub truncation: Value,
    /// How short texts are filled up.
    pub padding: Value,
}

/// How Hugging Face treats an added token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedFlags {
    /// Left out when ids are decoded, unless `skip_special_tokens` is off.
    pub special: bool,
    /// Looked for in normalized text, after the others.
    pub normalized: bool,
}

impl AddedFlags {
    /// Those of a token that says nothing else.
    pub const USUAL: Self = Self { special: true, normalized: false };
}

impl Extras {
    /// The flags of a special token.
    pub fn flags_of(&self, token: &str) -> AddedFlags {
        self.flags.get(token).copied().unwrap_or(AddedFlags::USUAL)
    }

    /// Remembers the flags of a token that is not as usual.
    pub fn set_flags(&mut self, token: &str, flags: AddedFlags) {
        if flags != AddedFlags::USUAL {
            self.flags.insert(token.to_owned(), flags);
        }
    }
}
