//! Where a name leads: links followed, and what tells whether two names are one file.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// As many links as Linux follows.
const MAX_LINKS: usize = 40;

/// Where a file of this name is or would be: symbolic links are followed, also one that leads to
/// nothing yet.
///
/// # Errors
/// The links go round in a circle.
pub fn follow_links(path: &Path) -> Result<PathBuf> {
    let mut place = path.to_path_buf();
    for _ in 0..MAX_LINKS {
        match fs::read_link(&place) {
            // A relative link counts from its own folder; an absolute one replaces all of it.
            Ok(target) => place = folder(&place).join(target),
            Err(_) => return Ok(place),
        }
    }
    Err(Error::invalid(format!("{}: is a link that leads to itself", path.display())))
}

/// The folder that `path` names a file in.
pub fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Whether an open file is the one that `path` leads to, and was not removed since.
///
/// # Errors
/// One of them cannot be looked at.
pub fn is_called(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(there) => Ok(Identity::new(path, &there) == Identity::of_open(file, path)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a file is, whatever it is called: two names of one file have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity(Inner);

#[cfg(unix)]
type Inner = (u64, u64);
#[cfg(not(unix))]
type Inner = PathBuf;

impl Identity {
    /// Of the file that `path` leads to; `None` if there is none.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().and_then(|metadata| Self::new(path, &metadata))
    }

    /// Of an open file, which is called `path`.
    pub fn of_open(file: &File, path: &Path) -> io::Result<Option<Self>> {
        Ok(Self::new(path, &file.metadata()?))
    }

    /// Of what standard input reads.
    #[cfg(unix)]
    pub fn of_stdin() -> Option<Self> {
        use std::os::fd::AsFd;
        let stdin = io::stdin().as_fd().try_clone_to_owned().ok()?;
        Self::of_open(&File::from(stdin), Path::new("")).ok()?
    }

    #[cfg(not(unix))]
    pub fn of_stdin() -> Option<Self> {
        None
    }

    #[cfg(unix)]
    fn new(_: &Path, metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        Some(Self((metadata.dev(), metadata.ino())))
    }

    #[cfg(not(unix))]
    fn new(path: &Path, _: &Metadata) -> Option<Self> {
        fs::canonicalize(path).ok().map(Self)
    }
}
