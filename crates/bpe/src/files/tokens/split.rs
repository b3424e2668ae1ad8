//! Documents -> train or validation.
//!
//! Which side a document goes to depends only on the seed and on its number, so it is the same for
//! any number of threads and wherever a job is resumed.

use super::npy::StoredIds;
use crate::encode::output::Output;
use crate::vocab::{TokenId, Vocab};

pub const TRAIN: usize = 0;
pub const VAL: usize = 1;

/// A document, or the part of one that is in a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentPart {
    /// Where it ends among the chunk's ids; it begins where the one before ends.
    pub end: usize,
    /// How many bytes of text it has.
    pub bytes: u64,
    pub ends_document: bool,
}

/// Chooses the documents of validation.
#[derive(Clone, Copy, Debug)]
pub struct Split {
    seed: u64,
    /// A document goes to validation if its random number is below this.
    threshold: u64,
}

impl Split {
    /// On average, `val_fraction` of all documents go to validation.
    pub fn new(val_fraction: f64, seed: u64) -> Self {
        Self { seed, threshold: (val_fraction.clamp(0.0, 1.0) * u64::MAX as f64) as u64 }
    }

    /// [`TRAIN`] or [`VAL`], by the number of the document.
    #[inline]
    pub fn side(&self, document: u64) -> usize {
        if self.threshold > 0 && random(self.seed, document) < self.threshold { VAL } else { TRAIN }
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014), one
/// stream for each seed.
fn random(seed: u64, number: u64) -> u64 {
    mix(mix(seed).wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The documents of one piece of text, whose ids are those from the place `from` on: each ends with
/// a separator or, if `ends_document`, with the piece. Their bytes are not counted yet.
pub fn documents(
    ids: &StoredIds,
    from: usize,
    separator: Option<TokenId>,
    ends_document: bool,
) -> Vec<DocumentPart> {
    let separators = separator.map_or_else(Vec::new, |id| ids.places_of(id, from)).into_iter();
    let mut documents: Vec<DocumentPart> =
        separators.map(|i| DocumentPart { end: i + 1, bytes: 0, ends_document: true }).collect();
    // A document without ids (an empty record) is one too.
    let is_empty = ends_document && documents.is_empty();
    if documents.last().map_or(from, |last| last.end) < ids.len() || is_empty {
        documents.push(DocumentPart { end: ids.len(), bytes: 0, ends_document });
    }
    documents
}

/// Counts how many bytes of text each document of the ids from `from` on has.
pub fn count_bytes(documents: &mut [DocumentPart], ids: &StoredIds, from: usize, vocab: &Vocab) {
    let len = |id: TokenId| vocab.token(id).map_or(0, |token| token.len() as u64);
    let mut ids = ids.iter_from(from);
    let mut start = from;
    for document in documents {
        document.bytes = ids.by_ref().take(document.end - start).map(len).sum();
        start = document.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tokens::npy::Dtype;

    #[test]
    fn the_fraction_is_kept_and_the_seed_matters() {
        let sides = |seed| -> Vec<usize> {
            let split = Split::new(0.1, seed);
            (0..100_000).map(|document| split.side(document)).collect()
        };
        for seed in [0, 1, u64::MAX] {
            let val = sides(seed).iter().filter(|&&side| side == VAL).count();
            assert!((9_500..10_500).contains(&val), "{val}");
        }
        let both = sides(0).iter().zip(sides(1)).filter(|&(&a, b)| a == VAL && b == VAL).count();
        assert!((800..1_200).contains(&both), "{both} documents are chosen by two seeds");
        assert!((0..1000).all(|document| Split::new(0.0, 7).side(document) == TRAIN));
    }

    #[test]
    fn documents_end_at_separators_and_with_the_file() {
        let vocab = Vocab::from_merges(&[(97, 98)], &["<s>"]).unwrap();
        let ends = |ids: &[TokenId], ends_file| -> Vec<(usize, u64, bool)> {
            let mut stored = StoredIds::new(Dtype::U16, Vec::new());
            stored.append(&[9, 257]);
            stored.append(ids);
            let mut documents = documents(&stored, 2, Some(257), ends_file);
            count_bytes(&mut documents, &stored, 2, &vocab);
            documents.into_iter().map(|d| (d.end - 2, d.bytes, d.ends_document)).collect()
        };
        assert_eq!(ends(&[97, 256, 257, 98], false), [(3, 6, true), (4, 1, false)]);
        assert_eq!(ends(&[97, 257], true), [(2, 4, true)]);
        assert_eq!(ends(&[97], true), [(1, 1, true)]);
        assert_eq!(ends(&[257, 257], false), [(1, 3, true), (2, 3, true)]);
        assert_eq!(ends(&[], true), [(0, 0, true)]);
        assert_eq!(ends(&[], false), []);
    }
}
