//! Ids on their way to the output: copied four at a time, counted, and appended in large steps.

use super::output::Output;
use super::short_cache::MAX_IDS;
use crate::vocab::TokenId;

/// How many ids are gathered before they are appended to the output.
const FULL: usize = 1024;

/// How many times a writer may push.
pub const MAX_PUSHES: usize = 256;

/// A place to copy [`MAX_IDS`] to and count fewer.
pub struct IdBuffer {
    ids: Box<[TokenId; FULL + MAX_PUSHES * MAX_IDS]>,
    len: usize,
}

impl Default for IdBuffer {
    fn default() -> Self {
        Self { ids: Box::new([0; FULL + MAX_PUSHES * MAX_IDS]), len: 0 }
    }
}

impl IdBuffer {
    /// Forgets what a text that failed has left.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// A writer with room for the ids of [`MAX_PUSHES`] words.
    #[inline(always)]
    pub fn writer(&mut self, out: &mut impl Output) -> IdWriter<'_> {
        if self.len > FULL {
            self.flush(out);
        }
        IdWriter { len: self.len, buffer: self }
    }

    /// Appends what was gathered to the output.
    #[inline(never)]
    pub fn flush(&mut self, out: &mut impl Output) {
        out.append(&self.ids[..self.len]);
        self.len = 0;
    }
}

/// Where the next ids go, which depends on how many came before: kept in a register. In memory that
/// would be a store and a load for every word, one waiting for the other.
pub struct IdWriter<'a> {
    buffer: &'a mut IdBuffer,
    len: usize,
}

impl IdWriter<'_> {
    /// Appends the first `count` of `ids`.
    #[inline(always)]
    pub fn push(&mut self, ids: [TokenId; MAX_IDS], count: usize) {
        self.buffer.ids[self.len..self.len + MAX_IDS].copy_from_slice(&ids);
        self.len += count;
    }
}

impl Drop for IdWriter<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.buffer.len = self.len;
    }
}
