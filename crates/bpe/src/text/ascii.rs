//! The end of a run of ASCII letters, eight bytes a step.
//!
//! Source: SIMD within a register (Lamport, *Multiple byte processing with full-word instructions*,
//! 1975): 64 bits are taken as eight lanes; the range test is a carry into a lane's top bit.

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x80 * ONES;

/// A letter of either case.
#[inline(always)]
pub fn is_letter(byte: u8) -> bool {
    (byte | 0x20).wrapping_sub(b'a') < 26
}

/// Where the run of ASCII letters ends that starts at `at`: the first place without one.
#[inline(always)]
pub fn letters_end(text: &[u8], mut at: usize) -> usize {
    while let Some(lanes) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let others = !letters(u64::from_le_bytes(*lanes)) & TOPS;
        if others != 0 {
            return at + others.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while text.get(at).is_some_and(|&byte| is_letter(byte)) {
        at += 1;
    }
    at
}

/// The top bit of each lane that holds an ASCII letter; other bits mean nothing.
#[inline(always)]
fn letters(lanes: u64) -> u64 {
    // In lower case, without the top bit: no sum below leaves its lane.
    let lower = (lanes | (0x20 * ONES)) & !TOPS;
    let from_a = lower + (0x80 - u64::from(b'a')) * ONES;
    let past_z = lower + (0x7F - u64::from(b'z')) * ONES;
    from_a & !past_z & !lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_in_every_lane() {
        for byte in 0..=255u8 {
            for place in 0..20 {
                let mut text = [b'x'; 20];
                text[place] = byte;
                let expected = if byte.is_ascii_alphabetic() { 20 } else { place };
                assert_eq!(letters_end(&text, 0), expected, "{byte} at {place}");
                assert_eq!(is_letter(byte), byte.is_ascii_alphabetic());
            }
        }
        assert_eq!(letters_end(b"ab", 2), 2);
    }
}
