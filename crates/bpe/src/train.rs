//! Counts -> merges.
