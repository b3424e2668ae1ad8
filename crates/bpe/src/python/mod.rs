//! The only place that knows Python: the module `cs336lm._bpe`. It converts arguments and results
//! and knows when to release the GIL; everything else is the crate's.

mod arguments;
mod claim;
mod errors;
mod forks;
mod id_objects;
mod options;
mod stream;
mod tokenizer;
mod training;
mod watch;

use pyo3::prelude::*;

/// A panic that becomes an error prints nothing. The hook is that of this library alone: Python and
/// its other extensions have none, or their own.
fn quiet_guarded_panics() {
    #[cfg(feature = "parquet")]
    {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !crate::files::input::is_guarded() {
                report(panic);
            }
        }));
    }
}

// Lists are read by references that are borrowed from them (`arguments.rs`), which needs the GIL.
#[pymodule(gil_used = true)]
mod _bpe {
    use pyo3::prelude::*;

    #[pymodule_export]
    use super::claim::FolderClaim;
    #[pymodule_export]
    use super::stream::EncodeStream;
    #[pymodule_export]
    use super::tokenizer::{PyTokenizer, verify_checksums};
    #[pymodule_export]
    use super::training::{
        add_counts, check_counts_output, check_savable, count_pretokens, holds_json_lines,
        known_patterns, text_cuts, train_counts,
    };

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::quiet_guarded_panics();
        super::forks::register(module)
    }
}
