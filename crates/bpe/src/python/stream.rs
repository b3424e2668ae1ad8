//! The class `_bpe.EncodeStream`: text in pieces, ids as soon as they are certain.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arguments::text_bytes;
use super::errors::guard;
use crate::encode::encoder::Tokenizer;
use crate::encode::stream::StreamEncoder;
use crate::error::Result;
use crate::vocab::TokenId;

#[pyclass(frozen, module = "cs336lm._bpe")]
pub struct EncodeStream(Mutex<StreamEncoder<Arc<Tokenizer>>>);

impl EncodeStream {
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self(Mutex::new(StreamEncoder::new(tokenizer)))
    }
}

#[pymethods]
impl EncodeStream {
    fn push<'py>(&self, piece: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let (py, bytes) = (piece.py(), text_bytes(piece)?);
        PyList::new(py, self.with_stream(|stream, ids| stream.push(bytes, ids))?)
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        PyList::new(py, self.with_stream(|stream, ids| stream.finish(ids))?)
    }
}

impl EncodeStream {
    /// The ids that `work` makes. The lock is given back before anything of Python's is made: that
    /// may run a finalizer, and a finalizer may use this stream. It is not held across a release
    /// of the GIL either, so no other thread waits for it holding the GIL.
    fn with_stream(
        &self,
        work: impl FnOnce(&mut StreamEncoder<Arc<Tokenizer>>, &mut Vec<TokenId>) -> Result<()>,
    ) -> PyResult<Vec<TokenId>> {
        guard(|| {
            let mut ids = Vec::new();
            let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut stream, &mut ids)?;
            Ok(ids)
        })
    }
}
