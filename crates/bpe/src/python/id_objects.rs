//! Python's integers for token ids, made once and given out again.
//!
//! Most of what it takes to turn a short text into a list is making integers: an allocation each,
//! for ids above 256. A list of a million ids needs 8 MB instead of 40 this way. A tokenizer keeps
//! the integers of the ids that it has seen, 48 bytes each.

use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};

use crate::vocab::TokenId;

/// Ids whose integers lie together, so that what is never asked for takes no memory.
const BLOCK: usize = 256;

type Block = [OnceLock<Py<PyInt>>; BLOCK];

/// The integers of one tokenizer's ids.
#[derive(Default)]
pub struct IdObjects {
    /// By id / [`BLOCK`], as many as the largest id asks for.
    blocks: OnceLock<Box<[OnceLock<Box<Block>>]>>,
}

impl IdObjects {
    /// A list of `ids`, none of which is above `max_id`.
    pub fn list<'py>(
        &self,
        py: Python<'py>,
        ids: &[TokenId],
        max_id: TokenId,
    ) -> PyResult<Bound<'py, PyList>> {
        let blocks = self
            .blocks
            .get_or_init(|| (0..=max_id as usize / BLOCK).map(|_| OnceLock::new()).collect());
        PyList::new(py, ids.iter().map(|&id| integer(py, blocks, id)))
    }
}

#[inline]
fn integer<'py>(
    py: Python<'py>,
    blocks: &[OnceLock<Box<Block>>],
    id: TokenId,
) -> Bound<'py, PyInt> {
    let block =
        blocks[id as usize / BLOCK].get_or_init(|| Box::new([const { OnceLock::new() }; BLOCK]));
    // Under the GIL nobody else is here, and making an integer does not give it up.
    let known = block[id as usize % BLOCK].get_or_init(|| PyInt::new(py, id).unbind());
    known.bind(py).clone()
}
