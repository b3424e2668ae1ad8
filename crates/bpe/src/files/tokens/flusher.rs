//! Has files written to the disk early.
//!
//! A file is synced before it gets its name. If everything waited for that, the job would end with
//! idle cores and a busy disk; so a thread of its own syncs again and again while the others
//! encode, and little is left at the end. It decides nothing: a failure shows in the last sync.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// After how many bytes the disk is asked to write.
const STEP: u64 = 8 << 20;

/// A thread that syncs files while they are written.
pub struct Flusher {
    written: AtomicU64,
    /// Holds one request: a sync covers everything that is written by then.
    requests: Option<SyncSender<File>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub fn new() -> Self {
        let (requests, requested) = sync_channel::<File>(1);
        let sync = move || requested.iter().for_each(|file| drop(file.sync_data()));
        let thread = thread::Builder::new().name("flusher".to_owned()).spawn(sync).ok();
        Self { written: AtomicU64::new(0), requests: Some(requests), thread }
    }

    /// `bytes` more were written to `file`.
    pub fn note(&self, file: &File, bytes: u64) {
        let before = self.written.fetch_add(bytes, Relaxed);
        if before / STEP != (before + bytes) / STEP
            && let (Some(requests), Ok(file)) = (&self.requests, file.try_clone())
        {
            // If a request is waiting already, or there is no thread, the last sync writes it all.
            let _ = requests.try_send(file);
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.requests = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
