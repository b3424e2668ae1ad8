//! The crate's errors as Python's exceptions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::error::{Error, Result};
use crate::workers::panic_message;

/// What `work` returns. A panic, which would be a bug, becomes a `RuntimeError`: Python's own
/// exception for one is not an `Exception`, so that no program would catch it.
pub fn guard<T>(work: impl FnOnce() -> Result<T>) -> PyResult<T> {
    // What the work was writing to is dropped or starts afresh with the next call.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(to_python),
        Err(panic) => Err(PyRuntimeError::new_err(panic_message(&*panic))),
    }
}

/// `Io` becomes the subclass of `OSError` that its number stands for (`FileNotFoundError`, ...),
/// with the file's name; `Invalid` a `ValueError`; `Cancelled` a `KeyboardInterrupt`.
pub fn to_python(error: Error) -> PyErr {
    match error {
        Error::Io { path, source } => match source.raw_os_error() {
            Some(number) => Python::attach(|py| {
                let message = strerror(py, number).unwrap_or_else(|_| source.to_string());
                PyOSError::new_err((number, message, path.into_os_string()))
            }),
            None => PyOSError::new_err(format!("{}: {source}", path.display())),
        },
        Error::Invalid(message) => PyValueError::new_err(message),
        Error::Cancelled => PyKeyboardInterrupt::new_err("stopped on request"),
    }
}

/// An argument that makes no sense becomes Python's `UsageError`, which is also a `ValueError`.
pub fn to_usage_error(error: Error) -> PyErr {
    let message = error.to_string();
    let raise = |py: Python<'_>| -> PyResult<PyErr> {
        let kind = py.import("cs336lm.errors")?.getattr("UsageError")?;
        Ok(PyErr::from_value(kind.call1((message.clone(),))?))
    };
    Python::attach(|py| raise(py).unwrap_or_else(|_| PyValueError::new_err(message.clone())))
}

/// The system's message without the "(os error 2)" that Rust appends.
fn strerror(py: Python<'_>, number: i32) -> PyResult<String> {
    py.import("os")?.call_method1("strerror", (number,))?.extract()
}
