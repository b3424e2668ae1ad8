//! Text -> ids: special tokens, pretokenize, cache, merge.
