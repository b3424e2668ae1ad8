//! Characters of three bytes -> their ids, for text that is written without spaces.
//!
//! Where no merge reaches across a character's boundaries ([`super::cut_table`]), its ids do not
//! depend on what surrounds it: they are read from a table indexed by code point, where otherwise
//! a hash would be computed and a key compared. An entry is made when its character first comes, and
//! the table, a megabyte, with the first of them.

use crate::store::pages::filled;
use crate::text::unspaced::{self, UnspacedChar};
use crate::text::utf8::{code_point_of_three, starts_with_three};
use crate::vocab::TokenId;

/// The bytes of a character that has an entry.
pub const CHAR_LEN: usize = 3;

/// One past the last code point of three bytes.
const CODE_POINTS: usize = 1 << 16;

/// What is known of a character: up to three ids and, where a fourth would be, all the rest, so
/// that the ids are copied in one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(16))]
pub struct CharEntry([u32; 4]);

impl CharEntry {
    const UNKNOWN: Self = Self([0; 4]);
    /// A character that this table does not take.
    const ABSENT: Self = Self([0, 0, 0, 1 << 4]);
    const COUNT: u32 = 3;
    const LETTER: u32 = 1 << 2;
    const OTHER: u32 = 1 << 3;
    const ROW_SHIFT: u32 = 16;

    /// `None` for a character that is not of text without spaces, or has more than three ids.
    fn new(code_point: u32, CharIds { ids, cut_row }: CharIds) -> Option<Self> {
        let class = match unspaced::classify(code_point)? {
            UnspacedChar::Letter => Self::LETTER,
            UnspacedChar::Other => Self::OTHER,
        };
        let mut entry = [0; 4];
        entry[..CHAR_LEN].get_mut(..ids.len())?.copy_from_slice(&ids);
        entry[CHAR_LEN] = u32::from(cut_row) << Self::ROW_SHIFT | class | ids.len() as u32;
        Some(Self(entry))
    }

    /// Whether it is a letter without case.
    #[inline(always)]
    pub fn is_letter(self) -> bool {
        self.0[CHAR_LEN] & Self::LETTER != 0
    }

    /// Whether its ids are known.
    #[inline(always)]
    pub fn has_ids(self) -> bool {
        self.0[CHAR_LEN] & (Self::LETTER | Self::OTHER) != 0
    }

    /// How many ids it has.
    #[inline(always)]
    pub fn count(self) -> usize {
        (self.0[CHAR_LEN] & Self::COUNT) as usize
    }

    /// The ids, and after [`count`](Self::count) of them anything: to be copied whole.
    #[inline(always)]
    pub fn padded(self) -> [TokenId; 4] {
        self.0
    }

    /// The row of the [cut table](super::cut_table::CutTable) for what follows this character.
    #[inline(always)]
    pub fn cut_row(self) -> u16 {
        (self.0[CHAR_LEN] >> Self::ROW_SHIFT) as u16
    }
}

/// What the table is told about a character.
pub struct CharIds {
    pub ids: Vec<TokenId>,
    pub cut_row: u16,
}

/// The characters of three bytes, by code point.
#[derive(Default)]
pub struct CharTable {
    /// None until the first is known.
    entries: Vec<CharEntry>,
}

impl CharTable {
    /// The entry of the character at `at`; `None` if it has none: it is not three bytes long, or
    /// not of [text without spaces](unspaced), or at the text's very end. `encode` gives the ids of
    /// a character that comes for the first time.
    #[inline(always)]
    pub fn get(
        &mut self,
        text: &[u8],
        at: usize,
        encode: impl FnOnce(&[u8]) -> Option<CharIds>,
    ) -> Option<CharEntry> {
        let (mut entry, point) = self.peek(text, at)?;
        if entry == CharEntry::UNKNOWN {
            entry = self.learn(point as u32, encode);
        }
        entry.has_ids().then_some(entry)
    }

    /// The entry of the character at `at`, which has no ids if they are not known yet, and its code
    /// point; `None` if the character is not three bytes long, or at the text's very end.
    #[inline(always)]
    pub fn peek(&self, text: &[u8], at: usize) -> Option<(CharEntry, usize)> {
        let bytes = u32::from_be_bytes(*text.get(at..)?.first_chunk()?);
        let point = code_point_of_three(bytes) as usize % CODE_POINTS;
        let entry = self.entries.get(point).copied().unwrap_or(CharEntry::UNKNOWN);
        starts_with_three(bytes).then_some((entry, point))
    }

    #[cold]
    #[inline(never)]
    fn learn(&mut self, point: u32, encode: impl FnOnce(&[u8]) -> Option<CharIds>) -> CharEntry {
        let mut buffer = [0; 4];
        let bytes = char::from_u32(point).map(|character| &*character.encode_utf8(&mut buffer));
        let entry = bytes
            .filter(|bytes| bytes.len() == CHAR_LEN)
            .and_then(|bytes| CharEntry::new(point, encode(bytes.as_bytes())?))
            .unwrap_or(CharEntry::ABSENT);
        if self.entries.is_empty() {
            self.entries = filled(CharEntry::UNKNOWN, CODE_POINTS);
        }
        self.entries[point as usize] = entry;
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of a character: as many as its last byte says.
    fn ids(bytes: &[u8]) -> Vec<TokenId> {
        (0..1 + TokenId::from(bytes[2]) % 3).map(|i| TokenId::MAX - i).collect()
    }

    fn known(ids: Vec<TokenId>) -> Option<CharIds> {
        Some(CharIds { ids, cut_row: u16::MAX - 1 })
    }

    #[test]
    fn knows_letters_and_others_and_nothing_else() {
        let mut table = CharTable::default();
        for (character, kind) in [
            ('中', Some(true)),
            ('の', Some(true)),
            ('ー', Some(true)),
            ('。', Some(false)),
            ('€', Some(false)),
            ('\u{3000}', None), // white space
            ('\u{3099}', None), // a mark
            ('３', None),
            ('Ａ', None), // has case
            ('é', None),
            ('𠀀', None),
            ('a', None),
        ] {
            for _ in 0..2 {
                let text = format!("{character}....");
                let entry = table.get(text.as_bytes(), 0, |bytes| known(ids(bytes)));
                assert_eq!(entry.map(CharEntry::is_letter), kind, "{character}");
                if let Some(entry) = entry {
                    let expected = ids(text.as_bytes());
                    assert_eq!(entry.padded()[..entry.count()], expected);
                    assert_eq!(entry.cut_row(), u16::MAX - 1);
                    assert_eq!(table.peek(text.as_bytes(), 0), Some((entry, character as usize)));
                }
            }
        }
    }

    #[test]
    fn leaves_alone_what_is_not_a_character_or_does_not_fit() {
        let mut table = CharTable::default();
        let surrogate = [0xED, 0xA0, 0x80, b'.'];
        let overlong = [0xE0, 0x80, 0x80, b'.'];
        for text in [&surrogate[..], &overlong, &[0xE4, 0xB8], "中".as_bytes(), b""] {
            assert_eq!(table.get(text, 0, |bytes| known(ids(bytes))), None, "{text:?}");
        }
        assert_eq!(table.get("中.".as_bytes(), 0, |_| None), None);
        assert_eq!(table.get("国.".as_bytes(), 0, |_| known(vec![1; 4])), None);
    }
}
