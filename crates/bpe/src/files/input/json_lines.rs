//! JSON lines: every line is an object, one field of which holds a document's text.

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

/// A block of whole lines, as in the file.
pub struct Lines<'l> {
    pub lines: &'l [u8],
    /// Whether it is the file's first.
    pub is_first: bool,
}

impl Lines<'_> {
    /// Appends the text of each record to `text`, and where it ends to `ends`. Blank lines are
    /// skipped, and so are records whose field is null: they are not documents. `refuse` is told of
    /// every line that is not a record (its number in the block, from 1 on), and why, and says whether
    /// to go on.
    pub fn read<E>(
        &self,
        field: &str,
        text: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        mut refuse: impl FnMut(u64, String) -> Result<(), E>,
    ) -> Result<(), E> {
        for (number, line) in (1..).zip(self.lines.split(|&byte| byte == b'\n')) {
            let mut line = line.trim_ascii();
            if self.is_first && number == 1 {
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
                    refuse(number, why)?;
                }
            }
        }
        Ok(())
    }
}

/// Longer lines are not read to see what they are.
const MAX_FIRST_LINE: u64 = 1 << 26;

/// Whether a file named `.json` holds a record a line: the first line is an object by itself that
/// has the field, or the second is one too.
pub fn are_in(text: impl BufRead, field: &str) -> bool {
    let mut text = text.take(MAX_FIRST_LINE);
    let mut objects = 0;
    let mut line = Vec::new();
    while objects < 2 {
        line.clear();
        if !matches!(text.read_until(b'\n', &mut line), Ok(1..)) {
            return false;
        }
        let record = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line).trim_ascii();
        if record.is_empty() {
            continue;
        }
        match find_text(record, field, &mut Vec::new()) {
            Ok(Found::Text | Found::Null) => return true,
            Ok(Found::Nothing) => objects += 1,
            // An object whose field is no text is a record too, if a wrong one.
            Err(_) if find_text(record, "", &mut Vec::new()).is_ok() => return true,
            Err(_) => return false,
        }
    }
    true
}

/// Appends what the field of a line's object holds; `false` if that is null.
fn append_text(line: &[u8], field: &str, text: &mut Vec<u8>) -> Result<bool, String> {
    let start = text.len();
    let found = match find_text(line, field, text) {
        Err(why) => {
            text.truncate(start);
            let Some(line) = without_nan(line) else { return Err(why) };
            find_text(&line, field, text)?
        }
        found => found?,
    };
    match found {
        Found::Text => Ok(true),
        Found::Null => Ok(false),
        Found::Nothing => Err(format!("no field {field:?}; name the one that holds the text")),
    }
}

/// The line with null for what Python writes and JSON does not know: NaN, Infinity, -Infinity.
fn without_nan(line: &[u8]) -> Option<Vec<u8>> {
    let mut replaced = Vec::new();
    let mut left = line;
    let mut in_string = false;
    let mut found = false;
    while let Some(&byte) = left.first() {
        let number: Option<&[u8]> = match in_string {
            true => None,
            false => [&b"NaN"[..], b"Infinity", b"-Infinity"]
                .into_iter()
                .find(|number| left.starts_with(number)),
        };
        let len = match number {
            Some(number) => {
                found = true;
                replaced.extend_from_slice(b"null");
                number.len()
            }
            None => {
                let len = if in_string && byte == b'\\' { left.len().min(2) } else { 1 };
                in_string ^= byte == b'"';
                replaced.extend_from_slice(&left[..len]);
                len
            }
        };
        left = &left[len..];
    }
    found.then_some(replaced)
}

fn find_text(line: &[u8], field: &str, text: &mut Vec<u8>) -> Result<Found, String> {
    let mut parser = serde_json::Deserializer::from_slice(line);
    let found = Record { field, text }.deserialize(&mut parser).map_err(describe)?;
    parser.end().map_err(describe)?;
    Ok(found)
}

/// The parser names a line too, but sees only one: of its position the column is what helps.
fn describe(error: serde_json::Error) -> String {
    let message = error.to_string();
    match message.rsplit_once(" at line ") {
        Some((what, _)) if error.column() > 0 => format!("{what}, at column {}", error.column()),
        Some((what, _)) => what.to_owned(),
        None => message,
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
        // As bytes, so that a lone surrogate in a name that nobody asked for is no error.
        parser.deserialize_bytes(self)
    }
}

impl Visitor<'_> for IsName<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_bytes<E>(self, name: &[u8]) -> Result<bool, E> {
        Ok(name == self.0.as_bytes())
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
        parser.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a string in the field {:?}", self.field)
    }

    fn visit_some<D: Deserializer<'de>>(self, parser: D) -> Result<Found, D::Error> {
        parser.deserialize_bytes(self)
    }

    fn visit_bytes<E: serde::de::Error>(self, text: &[u8]) -> Result<Found, E> {
        let valid = str::from_utf8(text).map_or_else(|_| replace_surrogates(text), |_| text.into());
        if let Cow::Owned(replaced) = &valid {
            str::from_utf8(replaced).map_err(|_| E::custom("invalid UTF-8 in the text"))?;
        }
        self.text.extend_from_slice(&valid);
        Ok(Found::Text)
    }

    fn visit_none<E>(self) -> Result<Found, E> {
        Ok(Found::Null)
    }
}

/// U+FFFD for each lone surrogate: half a character that Python and JavaScript write as `\\ud83d`
/// and that the parser gives as the three bytes it would have.
fn replace_surrogates(text: &[u8]) -> Cow<'_, [u8]> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut left = text;
    while let Some(&byte) = left.first() {
        if matches!(left, [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..]) {
            replaced.extend_from_slice("\u{fffd}".as_bytes());
            left = &left[3..];
        } else {
            replaced.push(byte);
            left = &left[1..];
        }
    }
    Cow::Owned(replaced)
}
