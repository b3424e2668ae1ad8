//! Tables: files of rows, of which one column of strings holds the documents.

use std::sync::Arc;

/// An opened table. Its parts can be read at the same time.
pub trait Table: Send + Sync {
    /// The row after the last of each part, in order; the last is how many rows there are.
    fn ends(&self) -> &[u64];

    /// The rows from `row` on, to the end of the part that it is in.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    fn rows_from(self: Arc<Self>, row: u64) -> Result<Box<dyn Rows>, String>;
}

/// Rows, in order.
pub trait Rows: Send {
    /// Appends the texts of some more rows to `text`, and where each ends to `ends`; `false` at
    /// the end. A null is not a document: it is skipped.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    fn read(&mut self, text: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<bool, String>;

    /// The number of the next row, nulls included.
    fn next_row(&self) -> u64;
}

/// About how many bytes of a file of `len` bytes are before `row`.
pub fn bytes_before(table: &dyn Table, row: u64, len: u64) -> u64 {
    let total = table.ends().last().copied().unwrap_or(0);
    let bytes = u128::from(len) * u128::from(row.min(total)) / u128::from(total.max(1));
    if row >= total { len } else { bytes as u64 }
}
