//! Files of text, and errors that begin with the path of the file they are about.

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};

/// A whole file, which must be UTF-8.
///
/// # Errors
/// It cannot be read, or says which byte is not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let path = path.display();
        Error::invalid(format!("{path}: is not a text file: byte {place} is not valid UTF-8"))
    })
}

/// The error with the path of the file that it is about.
pub fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Invalid(message) => Error::invalid(format!("{}: {message}", path.display())),
        other => other,
    }
}
