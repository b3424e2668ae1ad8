//! JSON lines: every line an object, one field of it a document's text.

use std::fmt;
use std::io::BufRead;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::input::Stream;

/// Appends the text of the next record to `text`; `false` at the end. Blank lines are passed over.
/// Errors say which line and why.
pub fn read_record(stream: &mut Stream, field: &str, text: &mut Vec<u8>) -> Result<bool, String> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = stream.text.read_until(b'\n', &mut line).map_err(|error| error.to_string())?;
        if read == 0 {
            return Ok(false);
        }
        stream.line += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let record = text_of(&line, field).map_err(|why| format!("line {}: {why}", stream.line))?;
        text.extend_from_slice(record.as_bytes());
        return Ok(true);
    }
}

fn text_of(line: &[u8], field: &str) -> Result<String, String> {
    let mut parser = serde_json::Deserializer::from_slice(line);
    let found = TextField(field).deserialize(&mut parser).map_err(|error| error.to_string())?;
    parser.end().map_err(|error| error.to_string())?;
    found.ok_or_else(|| format!("no field {field:?}; name the one that holds the text"))
}

/// Takes one field's string and passes over the others without building them.
struct TextField<'f>(&'f str);

impl<'de> DeserializeSeed<'de> for TextField<'_> {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Option<String>, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TextField<'_> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object whose field {:?} is a string", self.0)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Option<String>, M::Error> {
        let mut text = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == self.0 {
                text = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(text)
    }
}
