//! What can go wrong, in one line each: it names the thing, says what is wrong and what to do.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A result whose error is an [`Error`](enum@Error) unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Shown, it is one line for the person who made it.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read or written.
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The caller asked for something impossible, or a file holds something it should not.
    Invalid(String),
    /// The caller asked to stop ([`Progress::cancel`](crate::Progress::cancel)).
    Cancelled,
}

impl Error {
    /// The failure to read or write `path`.
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        Error::Io { path, source }
    }

    /// The refusal that `message` explains.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Invalid(message) => f.write_str(message),
            Error::Cancelled => f.write_str("stopped on request"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
