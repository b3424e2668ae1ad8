//! Eight bytes, compared one by one: what the compiler knows how to make vectors of.

#[derive(Clone, Copy)]
pub struct Part([u8; Part::LEN]);

impl Part {
    pub const LEN: usize = 8;

    #[inline(always)]
    pub fn new(bytes: &[u8; Self::LEN]) -> Self {
        Self(*bytes)
    }

    #[inline(always)]
    pub fn high(self) -> u64 {
        gather(self.0.map(|byte| byte >> 7))
    }

    #[inline(always)]
    pub fn equal(self, byte: u8) -> u64 {
        gather(self.0.map(|other| u8::from(other == byte)))
    }

    #[inline(always)]
    pub fn within(self, first: u8, last: u8) -> u64 {
        gather(self.0.map(|byte| u8::from(byte.wrapping_sub(first) <= last - first)))
    }

    /// Letters in lower case; what becomes of other bytes is no letter.
    #[inline(always)]
    pub fn lower_case(self) -> Self {
        Self(self.0.map(|byte| byte | 0x20))
    }
}

/// One bit for each byte, which must be 0 or 1: the first byte's is the lowest.
#[inline(always)]
fn gather(bytes: [u8; Part::LEN]) -> u64 {
    // The factor moves the bit of lane k to bit 56 + k; no two land on the same place.
    u64::from_le_bytes(bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56
}
