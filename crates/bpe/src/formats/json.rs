//! What `vocab.json` and `tokenizer.json` have in common: a map of tokens to ids and a list of
//! merges, streamed into flat arrays without an allocation per entry.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::alphabet;
use crate::store::byte_strings::ByteStrings;
use crate::vocab::TokenId;

/// The tokens of a vocabulary as the file spells them, with their ids.
#[derive(Debug, Default)]
pub struct Tokens {
    pub ids: Vec<TokenId>,
    pub spelled: ByteStrings,
}

impl Tokens {
    /// In the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (TokenId, &[u8])> {
        self.ids.iter().copied().zip(self.spelled.iter())
    }
}

/// Merges in rank order: the bytes of left and right in turn.
#[derive(Debug, Default)]
pub struct Merges {
    parts: ByteStrings,
    /// The part that is being read.
    bytes: Vec<u8>,
    /// The parts of a merge that is written as two strings, kept for the next one.
    pair: ByteStrings,
}

impl Merges {
    /// Adds a merge whose parts are written in GPT-2's alphabet.
    pub fn push(&mut self, left: &str, right: &str) -> Result<(), String> {
        for part in [left, right] {
            self.bytes.clear();
            if !alphabet::unspell(part.as_bytes(), &mut self.bytes) {
                return Err(format!(
                    "merge {} ({left:?} {right:?}): {part:?} is not in GPT-2's alphabet of bytes",
                    self.parts.len() / 2 + 1
                ));
            }
            self.parts.push(&self.bytes);
        }
        Ok(())
    }

    /// Adds a merge written as `left right`.
    pub fn push_line(&mut self, line: &str) -> Result<(), String> {
        match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() => self.push(left, right),
            _ => Err(format!(
                "merge {} ({line:?}): expected two tokens with one space between them",
                self.parts.len() / 2 + 1
            )),
        }
    }

    /// (left, right) in rank order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        (0..self.parts.len() / 2)
            .map(|rank| (self.parts.get(2 * rank), self.parts.get(2 * rank + 1)))
    }
}

impl<'de> Deserialize<'de> for Tokens {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = Tokens;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object of tokens and their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tokens, A::Error> {
                let mut tokens = Tokens::default();
                while map.next_key_seed(Push(&mut tokens.spelled))?.is_some() {
                    tokens.ids.push(map.next_value()?);
                }
                Ok(tokens)
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// Takes a string without building another.
struct Push<'a>(&'a mut ByteStrings);

impl<'de> DeserializeSeed<'de> for Push<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Push<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_str<E: Error>(self, token: &str) -> Result<(), E> {
        self.0.push(token.as_bytes());
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Merges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Merges;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list of merges")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Merges, A::Error> {
                let mut merges = Merges::default();
                while list.next_element_seed(OneMerge(&mut merges))?.is_some() {}
                Ok(merges)
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// `"left right"` or `["left", "right"]`.
struct OneMerge<'a>(&'a mut Merges);

impl<'de> DeserializeSeed<'de> for OneMerge<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneMerge<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a merge: \"left right\" or [\"left\", \"right\"]")
    }

    fn visit_str<E: Error>(self, line: &str) -> Result<(), E> {
        self.0.push_line(line).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<(), A::Error> {
        let mut parts = std::mem::take(&mut self.0.pair);
        parts.clear();
        while pair.next_element_seed(Push(&mut parts))?.is_some() {}
        if parts.len() != 2 {
            return Err(A::Error::invalid_length(parts.len(), &"two tokens"));
        }
        let part = |index| str::from_utf8(parts.get(index)).unwrap_or_default();
        let pushed = self.0.push(part(0), part(1));
        self.0.pair = parts;
        pushed.map_err(A::Error::custom)
    }
}
