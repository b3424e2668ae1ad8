//! Compressed inputs: told by the ending of a name, and unpacked while they are read.
//!
//! Each kind is a cargo feature, so that a build without it needs no decompressor.

use std::io::{self, BufRead};

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
    pub fn decoder(
        self,
        raw: impl BufRead + Send + 'static,
        buffer_bytes: usize,
    ) -> io::Result<Box<dyn BufRead + Send>> {
        let decoder: Box<dyn io::Read + Send> = match self {
            #[cfg(feature = "gzip")]
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
            #[cfg(feature = "zstd")]
            Self::Zstandard => Box::new(zstd::stream::read::Decoder::with_buffer(raw)?),
            #[cfg(not(all(feature = "gzip", feature = "zstd")))]
            _ => {
                drop(raw);
                return Err(io::ErrorKind::Unsupported.into());
            }
        };
        Ok(Box::new(io::BufReader::with_capacity(buffer_bytes, decoder)))
    }
}
