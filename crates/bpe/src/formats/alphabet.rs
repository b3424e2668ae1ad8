//! GPT-2's alphabet: one printable character for each byte, so that tokens can be written in JSON
//! and in lines of text. Printable Latin-1 characters stand for their own byte; the other 68 bytes,
//! in order, are U+0100 and on (a space is `Ġ`).
//!
//! Source: `bytes_to_unicode` in the encoder that came with Radford et al. 2019.

/// byte -> character
const CHARACTERS: [char; 256] = characters();
/// character -> byte, or [`NONE`]
const BYTES: [u16; 0x144] = bytes();
const NONE: u16 = u16::MAX;

const fn characters() -> [char; 256] {
    let mut table = ['\0'; 256];
    let (mut byte, mut next) = (0usize, 0x100u32);
    while byte < 256 {
        table[byte] = match byte as u8 {
            own @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => own as char,
            _ => {
                next += 1;
                char::from_u32(next - 1).expect("below U+0200")
            }
        };
        byte += 1;
    }
    table
}

const fn bytes() -> [u16; 0x144] {
    let mut table = [NONE; 0x144];
    let mut byte = 0;
    while byte < 256 {
        table[CHARACTERS[byte] as usize] = byte as u16;
        byte += 1;
    }
    table
}

/// Writes `bytes` in the alphabet.
pub fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| CHARACTERS[usize::from(byte)]).collect()
}

/// Appends to `bytes` what `text` stands for; appends nothing and says `false` if some character
/// is not in the alphabet. All that are have one byte or two.
pub fn unspell(text: &[u8], bytes: &mut Vec<u8>) -> bool {
    let start = bytes.len();
    let mut rest = text;
    loop {
        let code_point = match *rest {
            [] => return true,
            [ascii @ ..0x80, ref after @ ..] => {
                rest = after;
                usize::from(ascii)
            }
            [lead @ 0xC2..0xE0, last @ 0x80..0xC0, ref after @ ..] => {
                rest = after;
                usize::from(lead & 0x1F) << 6 | usize::from(last & 0x3F)
            }
            _ => usize::MAX,
        };
        match BYTES.get(code_point) {
            Some(&byte) if byte != NONE => bytes.push(byte as u8),
            _ => {
                bytes.truncate(start);
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spells_as_gpt2_does() {
        assert_eq!(spell(b" the\n"), "ĠtheĊ");
        assert_eq!(spell("é\u{AD}".as_bytes()), "Ã©ÂŃ");
        assert_eq!(spell(b"\0\x7F\xFF"), "Āġÿ");
    }

    #[test]
    fn comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut back = Vec::new();
        assert!(unspell(spell(&all).as_bytes(), &mut back));
        assert_eq!(back, all);
        for other in ["a b", "a\u{144}", "中", "𠀀"] {
            assert!(!unspell(other.as_bytes(), &mut back), "{other}");
        }
        assert!(!unspell(b"a\xC4", &mut back));
        assert_eq!(back, all);
    }
}
