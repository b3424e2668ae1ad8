//! NumPy's file format, version 1.0, for one-dimensional arrays of ids: a header of fixed size
//! (so that it can be written last, when the count is known), then the ids, little-endian.
//! The format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>

use crate::encode::output::Output;
use crate::vocab::TokenId;

/// Enough for any 64-bit count, and a multiple of 64 as NumPy aligns arrays.
pub const HEADER_LEN: usize = 128;

/// How an id is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    U16,
    U32,
}

impl Dtype {
    /// The narrower one that holds every id up to `max_id`.
    pub fn for_max_id(max_id: TokenId) -> Self {
        if max_id <= TokenId::from(u16::MAX) { Self::U16 } else { Self::U32 }
    }

    /// NumPy's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::U16 => "uint16",
            Self::U32 => "uint32",
        }
    }

    /// Bytes an id.
    pub fn width(self) -> u64 {
        match self {
            Self::U16 => 2,
            Self::U32 => 4,
        }
    }

    /// Appends `ids` as they are stored. Those beyond the width lose their high bits.
    pub fn extend(self, bytes: &mut Vec<u8>, ids: &[TokenId]) {
        let start = bytes.len();
        bytes.resize(start + ids.len() * self.width() as usize, 0);
        let bytes = &mut bytes[start..];
        match self {
            Self::U16 => {
                for (place, id) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(ids) {
                    *place = (*id as u16).to_le_bytes();
                }
            }
            Self::U32 => {
                for (place, id) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(ids) {
                    *place = id.to_le_bytes();
                }
            }
        }
    }
}

/// Ids in the form in which they are stored.
pub struct StoredIds {
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl StoredIds {
    /// No ids yet. `buffer` is reused; its contents are dropped.
    pub fn new(dtype: Dtype, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { dtype, bytes: buffer }
    }

    /// The bytes of all ids.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The id at a place.
    pub fn get(&self, place: usize) -> Option<TokenId> {
        let width = self.dtype.width() as usize;
        let bytes = self.bytes.get(place * width..(place + 1) * width)?;
        Some(match *bytes {
            [low, high] => TokenId::from(u16::from_le_bytes([low, high])),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("an id has two bytes or four"),
        })
    }

    /// The ids from the place `from` on.
    pub fn iter_from(&self, from: usize) -> impl Iterator<Item = TokenId> {
        (from..self.len()).map_while(|place| self.get(place))
    }

    /// The places, from `from` on, that hold `id`.
    pub fn places_of(&self, id: TokenId, from: usize) -> Vec<usize> {
        let bytes = &self.bytes[from * self.dtype.width() as usize..];
        let mut places = match self.dtype {
            Dtype::U16 => places_of(bytes.as_chunks().0, (id as u16).to_le_bytes()),
            Dtype::U32 => places_of(bytes.as_chunks().0, id.to_le_bytes()),
        };
        places.iter_mut().for_each(|place| *place += from);
        places
    }
}

/// Most blocks do not hold the id, which is found out without a branch for each of its ids.
fn places_of<const WIDTH: usize>(ids: &[[u8; WIDTH]], id: [u8; WIDTH]) -> Vec<usize> {
    const BLOCK: usize = 64;
    let mut places = Vec::new();
    for (number, block) in ids.chunks(BLOCK).enumerate() {
        if block.iter().fold(false, |found, other| found | (*other == id)) {
            let within = block.iter().enumerate().filter(|(_, other)| **other == id);
            places.extend(within.map(|(place, _)| number * BLOCK + place));
        }
    }
    places
}

impl Output for StoredIds {
    #[inline]
    fn append(&mut self, ids: &[TokenId]) {
        self.dtype.extend(&mut self.bytes, ids);
    }

    fn len(&self) -> usize {
        self.bytes.len() / self.dtype.width() as usize
    }

    fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len * self.dtype.width() as usize);
    }
}

/// The header of an array of `len` ids.
pub fn header(dtype: Dtype, len: u64) -> [u8; HEADER_LEN] {
    const MAGIC: &[u8; 8] = b"\x93NUMPY\x01\x00";
    let mut header = [b' '; HEADER_LEN];
    header[..8].copy_from_slice(MAGIC);
    header[8..10].copy_from_slice(&(HEADER_LEN as u16 - 10).to_le_bytes());
    let width = dtype.width();
    let text = format!("{{'descr': '<u{width}', 'fortran_order': False, 'shape': ({len},), }}");
    header[10..10 + text.len()].copy_from_slice(text.as_bytes());
    header[HEADER_LEN - 1] = b'\n';
    header
}

/// How ids are stored in an array with this header, and how many there are; `None` if it is not one
/// that [`header`] makes.
pub fn parse_header(bytes: &[u8; HEADER_LEN]) -> Option<(Dtype, u64)> {
    let text = std::str::from_utf8(bytes.get(10..)?).ok()?;
    let len = text.split_once("'shape': (")?.1.split_once(',')?.0.parse().ok()?;
    let made_so = |dtype: &Dtype| header(*dtype, len) == *bytes;
    [Dtype::U16, Dtype::U32].into_iter().find(made_so).map(|dtype| (dtype, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_numpy_writes_them() {
        let header = header(Dtype::U16, u64::MAX);
        assert_eq!(&header[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = std::str::from_utf8(&header[10..]).unwrap();
        let expected =
            "{'descr': '<u2', 'fortran_order': False, 'shape': (18446744073709551615,), }";
        assert_eq!(text.trim_end_matches(' ').trim_end(), expected);
        assert!(text.ends_with('\n') && (HEADER_LEN).is_multiple_of(64));
    }

    #[test]
    fn only_our_headers_are_read() {
        for (dtype, len) in [(Dtype::U16, 0), (Dtype::U32, 7), (Dtype::U16, u64::MAX)] {
            let bytes = header(dtype, len);
            assert_eq!(parse_header(&bytes), Some((dtype, len)));
            for at in 0..HEADER_LEN {
                let mut other = bytes;
                other[at] ^= 0x80;
                assert_eq!(parse_header(&other), None, "byte {at}");
            }
        }
    }

    #[test]
    fn ids_are_little_endian_in_the_width_that_holds_them() {
        assert_eq!(Dtype::for_max_id(65_535), Dtype::U16);
        assert_eq!(Dtype::for_max_id(65_536), Dtype::U32);
        let mut bytes = vec![9];
        Dtype::U16.extend(&mut bytes, &[0x0102, 0xFFFF]);
        Dtype::U32.extend(&mut bytes, &[0x01_0203]);
        assert_eq!(bytes, [9, 2, 1, 0xFF, 0xFF, 3, 2, 1, 0]);
    }

    #[test]
    fn stored_ids_are_found_again() {
        for dtype in [Dtype::U16, Dtype::U32] {
            let mut stored = StoredIds::new(dtype, vec![1, 2, 3]);
            let ids: Vec<TokenId> = (0..300).map(|place| place * place % 257).collect();
            stored.append(&ids[..10]);
            stored.append(&ids);
            stored.truncate(10);
            stored.append(&ids[10..]);
            assert_eq!(stored.len(), 300);
            assert_eq!(stored.iter_from(0).collect::<Vec<_>>(), ids);
            assert_eq!(stored.get(300), None);
            let places = stored.places_of(4, 3);
            assert!(places.iter().all(|&place| ids[place] == 4) && places.is_sorted());
            assert_eq!(places.len(), ids[3..].iter().filter(|id| **id == 4).count());
            assert!(places.len() > 1);
            assert_eq!(stored.into_bytes().len(), 300 * dtype.width() as usize);
        }
    }
}
