//! Ids <-> bytes, merge ranks.
