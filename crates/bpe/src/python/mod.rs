//! The only place that knows Python: the module `cs336lm._bpe`. It converts arguments and results
//! and knows when to release the GIL; everything else is the crate's.

mod arguments;
mod errors;
mod options;
mod stream;
mod tokenizer;
mod training;
mod watch;

use pyo3::prelude::*;

// Lists are read by references that are borrowed from them (`arguments.rs`), which needs the GIL.
#[pymodule(gil_used = true)]
mod _bpe {
    #[pymodule_export]
    use super::stream::EncodeStream;
    #[pymodule_export]
    use super::tokenizer::PyTokenizer;
    #[pymodule_export]
    use super::training::{check_savable, count_pretokens, train_counts};
}
