//! Bytes -> pretokens: a scanner for each known pattern, the engine for others, special tokens,
//! and where a text may be cut.

mod ascii;
mod classes;
pub mod custom;
pub mod cut;
mod gpt2;
mod gpt4;
mod gpt4o;
pub mod pattern;
pub mod special;
pub mod unspaced;
pub(crate) mod utf8;
pub(crate) mod visitor;
mod window;

#[cfg(test)]
mod tests;
