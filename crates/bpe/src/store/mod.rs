//! Flat tables, keys and hashes: what the rooms after this one keep their bytes and ids in.

pub(crate) mod byte_strings;
pub(crate) mod hash;
pub(crate) mod once;
pub(crate) mod pages;
pub(crate) mod pair_table;
pub(crate) mod short_key;
pub(crate) mod token_table;
