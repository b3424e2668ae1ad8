//! Files of JSON that end in a line with the SHA-256 of all bytes before that line:
//!
//! ```text
//! {
//!   "tokens": 7,
//!   "checksum": "40e2..."
//! }
//! ```
//!
//! Python reads and writes the same (`cs336lm/json_files.py`).

use std::io;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// How the last line but one begins, and what follows the digest.
const CHECKSUM: &str = "  \"checksum\": \"";
const END: &str = "\"\n}\n";
const HEX_LEN: usize = 64;

/// What a file's end says about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// It is as it was written.
    Whole,
    /// It is not.
    Broken,
    /// Nothing: it does not end in a checksum.
    Missing,
}

/// The bytes of a sealed file that holds the fields of `values`, of which there is one at least.
///
/// # Errors
/// `values` cannot be JSON.
pub fn sealed(values: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut content = serde_json::to_vec_pretty(values)?;
    content.truncate(content.len() - "\n}".len());
    content.extend_from_slice(b",\n");
    let digest = hex(&Sha256::digest(&content));
    content.extend_from_slice(format!("{CHECKSUM}{digest}{END}").as_bytes());
    Ok(content)
}

/// Whether `content` is what [`sealed`] made.
pub fn seal(content: &[u8]) -> Seal {
    let Some(before) = content.len().checked_sub(CHECKSUM.len() + HEX_LEN + END.len()) else {
        return Seal::Missing;
    };
    let (content, last) = content.split_at(before);
    if !last.starts_with(CHECKSUM.as_bytes()) {
        return Seal::Missing;
    }
    let digest = hex(&Sha256::digest(content));
    if last[CHECKSUM.len()..] == *format!("{digest}{END}").as_bytes() {
        Seal::Whole
    } else {
        Seal::Broken
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let whole = sealed(&serde_json::json!({"tokens": 7})).expect("JSON");
        let text = str::from_utf8(&whole).expect("text");
        assert!(text.starts_with("{\n  \"tokens\": 7,\n  \"checksum\": \"") && text.ends_with(END));
        assert_eq!(seal(&whole), Seal::Whole);
        for bit in 0..8 * whole.len() {
            let mut other = whole.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(seal(&other), Seal::Whole, "bit {bit}");
        }
        for len in 0..whole.len() {
            assert_ne!(seal(&whole[..len]), Seal::Whole, "{len} bytes");
        }
        assert_eq!(seal(b"{\n  \"tokens\": 7\n}\n"), Seal::Missing);
    }
}
