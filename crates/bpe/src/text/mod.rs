//! Bytes -> pretokens: a scanner for each known pattern, the engine for others, special tokens,
//! and where a text may be cut.

mod ascii;
mod block;
mod classes;
pub(crate) mod custom;
pub(crate) mod cut;
mod gpt2;
mod gpt4;
mod gpt4o;
pub(crate) mod known;
pub(crate) mod pattern;
pub(crate) mod special;
pub(crate) mod unspaced;
pub(crate) mod utf8;
pub(crate) mod visitor;
mod window;

#[cfg(test)]
pub(crate) mod cut_tests;
#[cfg(test)]
mod tests;
