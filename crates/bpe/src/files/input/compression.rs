//! Compressed inputs: recognized by the ending of a name, and unpacked while they are read.
//!
//! Each kind is a cargo feature, so that a build without it needs no decompressor.

use std::io::{self, BufRead, Read};

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstandard,
}

impl Compression {
    /// The name without the ending of its compression, and that compression.
    pub fn of_name(name: &str) -> (&str, Option<Self>) {
        match (name.strip_suffix(".gz"), name.strip_suffix(".zst")) {
            (Some(stem), _) => (stem, Some(Self::Gzip)),
            (_, Some(stem)) => (stem, Some(Self::Zstandard)),
            _ => (name, None),
        }
    }

    /// The cargo feature that reads it, and whether this build has it.
    pub fn feature(self) -> (&'static str, bool) {
        match self {
            Self::Gzip => ("gzip", cfg!(feature = "gzip")),
            Self::Zstandard => ("zstd", cfg!(feature = "zstd")),
        }
    }

    /// The text inside `raw`.
    ///
    /// # Errors
    /// The decompressor cannot be set up, or this build does not have it.
    pub fn decoder(self, raw: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
        match self {
            Self::Gzip => gzip(raw),
            Self::Zstandard => zstandard(raw),
        }
    }
}

#[cfg(feature = "gzip")]
fn gzip(raw: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    Ok(Box::new(super::gzip::Members::new(raw)))
}

/// Such files were refused when the source was opened; so below.
#[cfg(not(feature = "gzip"))]
fn gzip(_: impl BufRead) -> io::Result<Box<dyn Read + Send>> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(feature = "zstd")]
fn zstandard(raw: impl BufRead + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    Ok(Box::new(Advised(zstd::stream::read::Decoder::with_buffer(raw)?)))
}

/// A decoder that refuses windows of more than 128 MiB, as the program zstd does, and says what to
/// do about them.
#[cfg(feature = "zstd")]
struct Advised<R>(R);

#[cfg(feature = "zstd")]
impl<R: Read> Read for Advised<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.to_string().contains("too much memory") {
            true => io::Error::new(
                error.kind(),
                "was compressed with a long window, which takes more than 128 MiB to unpack; pipe \
                 it: zstd -dc --long=31 FILE | cs336lm ... -",
            ),
            false => error,
        })
    }
}

#[cfg(not(feature = "zstd"))]
fn zstandard(_: impl BufRead) -> io::Result<Box<dyn Read + Send>> {
    Err(io::ErrorKind::Unsupported.into())
}
