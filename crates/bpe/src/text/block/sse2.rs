//! Sixteen bytes in a vector of SSE2, which every x86-64 has: there is nothing to ask the processor
//! for, but to the compiler an instruction's function is safe only where its feature is named.

use std::arch::x86_64::{
    __m128i, _mm_add_epi8, _mm_cmpeq_epi8, _mm_cmplt_epi8, _mm_movemask_epi8, _mm_or_si128,
    _mm_set_epi64x, _mm_set1_epi8,
};

#[derive(Clone, Copy)]
pub struct Part(__m128i);

impl Part {
    pub const LEN: usize = 16;

    #[inline(always)]
    pub fn new(bytes: &[u8; Self::LEN]) -> Self {
        let bytes = u128::from_le_bytes(*bytes);
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_set_epi64x((bytes >> 64) as i64, bytes as i64) })
    }

    #[inline(always)]
    pub fn high(self) -> u64 {
        // SAFETY: SSE2 is part of x86-64.
        u64::from(unsafe { _mm_movemask_epi8(self.0) } as u16)
    }

    #[inline(always)]
    pub fn equal(self, byte: u8) -> u64 {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_cmpeq_epi8(self.0, _mm_set1_epi8(byte as i8)) }).high()
    }

    #[inline(always)]
    pub fn within(self, first: u8, last: u8) -> u64 {
        // Comparisons are of signed numbers: `first` is moved to the least of them.
        const LEAST: u8 = i8::MIN as u8;
        let (move_by, end) = (LEAST.wrapping_sub(first), LEAST + (last - first) + 1);
        // SAFETY: SSE2 is part of x86-64.
        let within = unsafe {
            let moved = _mm_add_epi8(self.0, _mm_set1_epi8(move_by as i8));
            _mm_cmplt_epi8(moved, _mm_set1_epi8(end as i8))
        };
        Self(within).high()
    }

    /// Letters in lower case; what becomes of other bytes is no letter.
    #[inline(always)]
    pub fn lower_case(self) -> Self {
        // SAFETY: SSE2 is part of x86-64.
        Self(unsafe { _mm_or_si128(self.0, _mm_set1_epi8(0x20)) })
    }
}
