//! Text -> ids: the tokenizer, the loop over pretokens with its caches and tables, streams.

mod bpe;
mod char_table;
mod cut_table;
pub(crate) mod encoder;
mod id_buffer;
mod long_cache;
pub(crate) mod output;
mod short_cache;
pub(crate) mod stream;
pub(crate) mod words;
