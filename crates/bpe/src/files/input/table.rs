//! Tables: files of rows, of which one column of strings holds the documents.

/// The rows of a file, in order.
pub trait Table: Send {
    /// Appends the texts of some more rows to `text`, and where each ends to `ends`; `false` at
    /// the end. A null is not a document: it is skipped.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    fn read(&mut self, text: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<bool, String>;

    /// Skips so many rows.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    fn skip(&mut self, rows: u64) -> Result<(), String>;

    /// How many rows were read or skipped so far, nulls included.
    fn rows_read(&self) -> u64;

    /// About how many bytes of a file of `len` bytes were read so far.
    fn bytes_read(&self, len: u64) -> u64;
}
