//! The class `_bpe.EncodeStream`: text in pieces, ids as soon as they are certain.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arguments::text_bytes;
use super::errors::to_python;
use crate::encode::encoder::Tokenizer;
use crate::encode::stream::StreamEncoder;

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
        let mut ids = Vec::new();
        // Not held across a release of the GIL, so no other thread waits for it holding the GIL.
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.push(bytes, &mut ids).map_err(to_python)?;
        PyList::new(py, ids)
    }

    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let mut ids = Vec::new();
        let mut stream = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stream.finish(&mut ids).map_err(to_python)?;
        PyList::new(py, ids)
    }
}
