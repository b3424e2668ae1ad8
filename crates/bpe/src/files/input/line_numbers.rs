//! How many lines are before a place of a file: asked only where a line is no record.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Mutex, PoisonError};

use super::chunk::Place;
use super::cutter::read_exact_at;

const BLOCK: u64 = 1 << 20;

/// What was counted so far: files that are full of wrong lines are not counted again and again.
#[derive(Default)]
pub struct LineNumbers {
    known: Mutex<BTreeMap<(usize, u64), u64>>,
}

impl LineNumbers {
    /// The number of lines of `file` that end before `place`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn before(&self, file: &File, place: &Place) -> io::Result<u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let start = (place.file, 0);
        let nearest = known.range(start..=(place.file, place.offset)).next_back();
        let (mut at, mut lines) = nearest.map_or((0, 0), |(&(_, at), &lines)| (at, lines));
        let mut block = Vec::new();
        while at < place.offset {
            block.resize((place.offset - at).min(BLOCK) as usize, 0);
            read_exact_at(file, &mut block, at)?;
            lines += memchr::memchr_iter(b'\n', &block).count() as u64;
            at += block.len() as u64;
        }
        known.insert((place.file, place.offset), lines);
        Ok(lines)
    }
}
