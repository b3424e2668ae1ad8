//! 64 bytes of text at once: for each class of characters, one bit a byte.
//!
//! On x86-64 the comparisons are vector instructions that every such processor has (SSE2), and one
//! more instruction takes the mask from their result. Elsewhere bytes are compared one by one, which
//! the compiler makes vector instructions of, and a multiplication takes eight bits at a time.

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable;
#[cfg(target_arch = "x86_64")]
mod sse2;

#[cfg(not(target_arch = "x86_64"))]
use portable::Part;
#[cfg(target_arch = "x86_64")]
use sse2::Part;

/// How many bytes are looked at together: one for each bit of a mask.
pub const WIDTH: usize = 64;

/// The bytes, ready to be compared. Bit i of each answer is the byte i.
#[derive(Clone, Copy)]
pub struct Block([Part; WIDTH / Part::LEN]);

impl Block {
    #[inline(always)]
    pub fn new(bytes: &[u8; WIDTH]) -> Self {
        let (parts, _) = bytes.as_chunks();
        Self(std::array::from_fn(|i| Part::new(&parts[i])))
    }

    /// Which are not ASCII.
    #[inline(always)]
    pub fn high(&self) -> u64 {
        self.each(Part::high)
    }

    /// Which are `byte`.
    #[inline(always)]
    pub fn equal(&self, byte: u8) -> u64 {
        self.each(|part| part.equal(byte))
    }

    /// Which are from `first` to `last`, which is less than 128 more.
    #[inline(always)]
    pub fn within(&self, first: u8, last: u8) -> u64 {
        self.each(|part| part.within(first, last))
    }

    /// Which are letters of either case.
    #[inline(always)]
    pub fn letters(&self) -> u64 {
        self.each(|part| part.lower_case().within(b'a', b'z'))
    }

    /// Which are digits.
    #[inline(always)]
    pub fn digits(&self) -> u64 {
        self.within(b'0', b'9')
    }

    /// Which are white space: White_Space below U+0080.
    #[inline(always)]
    pub fn spaces(&self) -> u64 {
        self.equal(b' ') | self.within(b'\t', b'\r')
    }

    /// Which are line ends.
    #[inline(always)]
    pub fn newlines(&self) -> u64 {
        self.equal(b'\n') | self.equal(b'\r')
    }

    #[inline(always)]
    fn each(&self, bits: impl Fn(Part) -> u64) -> u64 {
        let parts = self.0.iter().enumerate();
        parts.fold(0, |mask, (i, &part)| mask | bits(part) << (i * Part::LEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every byte in every lane, by both ways.
    #[test]
    fn masks_say_what_is_where() {
        let mut bytes: [u8; WIDTH] = std::array::from_fn(|i| i as u8);
        for shift in 0..=255u8 {
            let mask_of = |is: &dyn Fn(u8) -> bool| {
                bytes.iter().enumerate().fold(0, |mask, (i, &b)| mask | u64::from(is(b)) << i)
            };
            let block = Block::new(&bytes);
            assert_eq!(block.high(), mask_of(&|b| !b.is_ascii()));
            assert_eq!(block.letters(), mask_of(&|b| b.is_ascii_alphabetic()));
            assert_eq!(block.digits(), mask_of(&|b| b.is_ascii_digit()));
            let spaces = |b: u8| b.is_ascii() && char::from(b).is_whitespace();
            assert_eq!(block.spaces(), mask_of(&spaces));
            assert_eq!(block.newlines(), mask_of(&|b| matches!(b, b'\r' | b'\n')));
            assert_eq!(block.equal(shift), mask_of(&|b| b == shift));
            let last = shift.saturating_add(100);
            assert_eq!(block.within(shift, last), mask_of(&|b| (shift..=last).contains(&b)));

            for (i, part) in bytes.as_chunks().0.iter().enumerate() {
                let part = portable::Part::new(part);
                let lanes = |mask: u64| mask >> (8 * i) & 0xFF;
                assert_eq!(part.high(), lanes(block.high()));
                assert_eq!(part.equal(shift), lanes(block.equal(shift)));
                assert_eq!(part.within(shift, last), lanes(block.within(shift, last)));
                assert_eq!(part.lower_case().within(b'a', b'z'), lanes(block.letters()));
            }
            bytes = bytes.map(|byte| byte.wrapping_add(1));
        }
    }
}
