//! Byte-level BPE: text in, a tokenizer out; text in, token ids out.
//!
//! ```text
//!  files --source--> chunks --special, pretokenize--> pretokens
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

pub mod atomic_file;
pub mod byte_strings;
pub mod cache;
mod char_table;
pub mod count;
pub mod cut_table;
pub mod encoder;
pub mod error;
pub mod formats;
pub mod hash;
pub mod long_cache;
pub mod merge;
mod merge_long;
pub mod npy;
mod pages;
pub mod pair_table;
pub mod pretokenize;
pub mod progress;
pub mod sink;
pub mod source;
pub mod special;
pub mod stream;
pub mod token_table;
pub mod train;
pub mod vocab;
mod words;

#[cfg(feature = "python")]
mod python;

pub use error::{Error, Result};
