//! Flat tables, keys and hashes: what the rooms after this one keep their bytes and ids in.

pub mod byte_strings;
pub mod hash;
pub(crate) mod pages;
pub mod pair_table;
pub mod token_table;
