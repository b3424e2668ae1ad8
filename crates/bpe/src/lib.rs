//! Byte-level BPE: text in, a tokenizer out; text in, token ids out.
//!
//! ```text
//!  files --input--> chunks --special, pattern--> pretokens
//!                                                       |
//!                     train                             |               encode
//!        count: how often each occurs <-----------------+---------> encoder: cache, merge
//!        train: counts -> merges                                       |            |
//!        vocab: ids <-> bytes, ranks ----- formats: files on disk      stream       sink
//!                                                                  (piece by piece) (tokens.npy)
//! ```
//!
//! Everything is a function of bytes. Text that is no valid UTF-8 is text too: an invalid byte
//! counts as a character that is no letter, number or space. The crate is complete without
//! Python; the feature `python` adds the module that the package `cs336lm` imports.

pub mod encode;
pub mod error;
pub mod files;
pub mod formats;
pub mod progress;
pub mod store;
pub mod text;
pub mod train;
pub mod vocab;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, Result};
