//! What merging may take of memory on top of the words: sketches of counts, and lists of positions.

/// A sketch has at least so many cells, in bits, and at most so many: 128 MB.
pub const MIN_CELL_BITS: u32 = 12;
const MAX_CELL_BITS: u32 = 25;

/// A place that is found is noted with its pair, eight bytes, before it is listed, four.
const BYTES_PER_PLACE: u64 = 12;

#[derive(Clone, Copy)]
pub struct Budget {
    max_memory: Option<u64>,
    shards: usize,
}

impl Budget {
    /// `max_memory` is in bytes; each of so many shards has a sketch of its own.
    pub fn new(max_memory: Option<u64>, shards: usize) -> Self {
        Self { max_memory, shards }
    }

    pub fn is_unlimited(&self) -> bool {
        self.max_memory.is_none()
    }

    /// An eighth of the memory is for sketches.
    pub fn max_cell_bits(&self) -> u32 {
        let Some(bytes) = self.max_memory else {
            return MAX_CELL_BITS;
        };
        let cells = bytes / 8 / (self.shards * size_of::<u32>()) as u64;
        cells.max(1).ilog2().clamp(MIN_CELL_BITS, MAX_CELL_BITS)
    }

    /// How many places may be listed at once, in a quarter of the memory.
    pub fn max_places(&self) -> u64 {
        self.max_memory.map_or(u64::MAX, |bytes| bytes / 4 / BYTES_PER_PLACE)
    }

    /// How many positions all lists may hold, those of new pairs too.
    pub fn max_listed(&self) -> u64 {
        self.max_memory.map_or(u64::MAX, |bytes| bytes / 4 / size_of::<u32>() as u64)
    }
}
