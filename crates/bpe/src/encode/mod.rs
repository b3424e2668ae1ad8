//! Text -> ids: the tokenizer, the loop over pretokens with its caches and tables, streams.

mod char_table;
pub mod cut_table;
pub mod encoder;
pub mod long_cache;
pub mod output;
pub mod short_cache;
pub mod stream;
pub(crate) mod words;
