//! Where each chunk's ids belong. Chunks are encoded out of order; here their counts are added up
//! in order, under a lock, and nothing else is done under it.
//!
//! Ids that are far ahead of their turn, because files are read at the same time, wait on the disk
//! ([`super::ahead`]); so many, and no more files are begun.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::ahead::Ids;
use super::split::{DocumentPart, Split, TRAIN, VAL};
use crate::error::{Error, Result};
use crate::files::input::Place;

/// Where a chunk is in the order of all: a file and a place in it.
pub type Turn = (usize, u64);

/// One chunk's ids, and what is known about them.
pub struct EncodedChunk {
    /// The ids, as they are stored.
    pub ids: Ids,
    pub documents: Vec<DocumentPart>,
    /// Where the chunk begins, and how much text it holds.
    pub start: Place,
    pub text_bytes: u64,
    /// What was left out of it, and why.
    pub skipped: Vec<String>,
}

/// Consecutive ids of a chunk that belong to one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSpan {
    pub shard: usize,
    pub side: usize,
    /// How many ids are before them in the file.
    pub offset: u64,
    /// Which of the chunk's ids.
    pub ids: Range<usize>,
}

/// A shard that gets no more ids: how many it has on each side, and the first chunk after which
/// it could have been closed, to resume from.
pub struct ClosedShard {
    pub shard: usize,
    pub sizes: [u64; 2],
    pub resume_from: Position,
}

/// How far a job is between two chunks: all that it takes to continue there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How many chunks are before, and where the next one begins.
    pub chunk: u64,
    pub place: Place,
    /// How many documents ended before.
    pub document: u64,
    /// For train and validation: tokens, bytes of text, documents.
    pub tokens: [u64; 2],
    pub bytes: [u64; 2],
    pub documents: [u64; 2],
    /// Bytes of text of each input.
    pub file_bytes: Vec<u64>,
    pub skipped: Vec<String>,
}

/// A chunk's ids with their places in the files, to be written now.
pub struct PlacedChunk {
    pub ids: Ids,
    pub spans: Vec<FileSpan>,
    pub closed: Vec<ClosedShard>,
    pub documents: Vec<DocumentPart>,
    /// How many parts of documents are before these.
    pub parts_before: u64,
}

/// In bytes. Two bytes an id: so many are in some 2.4 GB of English.
const MAX_AHEAD: u64 = 1 << 30;

/// Adds up the counts of chunks, and says where their ids belong.
pub struct Ledger {
    state: Mutex<State>,
    /// Signalled when fewer results are waiting, or the job has failed.
    progressed: Condvar,
    /// How many results may wait in memory for an earlier one.
    max_waiting: usize,
    /// How many bytes of results may wait on the disk before no more files are begun.
    max_ahead: u64,
    shard_tokens: u64,
    split: Split,
}

struct State {
    position: Position,
    /// Whose turn it is.
    turn: Turn,
    shard: usize,
    /// How many ids the open shard has, by side.
    in_shard: [u64; 2],
    /// How many parts of documents were placed.
    parts: u64,
    /// Handed in before their turn, each with whose turn is next; and what of it is where.
    waiting: BTreeMap<Turn, (EncodedChunk, Turn)>,
    in_memory: usize,
    on_disk: u64,
    /// Buffers to be reused.
    free: Vec<Vec<u8>>,
    error: Option<Error>,
}

impl Ledger {
    /// Begins at `position`, with the shard that this is in, and with the chunk whose turn it is.
    pub fn new(
        position: Position,
        turn: Turn,
        shard_tokens: u64,
        split: Split,
        max_waiting: usize,
    ) -> Self {
        let state = State {
            shard: (position.tokens[TRAIN] / shard_tokens) as usize,
            in_shard: [position.tokens[TRAIN] % shard_tokens, 0],
            position,
            turn,
            parts: 0,
            waiting: BTreeMap::new(),
            in_memory: 0,
            on_disk: 0,
            free: Vec::new(),
            error: None,
        };
        let (state, progressed) = (Mutex::new(state), Condvar::new());
        Self { state, progressed, max_waiting, max_ahead: MAX_AHEAD, shard_tokens, split }
    }

