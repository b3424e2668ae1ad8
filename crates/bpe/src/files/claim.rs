//! What a job does before any work: makes sure that its outputs are its own.
//!
//! An output must not be an input, nor replace what this crate did not write; and two jobs must not
//! write the same files at once. For that each holds a lock on an empty file beside its outputs,
//! `.tokens.lock`, which it removes at its end. The lock belongs to an open file and so dies with
//! its process: what a killed job leaves locks nobody out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::atomic_file::replaceable;
use super::input::STDIN;
use super::place::{Identity, is_called};
use crate::error::{Error, Result};

/// The inputs of a job, recognized by whatever name.
pub struct Inputs(Vec<(Identity, PathBuf)>);

impl Inputs {
    /// One that is not there is left out; whoever reads it will say so.
    pub fn of(paths: &[PathBuf]) -> Self {
        let identity = |path: &Path| match path == Path::new(STDIN) {
            true => Identity::of_stdin(),
            false => Identity::of(path),
        };
        Self(paths.iter().filter_map(|path| Some((identity(path)?, path.clone()))).collect())
    }

    /// Checks that writing `output` loses nothing: it is not there, it is empty, or `is_ours` says
    /// that a job like this one wrote it. `writer` is what such a job is called.
    ///
    /// # Errors
    /// It is one of the inputs, a directory, a device or a pipe, or was written by someone else.
    pub fn check_output(
        &self,
        output: &Path,
        writer: &str,
        is_ours: impl FnOnce(&Path) -> bool,
    ) -> Result<()> {
        let refuse = |why: String| Err(Error::invalid(format!("{}: {why}", output.display())));
        let Some(there) = replaceable(output)? else { return Ok(()) };
        let identity = Identity::of(output);
        if let Some((_, input)) = self.0.iter().find(|(input, _)| Some(input) == identity.as_ref())
        {
            let input = match input == Path::new(STDIN) {
                true => "standard input".to_owned(),
                false => input.display().to_string(),
            };
            return refuse(format!(
                "would be written over, but is an input ({input}); give the output another name"
            ));
        }
        if there.len() == 0 || is_ours(output) {
            return Ok(());
        }
        refuse(format!(
            "would be written over, but was not written by {writer}; give the output another name, \
             or move that file away"
        ))
    }
}

/// A lock that one job at a time can hold, for as long as its process lives.
pub struct Claim {
    path: PathBuf,
    /// Dropped after the file was removed, so that nobody locks what is about to disappear.
    _file: File,
}

impl Claim {
    /// Locks the outputs that are called `name` in `folder`, the file or directory `output` among
    /// them. `None` where the file system has no locks.
    ///
    /// # Errors
    /// Another job holds the lock, or the folder cannot be written to.
    pub fn take(folder: &Path, name: &std::ffi::OsStr, output: &Path) -> Result<Option<Self>> {
        let mut lock = std::ffi::OsString::from(".");
        lock.push(name);
        lock.push(".lock");
        let path = folder.join(lock);
        loop {
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
            let file = file.map_err(|error| Error::io(output, error))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let output = output.display();
                    return Err(Error::invalid(format!(
                        "{output}: another job is writing it; wait for its end, or give another \
                         output"
                    )));
                }
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {
                    continue;
                }
                Err(TryLockError::Error(_)) => return Ok(None),
            }
            // Whoever held it before may have removed the file since it was opened here.
            if is_called(&file, &path).map_err(|error| Error::io(&path, error))? {
                return Ok(Some(Self { path, _file: file }));
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Left behind it is empty and locks nobody out.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_job_at_a_time_holds_a_claim() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("tokens.npy");
        let take = || Claim::take(folder.path(), "tokens".as_ref(), &out);
        let held = take().unwrap();
        assert!(held.is_some());
        let refused = take().err().unwrap().to_string();
        assert!(refused.contains("tokens.npy: another job is writing it"), "{refused}");
        drop(held);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        // A file that a killed job left is no lock.
        fs::write(folder.path().join(".tokens.lock"), "").unwrap();
        assert!(take().unwrap().is_some());
    }
}
