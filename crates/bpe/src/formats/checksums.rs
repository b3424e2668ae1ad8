//! `checksums.json`: what a tokenizer's files were when they were written, so that damage to them
//! is noticed.
//!
//! It is written last, beside them: the size and the SHA-256 of each. A flipped bit keeps a file's
//! size; of JSON a cut leaves nothing that is JSON, and a `merges.txt` that was cut has lost its
//! last line, which stands there as well. (The last newline alone changes nothing.) Any other file
//! of another size was written again, by Hugging Face's library perhaps, and is read as it is. So
//! is a folder without `checksums.json`.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::folder::FILES;
use super::text_file::{BYTE_ORDER_MARK, is_utf16};
use crate::error::{Error, Result};
use crate::files::atomic_file::write_atomically;
use crate::files::sealed::{Seal, hex, seal, sealed};
use crate::progress::Progress;

/// The file's name.
pub const NAME: &str = "checksums.json";

const LAST_MERGE: &str = "last merge";

/// In bytes. A longer one is not ours.
const MOST_BYTES: u64 = 4096;

/// So much is read before the caller may stop it.
const STEP: usize = 1 << 16;

/// Refuses a `checksums.json` in `folder` that this crate did not write, before it is replaced.
///
/// # Errors
/// It is one, or it cannot be read.
pub fn check(folder: &Path) -> Result<()> {
    read(&folder.join(NAME)).map(|_| ()).map_err(|reason| {
        Error::invalid(format!(
            "{} would be written over, but cs336lm did not write what is in it ({reason}): name \
             another folder, or remove that file",
            folder.join(NAME).display()
        ))
    })
}

/// Removes the checksums in `folder`, before its files change.
///
/// # Errors
/// As [`check`]; or they cannot be removed.
pub fn forget(folder: &Path) -> Result<()> {
    check(folder)?;
    let path = folder.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(&path, error)),
        _ => Ok(()),
    }
}

/// Writes the checksums of the tokenizer in `folder`.
///
/// # Errors
/// A file cannot be read, or this one not be written.
pub fn remember(folder: &Path, progress: &Progress) -> Result<()> {
    let mut about = json!({});
    for name in FILES {
        let (bytes, sha256) = digest(&folder.join(name), progress)?;
        about[name] = json!({"bytes": bytes, "sha256": sha256});
    }
    about[LAST_MERGE] = last_line(&folder.join("merges.txt"))?.into();
    write_atomically(&folder.join(NAME), |out| out.write_all(&sealed(&about)?))
}

/// The files of a tokenizer that were written again since it was saved; `None`: nothing is known.
/// `path` is its folder, or one of the files in it.
///
/// # Errors
/// Names the file that is damaged, or that cannot be read; [`Error::Cancelled`].
pub fn verify(path: &Path, progress: &Progress) -> Result<Option<Vec<&'static str>>> {
    const WAY_OUT: &str =
        "save the tokenizer again, or delete checksums.json if it was changed on purpose";
    let is_one_of_them = |name| FILES.contains(&name);
    let folder = if path.is_dir() {
        path
    } else if path.file_name().and_then(|name| name.to_str()).is_some_and(is_one_of_them) {
        path.parent().unwrap_or(Path::new(""))
    } else {
        return Ok(None);
    };
    let sums = folder.join(NAME);
    let known = read(&sums).map_err(|error| match error {
        Error::Invalid(reason) => {
            Error::invalid(format!("{} is damaged ({reason}): {WAY_OUT}", sums.display()))
        }
        other => other,
    })?;
    let Some(known) = known else { return Ok(None) };
    let mut changed = Vec::new();
    for name in FILES {
        let file = folder.join(name);
        if !file.exists() {
            continue;
        }
        let (now, sha256) = digest(&file, progress)?;
        if known[name]["sha256"] == sha256.as_str() {
            continue;
        }
        let size = known[name]["bytes"].as_u64().unwrap_or(0);
        if now == size || now < size && is_cut(&file, name, &known)? {
            return Err(Error::invalid(format!(
                "{} is damaged: its checksum is not the one in {NAME} beside it; {WAY_OUT}",
                file.display()
            )));
        }
        changed.push(name);
    }
    Ok(Some(changed))
}

fn is_cut(file: &Path, name: &str, known: &Value) -> Result<bool> {
    if name == "merges.txt" {
        return Ok(known[LAST_MERGE] != last_line(file)?.as_str());
    }
    let content = fs::read(file).map_err(|error| Error::io(file, error))?;
    if is_utf16(&content) {
        return Ok(false); // no cut makes it so: whoever reads it says what is wrong
    }
    let json = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&content);
    Ok(serde_json::from_slice::<IgnoredAny>(json).is_err())
}

/// What is known of each file; `None` if there are no checksums.
///
/// # Errors
/// The file cannot be read; the reason alone if it is not ours.
fn read(path: &Path) -> Result<Option<Value>> {
    let mut content = Vec::new();
    match File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut content)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        result => result.map_err(|error| Error::io(path, error))?,
    };
    let known = match content.len() as u64 {
        ..=MOST_BYTES => serde_json::from_slice::<Value>(&content),
        _ => return Err(Error::invalid(format!("it is longer than {MOST_BYTES} bytes"))),
    };
    let known = known.map_err(|error| Error::invalid(error.to_string()))?;
    match seal(&content) {
        Seal::Whole => {}
        Seal::Broken => return Err(Error::invalid("its checksum does not match")),
        Seal::Missing => return Err(Error::invalid("it does not end in a checksum of itself")),
    }
    let is_about = |name: &str| known[name]["bytes"].is_u64() && known[name]["sha256"].is_string();
    if FILES.iter().all(|name| is_about(name)) && known[LAST_MERGE].is_string() {
        Ok(Some(known))
    } else {
        Err(Error::invalid("it is not about a tokenizer's files"))
    }
}

/// A file's size and its SHA-256.
fn digest(path: &Path, progress: &Progress) -> Result<(u64, String)> {
    let mut hash = Sha256::new();
    let mut block = vec![0; STEP];
    let mut size = 0;
    let mut file = File::open(path).map_err(|error| Error::io(path, error))?;
    loop {
        progress.check()?;
        match file.read(&mut block) {
            Ok(0) => return Ok((size, hex(&hash.finalize()))),
            Ok(len) => {
                hash.update(&block[..len]);
                size += len as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path, error)),
        }
    }
}

fn last_line(path: &Path) -> Result<String> {
    let content = fs::read(path).map_err(|error| Error::io(path, error))?;
    let text = String::from_utf8_lossy(&content);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.rsplit('\n').next().unwrap_or_default().to_owned())
}
