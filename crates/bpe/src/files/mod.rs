//! Files -> chunks of text, ids -> token files, and files that appear whole or not at all.

pub(crate) mod atomic_file;
pub mod input;
pub mod tokens;
