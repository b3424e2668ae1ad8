//! How much memory merging may take on top of the words: sketches of counts, lists of positions.

/// The fewest and the most cells of a sketch, as powers of two; the most take 128 MB.
pub const MIN_CELL_BITS: u32 = 12;
const MAX_CELL_BITS: u32 = 25;

/// A position is first noted with its pair, in eight bytes, then listed, in four.
const BYTES_PER_PLACE: u64 = 12;

/// A bound on memory, divided among its uses.
#[derive(Clone, Copy)]
pub struct Budget {
    max_memory: Option<u64>,
    partitions: usize,
}

impl Budget {
    /// `max_memory` is in bytes; each partition has a sketch of its own.
    pub fn new(max_memory: Option<u64>, partitions: usize) -> Self {
        Self { max_memory, partitions }
    }

    pub fn is_unlimited(&self) -> bool {
        self.max_memory.is_none()
    }

    /// The most cells of a sketch, as a power of two: an eighth of the memory is for sketches.
    pub fn max_cell_bits(&self) -> u32 {
        let Some(bytes) = self.max_memory else {
            return MAX_CELL_BITS;
        };
        let cells = bytes / 8 / (self.partitions * size_of::<u32>()) as u64;
        cells.max(1).ilog2().clamp(MIN_CELL_BITS, MAX_CELL_BITS)
    }

    /// How many positions may be found and listed at once, in a quarter of the memory.
    pub fn max_places(&self) -> u64 {
        self.max_memory.map_or(u64::MAX, |bytes| bytes / 4 / BYTES_PER_PLACE)
    }

    /// How many positions all lists may hold, those of new pairs too.
    pub fn max_listed(&self) -> u64 {
        self.max_memory.map_or(u64::MAX, |bytes| bytes / 4 / size_of::<u32>() as u64)
    }
}
