//! Characters of three bytes -> their ids, for text that is written without spaces.
//!
//! Where no merge reaches across a character's borders ([`crate::cut_table`]) its ids do not
//! depend on what surrounds it: they are read from a table indexed by code point, where a hash
//! would have to be computed and a key compared. An entry is made when its character first comes.

use crate::pages::{filled, prefetch};
use crate::pretokenize::dense::{self, Kind};
use crate::token_table::TokenId;

/// The bytes of a character that has an entry.
pub const CHAR_LEN: usize = 3;

/// One past the last code point of three bytes.
const CODE_POINTS: usize = 1 << 16;

const ID_BITS: u32 = 20;
const ID_MASK: u64 = (1 << ID_BITS) - 1;
const COUNT_SHIFT: u32 = 60;
const STATE_SHIFT: u32 = 62;

/// What is known of a character: up to three ids of 20 bits, above them their number in two bits,
/// above it the state in two bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(u64);

impl Entry {
    const UNKNOWN: Self = Self(0);
    /// Not to be found in this table.
    const NEITHER: Self = Self(1 << STATE_SHIFT);
    const LETTER: u64 = 2;
    const OTHER: u64 = 3;

    /// `None` for a character that is of no kind, or whose ids are too large.
    fn new(code_point: u32, ids: &[TokenId]) -> Option<Self> {
        let state = match dense::kind(code_point)? {
            Kind::Letter => Self::LETTER,
            Kind::Other => Self::OTHER,
        };
        let mut packed = state << STATE_SHIFT | (ids.len() as u64) << COUNT_SHIFT;
        for (place, &id) in ids.iter().enumerate() {
            if place >= CHAR_LEN || u64::from(id) > ID_MASK {
                return None;
            }
            packed |= u64::from(id) << (ID_BITS * place as u32);
        }
        Some(Self(packed))
    }

    #[inline(always)]
    pub fn is_letter(self) -> bool {
        self.0 >> STATE_SHIFT == Self::LETTER
    }

    #[inline(always)]
    fn has_ids(self) -> bool {
        self.0 >> STATE_SHIFT >= Self::LETTER
    }

    #[inline(always)]
    pub fn count(self) -> usize {
        (self.0 >> COUNT_SHIFT & 3) as usize
    }

    /// The ids, and after [`count`](Self::count) of them zeros: to be copied whole.
    #[inline(always)]
    pub fn padded(self) -> [TokenId; 4] {
        let id = |place: u32| (self.0 >> (ID_BITS * place) & ID_MASK) as TokenId;
        [id(0), id(1), id(2), 0]
    }
}

pub struct CharTable {
    entries: Box<[u64]>,
}

impl Default for CharTable {
    fn default() -> Self {
        Self { entries: filled(Entry::UNKNOWN.0, CODE_POINTS).into_boxed_slice() }
    }
}

impl CharTable {
    /// The entry of the character at `at`; `None` if it has none: it is not three bytes long, or
    /// of no [kind](dense), or stands at the text's very end. `encode` is asked for the ids of a
    /// character that comes for the first time.
    #[inline(always)]
    pub fn get(
        &mut self,
        text: &[u8],
        at: usize,
        encode: impl FnOnce(&[u8]) -> Option<Vec<TokenId>>,
    ) -> Option<Entry> {
        let bytes = u32::from_be_bytes(*text.get(at..)?.first_chunk()?);
        if bytes & 0xF0C0_C000 != 0xE080_8000 {
            return None;
        }
        let point = code_point(bytes);
        let mut entry = Entry(self.entries[point]);
        if entry == Entry::UNKNOWN {
            entry = self.learn(point as u32, encode);
        }
        entry.has_ids().then_some(entry)
    }

    /// Has what [`get`](Self::get) will read for the character at `at` brought near.
    #[inline(always)]
    pub fn prefetch(&self, text: &[u8], at: usize) {
        if let Some(bytes) = text.get(at..).and_then(<[u8]>::first_chunk) {
            prefetch(&self.entries[code_point(u32::from_be_bytes(*bytes))]);
        }
    }

    #[cold]
    #[inline(never)]
    fn learn(&mut self, point: u32, encode: impl FnOnce(&[u8]) -> Option<Vec<TokenId>>) -> Entry {
        let mut buffer = [0; 4];
        let bytes = char::from_u32(point).map(|character| &*character.encode_utf8(&mut buffer));
        let entry = bytes
            .filter(|bytes| bytes.len() == CHAR_LEN)
            .and_then(|bytes| Entry::new(point, &encode(bytes.as_bytes())?))
            .unwrap_or(Entry::NEITHER);
        self.entries[point as usize] = entry.0;
        entry
    }
}

/// Of a character of three bytes, which come first in `bytes`.
#[inline(always)]
fn code_point(bytes: u32) -> usize {
    let point = (bytes >> 12 & 0xF000) | (bytes >> 10 & 0x0FC0) | (bytes >> 8 & 0x003F);
    point as usize % CODE_POINTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of a character: as many as its last byte says.
    fn ids(bytes: &[u8]) -> Vec<TokenId> {
        (0..1 + TokenId::from(bytes[2]) % 3).map(|i| 1_000_000 + i).collect()
    }

    #[test]
    fn knows_the_kinds_and_nothing_else() {
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
                let entry = table.get(text.as_bytes(), 0, |bytes| Some(ids(bytes)));
                assert_eq!(entry.map(Entry::is_letter), kind, "{character}");
                if let Some(entry) = entry {
                    let expected = ids(text.as_bytes());
                    assert_eq!(entry.padded()[..entry.count()], expected);
                }
            }
        }
    }

    #[test]
    fn leaves_alone_what_is_no_character_or_does_not_fit() {
        let mut table = CharTable::default();
        let surrogate = [0xED, 0xA0, 0x80, b'.'];
        let overlong = [0xE0, 0x80, 0x80, b'.'];
        for text in [&surrogate[..], &overlong, &[0xE4, 0xB8], "中".as_bytes(), b""] {
            assert_eq!(table.get(text, 0, |bytes| Some(ids(bytes))), None, "{text:?}");
        }
        assert_eq!(table.get("中.".as_bytes(), 0, |_| Some(vec![1 << ID_BITS])), None);
        assert_eq!(table.get("国.".as_bytes(), 0, |_| Some(vec![1; 4])), None);
    }
}