    /// A buffer for the next result, as soon as not too many are waiting in memory; `None` if the
    /// job has failed. Results wait there only for chunks that some thread has, but for the few that
    /// are ahead ([`is_crowded`](Self::is_crowded)): so there is always one that continues.
    pub fn next_buffer(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        while state.error.is_none() && state.in_memory >= self.max_waiting {
            state = self.progressed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.error.is_some() {
            return None;
        }
        Some(state.free.pop().unwrap_or_default())
    }

    /// Whether a result whose turn is `turn` would wait, and enough of them wait in memory. One that
    /// is ahead must not wait there: what it waits for may be with nobody yet, and then all would
    /// wait in [`next_buffer`](Self::next_buffer).
    pub fn is_crowded(&self, turn: Turn) -> bool {
        let state = self.lock();
        state.turn != turn && state.in_memory >= self.max_waiting / 2
    }

    /// Whether results may still be made that wait for those of another file.
    pub fn may_go_ahead(&self) -> bool {
        self.lock().on_disk < self.max_ahead
    }

    /// Hands in the result of the chunk whose turn is `turn`, before that of `next`; returns what
    /// may be written now.
    pub fn submit(&self, turn: Turn, next: Turn, chunk: EncodedChunk) -> Vec<PlacedChunk> {
        let mut state = self.lock();
        let (in_memory, on_disk) = chunk.ids.held();
        state.in_memory += in_memory;
        state.on_disk += on_disk;
        state.waiting.insert(turn, (chunk, next));
        let mut placed = Vec::new();
        while let Some((chunk, next)) = {
            let turn = state.turn;
            state.waiting.remove(&turn)
        } {
            let (in_memory, on_disk) = chunk.ids.held();
            state.in_memory -= in_memory;
            state.on_disk -= on_disk;
            state.turn = next;
            placed.push(self.place(&mut state, chunk));
        }
        if !placed.is_empty() {
            self.progressed.notify_all();
        }
        placed
    }

    /// Returns a buffer to be reused.
    pub fn give_back(&self, bytes: Vec<u8>) {
        self.lock().free.push(bytes);
    }

    /// Ends the job, for all threads, with its first error.
    pub fn fail(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.progressed.notify_all();
    }

    /// When all threads are done: the totals, and the shard that is still open.
    ///
    /// # Errors
    /// The one that a thread failed with.
    pub fn finish(&self) -> Result<ClosedShard> {
        let mut state = self.lock();
        match state.error.take() {
            Some(error) => Err(error),
            None => Ok(ClosedShard {
                shard: state.shard,
                sizes: state.in_shard,
                // After all files: the counts are those after the last chunk, not at its start.
                resume_from: Position { place: Place::END, ..state.position.clone() },
            }),
        }
    }

    fn place(&self, state: &mut State, chunk: EncodedChunk) -> PlacedChunk {
        let ids = chunk.documents.last().map_or(0, |document| document.end) as u64;
        let file = chunk.start.file;
        state.position.place = chunk.start;
        // Only a chunk that may fill a shard is one to resume from.
        let may_close = state.in_shard[TRAIN] + ids >= self.shard_tokens;
        let resume_from = may_close.then(|| state.position.clone());
        let mut spans: Vec<FileSpan> = Vec::new();
        let mut closed = Vec::new();
        let mut start = 0;
        for document in &chunk.documents {
            let side = self.split.side(state.position.document);
            while start < document.end {
                let space = match side {
                    TRAIN => self.shard_tokens - state.in_shard[TRAIN],
                    _ => u64::MAX,
                };
                let end = document.end.min(start.saturating_add(space as usize));
                push_span(&mut spans, state, side, start..end);
                start = end;
                if state.in_shard[TRAIN] == self.shard_tokens {
                    closed.extend(resume_from.clone().map(|resume_from| ClosedShard {
                        shard: state.shard,
                        sizes: state.in_shard,
                        resume_from,
                    }));
                    state.shard += 1;
                    state.in_shard = [0, 0];
                }
            }
            state.position.bytes[side] += document.bytes;
            state.position.documents[side] += u64::from(document.ends_document);
            state.position.document += u64::from(document.ends_document);
        }
        state.position.chunk += 1;
        if state.position.file_bytes.len() <= file {
            state.position.file_bytes.resize(file + 1, 0);
        }
        state.position.file_bytes[file] += chunk.text_bytes;
        state.position.skipped.extend(chunk.skipped);
        let parts_before = state.parts;
        state.parts += chunk.documents.len() as u64;
        let (ids, documents) = (chunk.ids, chunk.documents);
        PlacedChunk { ids, spans, closed, documents, parts_before }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds ids to the open shard; they join the span before if they follow it in the file too.
fn push_span(spans: &mut Vec<FileSpan>, state: &mut State, side: usize, ids: Range<usize>) {
    debug_assert!(side == TRAIN || side == VAL);
    let (shard, offset, len) = (state.shard, state.in_shard[side], ids.len() as u64);
    state.in_shard[side] += len;
    state.position.tokens[side] += len;
    match spans.last_mut() {
        Some(last) if (last.shard, last.side, last.ids.end) == (shard, side, ids.start) => {
            last.ids.end = ids.end;
        }
        _ => spans.push(FileSpan { shard, side, offset, ids }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A job that was killed when all its shards were there encoded the last chunk once more.
    #[test]
    fn after_the_last_chunk_nothing_is_left_to_read() {
        let ledger = Ledger::new(Position::default(), (0, 0), 100, Split::new(0.0, 0), 4);
        for index in 0..3 {
            ledger.submit(
                (0, 9 * index),
                (0, 9 * (index + 1)),
                EncodedChunk {
                    ids: Ids::Memory(vec![0; 14]),
                    documents: vec![DocumentPart { end: 7, bytes: 9, ends_document: true }],
                    start: Place { file: 0, offset: 9 * index, line: 0 },
                    text_bytes: 9,
                    skipped: Vec::new(),
                },
            );
        }
        let last = ledger.finish().unwrap().resume_from;
        assert_eq!((last.chunk, last.tokens, last.file_bytes), (3, [21, 0], vec![27]));
        assert_eq!(last.place, Place::END);
    }
}
