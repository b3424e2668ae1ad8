//! The class `_bpe.FolderClaim`: a tokenizer's directory, for one job at a time.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use super::errors::to_python;
use crate::formats;

/// Held from before the work to after the last file is written.
#[pyclass(frozen, module = "cs336lm._bpe")]
pub struct FolderClaim(Mutex<Option<formats::FolderClaim>>);

#[pymethods]
impl FolderClaim {
    #[new]
    fn new(directory: PathBuf, inputs: Vec<PathBuf>) -> PyResult<Self> {
        let claim = formats::claim(&directory, &inputs).map_err(to_python)?;
        Ok(Self(Mutex::new(Some(claim))))
    }

    fn release(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
