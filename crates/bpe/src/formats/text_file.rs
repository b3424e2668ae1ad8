//! Files of text, and errors that begin with the path of the file they are about.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Result};
use crate::progress::Progress;

/// What some editors put at the start of a file of UTF-8; it is no part of the text.
pub const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// How much is read before the caller may stop it again.
const STEP: u64 = 1 << 22;

/// A whole file, which must be UTF-8, without a byte-order mark.
///
/// # Errors
/// It cannot be read, or is in UTF-16, or says which byte is not UTF-8.
pub fn read_text(path: &Path, progress: &Progress) -> Result<String> {
    let failed = |error| Error::io(path, error);
    let mut file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_or(0, |metadata| metadata.len());
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).min(1 << 28) + 1);
    while file.by_ref().take(STEP).read_to_end(&mut bytes).map_err(failed)? > 0 {
        progress.check()?;
    }
    if is_utf16(&bytes) {
        let path = path.display();
        return Err(Error::invalid(format!("{path}: is in UTF-16: save it as UTF-8")));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let path = path.display();
        Error::invalid(format!("{path}: is not a text file: byte {place} is not valid UTF-8"))
    })
}

/// Whether it begins with a byte-order mark of UTF-16.
pub fn is_utf16(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF")
}

/// The error with the path of the file that it is about.
pub fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Invalid(message) => Error::invalid(format!("{}: {message}", path.display())),
        other => other,
    }
}
