//! The one hash of the crate's tables of words and pairs: one wide multiplication per 16 bytes,
//! folded, so that high and low bits of the input reach all bits of the output.
//!
//! It does not resist someone who chooses keys to collide. The caches of the encoder are therefore
//! bounded: a collision there costs a repeated merge, never a long probe.

const SEED_LOW: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 / golden ratio
const SEED_HIGH: u64 = 0xd1b5_4a32_d192_ed03; // 2^64 / the plastic number, made odd

/// Both halves of the 128-bit product, folded into one word.
#[inline(always)]
pub fn fold(low: u64, high: u64) -> u64 {
    let product = u128::from(low ^ SEED_LOW) * u128::from(high ^ SEED_HIGH);
    (product as u64) ^ ((product >> 64) as u64)
}

/// A hash of a byte string of any length.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    let (blocks, tail) = bytes.as_chunks::<16>();
    let mut hash = bytes.len() as u64;
    for block in blocks {
        hash = fold_block(hash, block);
    }
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    fold_block(hash, &last)
}

#[inline(always)]
fn fold_block(hash: u64, block: &[u8; 16]) -> u64 {
    let block = u128::from_le_bytes(*block);
    // The running hash is rotated into both factors: block order matters.
    fold(block as u64 ^ hash, (block >> 64) as u64 ^ hash.rotate_left(32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn short_strings_spread() {
        // All strings of one and two bytes: 65,792 hashes, and they must also differ in the
        // 20 bits that a table of a million slots uses (a random function fills 64,000 of them).
        let mut strings: Vec<Vec<u8>> = (0..=255).map(|a| vec![a]).collect();
        strings.extend((0..=255).flat_map(|a| (0..=255).map(move |b| vec![a, b])));
        let hashes: HashSet<u64> = strings.iter().map(|s| hash_bytes(s)).collect();
        let top: HashSet<u64> = hashes.iter().map(|hash| hash >> 44).collect();
        assert_eq!(hashes.len(), 65_792);
        assert!(top.len() > 62_000, "{}", top.len());
    }

    #[test]
    fn zeros_count() {
        let hashes: HashSet<u64> = (0..100).map(|n| hash_bytes(&vec![0; n])).collect();
        assert_eq!(hashes.len(), 100);
    }
}
