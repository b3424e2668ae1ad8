//! Nothing: the package is its benchmarks, `cargo bench --package benches`.
