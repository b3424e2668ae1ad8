//! One pretoken's bytes -> its ids.
