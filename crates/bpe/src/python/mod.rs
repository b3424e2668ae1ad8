//! The only place that knows Python.

use pyo3::prelude::*;

#[pymodule]
mod _bpe {}
