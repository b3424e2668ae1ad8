//! The class `_bpe.EncodeStream`: text in pieces, ids as soon as they are certain.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::arguments::text_bytes;
use super::errors::guard;
use super::watch::{WORTH_WATCHING, encode_watched};
use crate::encode::encoder::Tokenizer;
use crate::encode::stream::StreamEncoder;
use crate::error::Result;

#[pyclass(frozen, module = "cs336lm._bpe")]
pub struct EncodeStream {
    tokenizer: Arc<Tokenizer>,
    stream: Mutex<StreamEncoder<Arc<Tokenizer>>>,
}

impl EncodeStream {
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        let stream = Mutex::new(StreamEncoder::new(Arc::clone(&tokenizer)));
        Self { tokenizer, stream }
    }
}

#[pymethods]
impl EncodeStream {
    fn push<'py>(&self, piece: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
        let (py, bytes) = (piece.py(), text_bytes(piece)?);
        let mut ids = Vec::new();
        for part in bytes.chunks(WORTH_WATCHING) {
            self.with_stream(|stream| stream.push(part, &mut ids))?;
            if part.len() == WORTH_WATCHING {
                py.check_signals()?; // Ctrl-C
            }
        }
        PyList::new(py, ids)
    }

    /// What waits may be all of the text, if the pattern is a custom one.
    fn finish<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let pending = self.with_stream(|stream| Ok(stream.take_pending()))?;
        PyList::new(py, encode_watched(py, &self.tokenizer, &pending, Tokenizer::encode)?)
    }
}

impl EncodeStream {
    /// What `work` returns. The lock is given back before anything of Python's is made: that
    /// may run a finalizer, and a finalizer may use this stream. It is not held across a release
    /// of the GIL either, so no other thread waits for it holding the GIL.
    fn with_stream<T>(
        &self,
        work: impl FnOnce(&mut StreamEncoder<Arc<Tokenizer>>) -> Result<T>,
    ) -> PyResult<T> {
        guard(|| work(&mut self.stream.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
