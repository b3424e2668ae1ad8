//! Who is told where the pretokens of a text are: the scanners call, counting and encoding listen.

/// What is done with the pretokens of a text as they are found.
pub trait Visitor {
    /// The next pretoken is `text[start..end]`.
    fn pretoken(&mut self, start: usize, end: usize);

    /// The next pretoken starts at `start`, in text with little ASCII. A visitor may deal with
    /// what comes there by itself and say where it stopped; pretokens are told again from there
    /// on. [`super::unspaced`] tells where it may stop.
    fn pass(&mut self, start: usize) -> usize {
        start
    }
}
