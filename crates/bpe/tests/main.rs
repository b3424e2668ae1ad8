//! The crate as its users see it. One program, because linking is most of what building one takes.

#![allow(clippy::unwrap_used)] // in a test a panic is the report

mod arrays;
mod encoding;
mod files_and_streams;
mod folder;
mod oracle;
mod parts;
mod records;
mod shards;
