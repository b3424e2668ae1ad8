//! Long jobs seen from Python: the job runs on a thread of its own with the GIL released, while the
//! calling thread polls its progress, tells a Python callback, and notices Ctrl-C.

use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;

use super::errors::{guard, to_python};
use crate::encode::encoder::Tokenizer;
use crate::error::Result;
use crate::progress::{Phase, Progress};
use crate::vocab::TokenId;
use crate::workers::panic_message;

/// Encoding this many bytes takes so long that Ctrl-C should stop it: some milliseconds, beside which
/// starting a thread is nothing.
pub const WORTH_WATCHING: usize = 1 << 20;

/// Encoding this many bytes takes so long that other Python threads should run meanwhile; below,
/// releasing the GIL and taking it again would cost more than it gains.
pub const WORTH_RELEASING: usize = 4096;

/// How often the calling thread polls: Ctrl-C is noticed within this time.
const INTERVAL: Duration = Duration::from_millis(50);

/// Runs `job` and returns what it returns, as soon as it does. `callback` is called with (phase,
/// units done, units in all); if it raises, or a signal's handler does (Ctrl-C), the job is asked
/// to stop, waited for, and that exception is raised. Where the system allows no thread more the
/// calling one does the job, and notices nothing until its end.
pub fn watch<T: Send>(
    py: Python<'_>,
    callback: Option<&Bound<'_, PyAny>>,
    job: impl FnOnce(&Progress) -> Result<T> + Send,
) -> PyResult<T> {
    let progress = &Progress::new();
    let (sender, receiver) = sync_channel(1);
    let job = Mutex::new(Some(job));
    let take_job = || job.lock().unwrap_or_else(PoisonError::into_inner).take();
    thread::scope(|scope| {
        let work = || {
            if let Some(job) = take_job() {
                // Nobody receives it only if polling has failed already.
                let _ = sender.send(job(progress));
            }
            drop(sender);
        };
        let Ok(worker) = thread::Builder::new().spawn_scoped(scope, work) else {
            let result = take_job().map(|job| py.detach(|| guard(|| job(progress))));
            let value = result.unwrap_or_else(|| Err(ended_without_result()))?;
            report(callback, progress)?;
            return Ok(value);
        };
        let polled = poll_until_done(py, callback, progress, receiver);
        if polled.is_err() {
            progress.cancel();
        }
        if let Err(panic) = py.detach(|| worker.join()) {
            return Err(PyRuntimeError::new_err(panic_message(&*panic)));
        }
        let result = polled?.ok_or_else(ended_without_result)?;
        let value = result.map_err(to_python)?;
        report(callback, progress)?;
        Ok(value)
    })
}

/// The ids of a text: a long one as a job, so that Ctrl-C stops it.
pub fn encode_watched(
    py: Python<'_>,
    tokenizer: &Tokenizer,
    text: &[u8],
    encode: impl Fn(&Tokenizer, &[u8], &mut Vec<TokenId>) -> Result<()> + Send,
) -> PyResult<Vec<TokenId>> {
    let ids = move || {
        let mut ids = Vec::with_capacity(text.len() / 3 + 8);
        encode(tokenizer, text, &mut ids)?;
        Ok(ids)
    };
    match text.len() {
        ..WORTH_RELEASING => guard(ids),
        WORTH_RELEASING..WORTH_WATCHING => py.detach(|| guard(ids)),
        _ => watch(py, None, |progress: &Progress| progress.watched(ids)),
    }
}

fn ended_without_result() -> PyErr {
    PyRuntimeError::new_err("internal error: a job ended without a result")
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
