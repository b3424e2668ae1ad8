//! Chunks -> how often each pretoken occurs.
