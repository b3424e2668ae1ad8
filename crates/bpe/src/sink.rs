//! Files -> tokens.npy.
