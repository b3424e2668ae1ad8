"""Text in: which files are meant, the tokenizer, and the built-in corpus of stories."""
