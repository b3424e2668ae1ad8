//! JSON lines: every line is an object, one field of which holds a document's text.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// A block of whole lines, as in the file.
pub struct Lines<'l> {
    pub lines: &'l [u8],
    /// The number of lines before it.
    pub before: u64,
}

impl Lines<'_> {
    /// Appends the text of each record to `text`, and where it ends to `ends`. Blank lines are
    /// skipped, and so are records whose field is null: they are not documents. `refuse` is told of
    /// every line that is not a record, and why, and says whether to go on.
    pub fn read<E>(
        &self,
        field: &str,
        text: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        mut refuse: impl FnMut(String) -> Result<(), E>,
    ) -> Result<(), E> {
        for (number, line) in (self.before + 1..).zip(self.lines.split(|&byte| byte == b'\n')) {
            let mut line = line.trim_ascii();
            if number == 1 {
                line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
            }
            if line.is_empty() {
                continue;
            }
            let start = text.len();
            match append_text(line, field, text) {
                Ok(true) => ends.push(text.len()),
                Ok(false) => {}
                Err(why) => {
                    text.truncate(start);
                    refuse(format!("line {number}: {why}"))?;
                }
            }
        }
        Ok(())
    }
}

/// Appends what the field of a line's object holds; `false` if that is null.
fn append_text(line: &[u8], field: &str, text: &mut Vec<u8>) -> Result<bool, String> {
    let mut parser = serde_json::Deserializer::from_slice(line);
    let found = Record { field, text }.deserialize(&mut parser).map_err(describe)?;
    parser.end().map_err(describe)?;
    match found {
        Found::Text => Ok(true),
        Found::Null => Ok(false),
        Found::Nothing => Err(format!("no field {field:?}; name the one that holds the text")),
    }
}

/// The parser names a line too, but sees only one: of its position the column is what helps.
fn describe(error: serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line ") {
        Some((what, _)) if error.column() > 0 => format!("{what}, at column {}", error.column()),
        _ => message,
    }
}

enum Found {
    Nothing,
    Null,
    Text,
}

/// An object: takes one field's string and skips the others without building them.
struct Record<'r> {
    field: &'r str,
    text: &'r mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Record<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Found, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Record<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object whose field {:?} is a string", self.field)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Found, M::Error> {
        let Record { field, text } = self;
        let start = text.len();
        let mut found = Found::Nothing;
        while let Some(is_it) = map.next_key_seed(IsName(field))? {
            if is_it {
                // If a field comes twice the last one counts, as in most parsers.
                text.truncate(start);
                found = map.next_value_seed(Text { field, text })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// A field's name: whether it is the one.
struct IsName<'r>(&'r str);

impl<'de> DeserializeSeed<'de> for IsName<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<bool, D::Error> {
        parser.deserialize_str(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<bool, E> {
        Ok(name == self.0)
    }
}

/// A field's value: a string, appended without building another, or null.
struct Text<'r> {
    field: &'r str,
    text: &'r mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = Found;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Found, D::Error> {
        parser.deserialize_any(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string in the field {:?}", self.field)
    }

    fn visit_str<E>(self, text: &str) -> Result<Found, E> {
        self.text.extend_from_slice(text.as_bytes());
        Ok(Found::Text)
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Found, E> {
        Ok(Found::Null)
    }
}
