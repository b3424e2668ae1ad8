//! Byte-level BPE: text in, a tokenizer out; text in, token ids out.
//!
//! Merges are learned as Sennrich, Haddow and Birch describe it (*Neural Machine Translation of
//! Rare Words with Subword Units*, 2016), on bytes, as GPT-2 does: the most frequent pair of
//! neighbours becomes a token, again and again; ids follow by applying the merges in that order.
//! Everything is exact: the result is the same for any number of threads, any chunk size, and
//! whether a text comes whole, in pieces or in files.
//!
//! ```text
//!            files::input           text: special tokens, pattern
//!     files ──────────────► chunks ───────────────────────────────► pretokens
//!                                                                       │
//!               ┌───────────────────────────────────────────────────────┤
//!               ▼                                                       ▼
//!     train: count, merge ──► Vocab ──► Tokenizer ──────► encode: cut, look up, merge
//!                               ▲           │                           │
//!     tokenizer.json, ... ◄─────┘           │                           ▼
//!                       formats             └─ decode: ids ──► bytes   ids ──► tokens.npy
//!                                                                  files::tokens
//! ```
//!
//! # Example
//!
//! Train on a file, encode, decode:
//!
//! ```
//! use bpe::train::{TrainOptions, train};
//! use bpe::{Pattern, Progress, SpecialTokens, Tokenizer};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let corpus = folder.path().join("corpus.txt");
//! std::fs::write(&corpus, "low low low lower newest newest widest<|endoftext|>")?;
//!
//! let special = SpecialTokens::new(&["<|endoftext|>"])?;
//! let (options, progress) = (TrainOptions::new(2), Progress::new());
//! let trained = train(&[corpus], 256 + 5 + 1, &special, &Pattern::Gpt2, &options, &progress)?;
//!
//! // Bytes, five merges (ow, low, st, est, " low"), one special token.
//! let vocab = trained.vocab()?;
//! assert_eq!(vocab.token(260), Some(b" low".as_slice()));
//! let tokenizer = Tokenizer::new(vocab, special.tokens(), Pattern::Gpt2)?;
//! let mut ids = Vec::new();
//! tokenizer.encode(b"low lowest<|endoftext|>", &mut ids)?;
//! assert_eq!(ids, [257, 260, 259, 261]);
//!
//! let mut bytes = Vec::new();
//! tokenizer.decode(&ids, &mut bytes)?;
//! assert_eq!(bytes, b"low lowest<|endoftext|>");
//! # Ok(())
//! # }
//! ```
//!
//! # Where things are
//!
//! * [`Tokenizer`] turns text into ids and back, [`StreamEncoder`] does so with text that comes in
//!   pieces, [`files::tokens`] with whole files. What a tokenizer is made of: a [`Vocab`],
//!   [special tokens](SpecialTokens) and a [`Pattern`].
//! * [`train`] makes a vocabulary from files, [`formats`] reads and writes it.
//! * [`Progress`] is how another thread watches a long job and stops it.
//!
//! Text is bytes. What is not valid UTF-8 is text too: an invalid byte counts as a character that
//! is not a letter, number or space, and comes back from decoding as it was.
//!
//! Inside, data flows one way through the rooms in the order in which they are listed below: a room
//! uses those above it and never one below. The crate is complete without Python; the feature
//! `python` adds the module that the package `cs336lm` imports.

#![warn(missing_docs)]

mod error;
mod progress;
mod store;
mod text;
mod vocab;
mod workers;

mod encode;

pub mod files;

pub mod train;

pub mod formats;

#[cfg(feature = "python")]
mod python;

pub use encode::encoder::Tokenizer;
pub use encode::stream::StreamEncoder;
pub use error::{Error, Result};
pub use progress::{Phase, Progress};
pub use store::byte_strings::ByteStrings;
pub use text::custom::CustomPattern;
pub use text::pattern::Pattern;
pub use text::special::SpecialTokens;
pub use vocab::{MAX_TOKEN_ID, MergeRule, TokenId, Vocab};
