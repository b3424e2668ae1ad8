//! Files -> chunks of text, ids -> token files, and files that appear whole or not at all, where
//! nothing of the user's stands.

pub(crate) mod atomic_file;
pub(crate) mod claim;
pub mod input;
pub(crate) mod place;
pub(crate) mod sealed;
pub mod tokens;
pub(crate) mod unfinished;
