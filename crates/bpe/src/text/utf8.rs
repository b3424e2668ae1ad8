//! UTF-8 by hand: what a byte can be, how long a character is, which one it is.
//!
//! Text here is bytes that are mostly, but not certainly, valid UTF-8, and the loops that read it
//! want one character at a known place without checking all of it first. Characters of three bytes
//! have functions of their own, on four bytes read at once: most text beyond ASCII that takes time
//! is Chinese, Japanese or Korean.
//!
//! Source: The Unicode Standard, section 3.9, table 3-7 (well-formed byte sequences).

/// The second to fourth byte of a character.
#[inline(always)]
pub fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

/// The first byte of a character of three bytes.
#[inline(always)]
pub fn leads_three(byte: u8) -> bool {
    byte & 0xF0 == 0xE0
}

/// How many bytes the character has that begins with `first`; 1 where none begins.
#[inline(always)]
pub fn char_len(first: u8) -> usize {
    match first {
        0xE0..=0xEF => 3,
        0xC0..=0xDF => 2,
        0xF0..=0xFF => 4,
        _ => 1,
    }
}

/// Whether the first three of four `bytes`, the first one highest, have the form of a character
/// of three bytes. It is one if [`needs_three`] says so too.
#[inline(always)]
pub fn starts_with_three(bytes: u32) -> bool {
    bytes & 0xF0C0_C000 == 0xE080_8000
}

/// The code point in `bytes` of which [`starts_with_three`] is true.
#[inline(always)]
pub fn code_point_of_three(bytes: u32) -> u32 {
    (bytes >> 12 & 0xF000) | (bytes >> 10 & 0x0FC0) | (bytes >> 8 & 0x003F)
}

/// Of the code points that three bytes can hold, those that need three and are not surrogates.
#[inline(always)]
fn needs_three(point: u32) -> bool {
    point >= 0x800 && point & 0xF800 != 0xD800
}

/// The first character of `text`, which starts with a byte above 0x7F, and its length; `None` if
/// the bytes are not valid UTF-8 (truncated, overlong, a surrogate, above U+10FFFF).
#[inline(always)]
pub fn decode(text: &[u8]) -> Option<(u32, usize)> {
    // Most are three bytes long, with a fourth byte after them that can be read as well.
    if let Some(four) = text.first_chunk::<4>() {
        let bytes = u32::from_be_bytes(*four);
        if starts_with_three(bytes) {
            let point = code_point_of_three(bytes);
            return needs_three(point).then_some((point, 3));
        }
    }
    let tail = |at: usize| text.get(at).filter(|byte| is_continuation(**byte)).map(|b| *b & 0x3F);
    let lead = u32::from(text[0]);
    match lead {
        0xC2..0xE0 => Some(((lead & 0x1F) << 6 | u32::from(tail(1)?), 2)),
        0xE0..0xF0 => {
            let point = (lead & 0x0F) << 12 | u32::from(tail(1)?) << 6 | u32::from(tail(2)?);
            needs_three(point).then_some((point, 3))
        }
        0xF0..0xF5 => {
            let point = (lead & 0x07) << 18 | u32::from(tail(1)?) << 12;
            let point = point | u32::from(tail(2)?) << 6 | u32::from(tail(3)?);
            (0x1_0000..0x11_0000).contains(&point).then_some((point, 4))
        }
        _ => None,
    }
}

/// `text` with U+FFFD in the place of each invalid byte, and the way back to its offsets.
pub fn replace_invalid(text: &[u8]) -> (String, Offsets) {
    let mut replaced = String::with_capacity(text.len() + 64);
    let mut places = Vec::new();
    for chunk in text.utf8_chunks() {
        replaced.push_str(chunk.valid());
        for _ in chunk.invalid() {
            places.push(replaced.len());
            replaced.push(char::REPLACEMENT_CHARACTER);
        }
    }
    (replaced, Offsets { places, passed: 0 })
}

/// From offsets in a text with replacements to those in the original, asked in ascending order.
pub struct Offsets {
    /// Where the characters are that replace one byte each.
    places: Vec<usize>,
    /// How many of them the last answer had passed.
    passed: usize,
}

impl Offsets {
    /// Where in the original text `at` is.
    pub fn original(&mut self, at: usize) -> usize {
        while self.places.get(self.passed).is_some_and(|&place| place < at) {
            self.passed += 1;
        }
        at - self.passed * (char::REPLACEMENT_CHARACTER.len_utf8() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the standard library makes of the first character.
    fn expected(text: &[u8]) -> Option<(u32, usize)> {
        let first = text.utf8_chunks().next()?.valid().chars().next()?;
        Some((first.into(), first.len_utf8()))
    }

    #[test]
    fn every_character_is_decoded_wherever_it_ends() {
        let mut buffer = [0; 5];
        for character in '\u{80}'..=char::MAX {
            let len = character.encode_utf8(&mut buffer).len();
            assert_eq!(char_len(buffer[0]), len);
            assert_eq!(leads_three(buffer[0]), len == 3);
            assert!(buffer[1..len].iter().all(|&byte| is_continuation(byte)));
            buffer[len] = b'x';
            let known = Some((character.into(), len));
            assert_eq!((decode(&buffer[..len]), decode(&buffer[..=len])), (known, known));
            assert_eq!(decode(&buffer[..len - 1]), None);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn decodes_what_the_standard_library_does(
            first in 0x80u8..,
            rest in prop::collection::vec(prop_oneof![0x80u8..0xC0, any::<u8>()], 0..5),
        ) {
            let text = [vec![first], rest].concat();
            prop_assert_eq!(decode(&text), expected(&text));
        }

        #[test]
        fn replaced_bytes_are_found_again(
            text in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xE4), Just(0xB8)], 0..40),
        ) {
            let (replaced, mut offsets) = replace_invalid(&text);
            let mut original = 0;
            let mut shown = 0;
            for chunk in text.utf8_chunks() {
                for (len, width) in chunk
                    .valid()
                    .chars()
                    .map(|char| (char.len_utf8(), char.len_utf8()))
                    .chain(chunk.invalid().iter().map(|_| (1, 3)))
                {
                    prop_assert_eq!(offsets.original(shown), original);
                    (original, shown) = (original + len, shown + width);
                }
            }
            prop_assert_eq!((original, shown), (text.len(), replaced.len()));
            prop_assert_eq!(offsets.original(shown), original);
        }
    }
}
