//! Where each chunk's ids belong. Chunks are encoded out of order; here their counts are added up
//! in order, under a lock, and nothing else happens under it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::split::{Segment, Split, TRAIN, VAL};
use crate::error::{Error, Result};
use crate::files::input::Place;

/// One chunk's result.
pub struct Entry {
    /// The ids, as they are stored.
    pub bytes: Vec<u8>,
    pub segments: Vec<Segment>,
    /// Where the chunk begins, and how much text it holds.
    pub start: Place,
    pub text_bytes: u64,
    /// What was left out of it, in words.
    pub skipped: Vec<String>,
}

/// A stretch of an entry's ids that lies in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub shard: usize,
    pub side: usize,
    /// Ids before it in its file.
    pub offset: u64,
    /// Which of the entry's ids.
    pub ids: Range<usize>,
}

/// A shard that gets no more ids: how many it has on each side, and the first chunk after which
/// it could have been closed, to resume from.
pub struct Closed {
    pub shard: usize,
    pub sizes: [u64; 2],
    pub resume_from: Position,
}

/// All that is known between two chunks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of chunks before, and where they end.
    pub chunk: u64,
    pub place: Place,
    /// The number of documents that ended before.
    pub document: u64,
    /// For train and validation: tokens, bytes of text, documents.
    pub tokens: [u64; 2],
    pub bytes: [u64; 2],
    pub documents: [u64; 2],
    /// Bytes of text of each input.
    pub file_bytes: Vec<u64>,
    pub skipped: Vec<String>,
}

/// What [`Ledger::submit`] says to write.
pub struct Assigned {
    pub bytes: Vec<u8>,
    pub pieces: Vec<Piece>,
    pub closed: Vec<Closed>,
}

pub struct Ledger {
    state: Mutex<State>,
    room: Condvar,
    /// How many results may wait for one before them.
    max_waiting: usize,
    shard_tokens: u64,
    split: Split,
}

struct State {
    position: Position,
    shard: usize,
    /// Ids of the open shard, by side.
    in_shard: [u64; 2],
    /// Handed in before their turn.
    waiting: BTreeMap<u64, Entry>,
    /// Buffers to be filled again.
    free: Vec<Vec<u8>>,
    error: Option<Error>,
}

impl Ledger {
    /// Begins at `position`, with the shard that this is in.
    pub fn new(position: Position, shard_tokens: u64, split: Split, max_waiting: usize) -> Self {
        let state = State {
            shard: (position.tokens[TRAIN] / shard_tokens) as usize,
            in_shard: [position.tokens[TRAIN] % shard_tokens, 0],
            position,
            waiting: BTreeMap::new(),
            free: Vec::new(),
            error: None,
        };
        let (state, room) = (Mutex::new(state), Condvar::new());
        Self { state, room, max_waiting, shard_tokens, split }
    }

    /// A buffer for the next result, as soon as not too many wait; `None` if the job has failed.
    /// The thread whose chunk the others wait for is past this point, so someone always goes on.
    pub fn wait_for_room(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        while state.error.is_none() && state.waiting.len() >= self.max_waiting {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.error.is_some() {
            return None;
        }
        Some(state.free.pop().unwrap_or_default())
    }

    /// Hands in a chunk's result; returns what may be written now.
    pub fn submit(&self, index: u64, entry: Entry) -> Vec<Assigned> {
        let mut state = self.lock();
        state.waiting.insert(index, entry);
        let mut ready = Vec::new();
        while let Some(entry) = {
            let next = state.position.chunk;
            state.waiting.remove(&next)
        } {
            ready.push(self.assign(&mut state, entry));
        }
        if !ready.is_empty() {
            self.room.notify_all();
        }
        ready
    }

    pub fn give_back(&self, bytes: Vec<u8>) {
        self.lock().free.push(bytes);
    }

    pub fn fail(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.room.notify_all();
    }

    /// When all threads are done: the totals, and the shard that is still open.
    pub fn finish(&self) -> Result<Closed> {
        let mut state = self.lock();
        match state.error.take() {
            Some(error) => Err(error),
            None => Ok(Closed {
                shard: state.shard,
                sizes: state.in_shard,
                resume_from: state.position.clone(),
            }),
        }
    }

    fn assign(&self, state: &mut State, entry: Entry) -> Assigned {
        let ids = entry.segments.last().map_or(0, |segment| segment.end) as u64;
        let file = entry.start.file;
        state.position.place = entry.start;
        // Only a chunk that may fill a shard is one to resume from.
        let may_close = state.in_shard[TRAIN] + ids >= self.shard_tokens;
        let resume_from = may_close.then(|| state.position.clone());
        let mut pieces: Vec<Piece> = Vec::new();
        let mut closed = Vec::new();
        let mut start = 0;
        for segment in &entry.segments {
            let side = self.split.side(state.position.document);
            while start < segment.end {
                let room = match side {
                    TRAIN => self.shard_tokens - state.in_shard[TRAIN],
                    _ => u64::MAX,
                };
                let end = segment.end.min(start.saturating_add(room as usize));
                push_piece(&mut pieces, state, side, start..end);
                start = end;
                if state.in_shard[TRAIN] == self.shard_tokens {
                    closed.extend(resume_from.clone().map(|resume_from| Closed {
                        shard: state.shard,
                        sizes: state.in_shard,
                        resume_from,
                    }));
                    state.shard += 1;
                    state.in_shard = [0, 0];
                }
            }
            state.position.bytes[side] += segment.bytes;
            state.position.documents[side] += u64::from(segment.ends_document);
            state.position.document += u64::from(segment.ends_document);
        }
        state.position.chunk += 1;
        if state.position.file_bytes.len() <= file {
            state.position.file_bytes.resize(file + 1, 0);
        }
        state.position.file_bytes[file] += entry.text_bytes;
        state.position.skipped.extend(entry.skipped);
        Assigned { bytes: entry.bytes, pieces, closed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds ids to the open shard; they join the piece before if they follow it there too.
fn push_piece(pieces: &mut Vec<Piece>, state: &mut State, side: usize, ids: Range<usize>) {
    debug_assert!(side == TRAIN || side == VAL);
    let (shard, offset, len) = (state.shard, state.in_shard[side], ids.len() as u64);
    state.in_shard[side] += len;
    state.position.tokens[side] += len;
    match pieces.last_mut() {
        Some(last) if (last.shard, last.side, last.ids.end) == (shard, side, ids.start) => {
            last.ids.end = ids.end;
        }
        _ => pieces.push(Piece { shard, side, offset, ids }),
    }
}
