//! Long jobs seen from Python: the job runs on a thread of its own with the GIL released, while the
//! calling thread polls its progress, tells a Python callback, and notices Ctrl-C.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::errors::to_python;
use crate::error::Result;
use crate::progress::{Phase, Progress};
use crate::workers::{no_thread, panic_message};

/// How often the calling thread polls: Ctrl-C is noticed within this time.
const INTERVAL: Duration = Duration::from_millis(50);

/// Runs `job` and returns what it returns, as soon as it does. `callback` is called with (phase,
/// units done, units in all); if it raises, or a signal's handler does (Ctrl-C), the job is asked
/// to stop, waited for, and that exception is raised.
pub fn watch<T: Send>(
    py: Python<'_>,
    callback: Option<&Bound<'_, PyAny>>,
    job: impl FnOnce(&Progress) -> Result<T> + Send,
) -> PyResult<T> {
    let progress = &Progress::new();
    let (sender, receiver) = sync_channel(1);
    thread::scope(|scope| {
        let work = move || {
            // Nobody receives it only if polling has failed already.
            let _ = sender.send(job(progress));
        };
        let worker = thread::Builder::new()
            .spawn_scoped(scope, work)
            .map_err(|error| to_python(no_thread(&error.to_string())))?;
        let polled = poll_until_done(py, callback, progress, receiver);
        if polled.is_err() {
            progress.cancel();
        }
        if let Err(panic) = py.detach(|| worker.join()) {
            return Err(PyRuntimeError::new_err(panic_message(&*panic)));
        }
        let ended = || PyRuntimeError::new_err("internal error: a job ended without a result");
        let result = polled?.ok_or_else(ended)?;
        let value = result.map_err(to_python)?;
        report(callback, progress)?;
        Ok(value)
    })
}

/// Waits for the job's result; `None` if the job ended without one (it panicked).
fn poll_until_done<T: Send>(
    py: Python<'_>,
    callback: Option<&Bound<'_, PyAny>>,
    progress: &Progress,
    mut receiver: Receiver<Result<T>>,
) -> PyResult<Option<Result<T>>> {
    loop {
        // By `&mut`, because a receiver may be sent to another thread but not shared with one.
        let receiver = &mut receiver;
        match py.detach(move || receiver.recv_timeout(INTERVAL)) {
            Ok(result) => return Ok(Some(result)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {
                py.check_signals()?;
                report(callback, progress)?;
            }
        }
    }
}

fn report(callback: Option<&Bound<'_, PyAny>>, progress: &Progress) -> PyResult<()> {
    let (phase, done, total) = progress.snapshot();
    if let Some(callback) = callback
        && phase != Phase::Waiting
    {
        callback.call1((phase.name(), done, total))?;
    }
    Ok(())
}
