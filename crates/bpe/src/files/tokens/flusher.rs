//! Sends what is written to the disk early.
//!
//! A file is synced before it gets its name. If all of it waited for that, the job would end with
//! idle cores and a busy disk; so a thread of its own asks for it again and again while the others
//! encode, and little is left at the end. It decides nothing: a failure shows in the last sync.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// After how many bytes the disk is asked to write.
const STEP: u64 = 8 << 20;

pub struct Flusher {
    written: AtomicU64,
    /// Holds one wish: a sync covers all that is written by then.
    wishes: Option<SyncSender<File>>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    pub fn new() -> Self {
        let (wishes, asked) = sync_channel::<File>(1);
        let sync = move || asked.iter().for_each(|file| drop(file.sync_data()));
        let thread = thread::Builder::new().name("flusher".to_owned()).spawn(sync).ok();
        Self { written: AtomicU64::new(0), wishes: Some(wishes), thread }
    }

    /// `bytes` more were written to `file`.
    pub fn note(&self, file: &File, bytes: u64) {
        let before = self.written.fetch_add(bytes, Relaxed);
        if before / STEP != (before + bytes) / STEP
            && let (Some(wishes), Ok(file)) = (&self.wishes, file.try_clone())
        {
            // If one waits already, or nobody listens, all is written in the end.
            let _ = wishes.try_send(file);
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.wishes = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
