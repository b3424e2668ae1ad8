//! Sorted runs: strings in ascending order with their counts, in a file. What does not fit into
//! memory becomes several runs; merging them sums the counts exactly.
//!
//! An entry is the string's length, the string and its count; numbers are LEB128.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io::{self, Read, Write};

use crate::error::Error;
use crate::progress::Progress;

/// Writes one string and its count.
pub fn write_entry(out: &mut impl Write, string: &[u8], count: u64) -> io::Result<()> {
    write_number(out, string.len() as u64)?;
    out.write_all(string)?;
    write_number(out, count)
}

fn write_number(out: &mut impl Write, mut number: u64) -> io::Result<()> {
    while number >= 0x80 {
        out.write_all(&[number as u8 | 0x80])?;
        number >>= 7;
    }
    out.write_all(&[number as u8])
}

fn read_number(from: &mut impl Read) -> io::Result<u64> {
    let (mut number, mut shift) = (0, 0);
    loop {
        let mut byte = [0];
        from.read_exact(&mut byte)?;
        if shift == 63 && byte[0] > 1 {
            return Err(corrupt("a number is too large"));
        }
        number |= u64::from(byte[0] & 0x7f) << shift;
        if byte[0] < 0x80 {
            return Ok(number);
        }
        shift += 7;
        if shift > 63 {
            return Err(corrupt("a number is too long"));
        }
    }
}

/// The error for contents that no run has.
pub fn corrupt(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("corrupt: {why}"))
}

/// Reads the entries of a run one after the other.
pub struct EntryReader<R> {
    pub from: R,
    remaining: u64,
    string: Vec<u8>,
}

impl<R: Read> EntryReader<R> {
    /// Reads `entries` entries and not a byte more.
    pub fn new(from: R, entries: u64) -> Self {
        Self { from, remaining: entries, string: Vec::new() }
    }

    fn next(&mut self) -> io::Result<Option<(Vec<u8>, u64)>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        self.remaining -= 1;
        let len = read_number(&mut self.from)?;
        let mut string = Vec::new();
        // Takes no more memory than there are bytes, whatever the length says.
        (&mut self.from).take(len).read_to_end(&mut string)?;
        if string.len() as u64 != len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if string <= self.string {
            return Err(corrupt("entries are not in order"));
        }
        self.string.clone_from(&string);
        let count = read_number(&mut self.from)?;
        Ok(Some((string, count)))
    }
}

/// How many strings are visited between two looks at whether to stop.
pub const CHECK_EVERY: u64 = 1 << 14;

/// Calls `visit` with each string of all runs, in ascending order, and the sum of its counts, until
/// it fails or `progress` says stop.
///
/// # Errors
/// Those of `visit`, [`Error::Cancelled`], and an error of reading with the index of its run.
pub fn merge<R: Read, E: From<(usize, io::Error)> + From<Error>>(
    runs: &mut [EntryReader<R>],
    progress: &Progress,
    mut visit: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), E> {
    let mut heads = BinaryHeap::new();
    for (index, run) in runs.iter_mut().enumerate() {
        if let Some((string, count)) = run.next().map_err(|error| (index, error))? {
            heads.push(Reverse((string, index, count)));
        }
    }
    let mut current: Option<(Vec<u8>, u64)> = None;
    let mut seen = 0u64;
    while let Some(mut head) = heads.peek_mut() {
        seen += 1;
        if seen.is_multiple_of(CHECK_EVERY) {
            progress.check()?;
        }
        let index = head.0.1;
        let (string, count) = match runs[index].next().map_err(|error| (index, error))? {
            Some((string, count)) => {
                let Reverse((string, _, count)) =
                    std::mem::replace(&mut *head, Reverse((string, index, count)));
                (string, count)
            }
            None => {
                let Reverse((string, _, count)) = PeekMut::pop(head);
                (string, count)
            }
        };
        match &mut current {
            Some((same, sum)) if *same == string => {
                *sum = sum
                    .checked_add(count)
                    .ok_or_else(|| (index, corrupt("a count is too large")))?;
            }
            _ => {
                if let Some((string, sum)) = current.replace((string, count)) {
                    visit(&string, sum)?;
                }
            }
        }
    }
    match current {
        Some((string, sum)) => visit(&string, sum),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct AnyError;

    impl From<Error> for AnyError {
        fn from(_: Error) -> Self {
            AnyError
        }
    }

    impl From<(usize, io::Error)> for AnyError {
        fn from(_: (usize, io::Error)) -> Self {
            AnyError
        }
    }

    fn run_of(entries: &BTreeMap<Vec<u8>, u64>) -> Vec<u8> {
        let mut run = Vec::new();
        for (string, count) in entries {
            write_entry(&mut run, string, *count).expect("memory");
        }
        run
    }

    proptest! {
        #[test]
        fn merging_sums(
            runs in prop::collection::vec(
                prop::collection::btree_map(
                    prop::collection::vec(0u8..3, 1..5), 0u64..u64::MAX / 8, 0..30,
                ),
                0..6,
            ),
        ) {
            let mut expected: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
            for (string, count) in runs.iter().flatten() {
                *expected.entry(string.clone()).or_default() += count;
            }
            let files: Vec<_> = runs.iter().map(run_of).collect();
            let mut readers: Vec<_> = files
                .iter()
                .zip(&runs)
                .map(|(file, run)| EntryReader::new(&file[..], run.len() as u64))
                .collect();
            let mut found = Vec::new();
            let merged = merge::<_, AnyError>(&mut readers, &Progress::new(), |string, count| {
                found.push((string.to_vec(), count));
                Ok(())
            });
            prop_assert!(merged.is_ok());
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut reader = [EntryReader::new(&bytes[..], 20)];
            let merged = merge::<_, AnyError>(&mut reader, &Progress::new(), |_, _| Ok(()));
            prop_assert!(merged.is_err() || bytes.len() >= 20);
        }
    }
}
