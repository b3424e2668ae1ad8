//! Read and write tokenizer files.
