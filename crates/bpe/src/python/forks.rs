//! What is made once, at its first use, in a process that may be forked meanwhile.
//!
//! A fork copies one thread. A cell that another thread is just filling stays "being filled" in the
//! copy for ever, and whoever asks for it there waits for ever. So forks wait until it is full: Python
//! calls [`begin`] before it forks, and [`end`] afterwards in both processes.
//!
//! Filling that keeps Python's global lock needs none of this: only its holder can fork.

use std::cell::{Cell, RefCell};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Held while a cell is filled, and around a fork.
static GATE: Mutex<()> = Mutex::new(());

thread_local! {
    /// Whether this thread fills a cell: code that it runs for that may fork.
    static FILLS: Cell<bool> = const { Cell::new(false) };
    static AROUND_FORK: RefCell<Option<MutexGuard<'static, ()>>> = const { RefCell::new(None) };
}

/// Runs `fill`, during which no other thread forks.
pub fn without_forks<T>(py: Python<'_>, fill: impl FnOnce() -> T) -> T {
    if FILLS.get() {
        return fill();
    }
    let _gate = enter(py);
    FILLS.set(true);
    let filled = fill();
    FILLS.set(false);
    filled
}

/// Waits without Python's global lock, which whoever is inside needs.
fn enter(py: Python<'_>) -> MutexGuard<'static, ()> {
    loop {
        match GATE.try_lock() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                py.detach(|| std::thread::sleep(Duration::from_micros(50)));
            }
        }
    }
}

#[pyfunction]
fn begin(py: Python<'_>) {
    if !FILLS.get() {
        let gate = enter(py);
        AROUND_FORK.with(|held| *held.borrow_mut() = Some(gate));
    }
}

#[pyfunction]
fn end() {
    AROUND_FORK.with(|held| drop(held.borrow_mut().take()));
}

/// Has Python call [`begin`] and [`end`], where it can fork at all.
///
/// # Errors
/// Python's own.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let Ok(at_fork) = py.import("os")?.getattr("register_at_fork") else { return Ok(()) };
    let calls = PyDict::new(py);
    let end = wrap_pyfunction!(end, module)?;
    calls.set_item("before", wrap_pyfunction!(begin, module)?)?;
    calls.set_item("after_in_parent", &end)?;
    calls.set_item("after_in_child", &end)?;
    at_fork.call((), Some(&calls)).map(drop)
}
