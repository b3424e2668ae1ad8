//! Reads arrays of ids as NumPy would.

use std::path::Path;

use bpe::TokenId;

/// The ids of a file: dtype and length are taken from its header.
pub fn read_npy(path: &Path) -> Vec<TokenId> {
    let bytes = std::fs::read(path).unwrap();
    let header_len = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = bytes.split_at(header_len);
    let header = String::from_utf8_lossy(header);
    let width = if header.contains("'<u2'") { 2 } else { 4 };
    assert!(width == 2 || header.contains("'<u4'"), "{header}");
    let id = |place: &[u8]| place.iter().rev().fold(0, |id, &byte| id << 8 | TokenId::from(byte));
    let ids: Vec<TokenId> = data.chunks(width).map(id).collect();
    assert!(header.contains(&format!("'shape': ({},)", ids.len())), "{header}");
    ids
}
