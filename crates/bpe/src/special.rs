//! Special tokens: find them, longest first.
