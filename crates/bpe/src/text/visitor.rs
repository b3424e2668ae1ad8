//! What a scanner calls for each pretoken: counting and encoding implement it.

/// Receives the pretokens of a text as they are found.
pub trait Visitor {
    /// The next pretoken is `text[start..end]`.
    fn pretoken(&mut self, start: usize, end: usize);

    /// The next pretoken starts at `start`, in text with little ASCII. A visitor may take what
    /// comes there without knowing its pretokens, and returns where it stopped; scanning goes on
    /// from there. [`super::unspaced`] says where it may stop.
    fn consume(&mut self, start: usize) -> usize {
        start
    }
}
