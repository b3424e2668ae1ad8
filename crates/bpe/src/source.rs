//! Files -> chunks that may be processed apart without changing any result.
