//! Files that appear whole or not at all: written beside their place under another name, synced
//! to the disk, renamed. Whatever fails before the renaming leaves nothing.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use crate::error::{Error, Result};

pub struct AtomicFile {
    temporary: NamedTempFile,
    path: PathBuf,
}

impl AtomicFile {
    /// Begins a file that will be at `path`.
    ///
    /// # Errors
    /// `path` is a directory, or its folder cannot be written to.
    pub fn create(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let message = format!("{}: is a directory; give a file's name", path.display());
            return Err(Error::invalid(message));
        }
        let temporary = create_beside(path).map_err(|error| Error::io(path, error))?;
        Ok(Self { temporary, path: path.to_path_buf() })
    }

    pub fn file(&self) -> &File {
        self.temporary.as_file()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the file in its place, over one that may be there.
    ///
    /// # Errors
    /// The disk is full, or the folder cannot be written to.
    pub fn commit(self) -> Result<()> {
        let Self { temporary, path } = self;
        temporary.as_file().sync_all().map_err(|error| Error::io(&path, error))?;
        temporary.persist(&path).map_err(|error| Error::io(&path, error.error))?;
        // The new name too is to survive a power cut; not every file system can promise that.
        if let Ok(folder) = File::open(folder(&path)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// Creates or replaces `path` with what `write` writes. If anything fails, what stood there
/// stays, and nothing is left beside it.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::commit`], and those of `write`.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    let file = AtomicFile::create(path)?;
    let mut writer = BufWriter::new(file.file());
    write(&mut writer).and_then(|()| writer.flush()).map_err(|error| Error::io(path, error))?;
    drop(writer);
    file.commit()
}

/// # Errors
/// `path` is there and cannot be removed.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

/// A new file in the folder of `path`, removed when dropped. Its permissions are those of any new
/// file, and an error is the system's own.
fn create_beside(path: &Path) -> io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let process = std::process::id();
    let mut number = 0;
    loop {
        let temporary = folder(path).join(format!(".{name}.{process}-{number}.part"));
        match File::create_new(&temporary) {
            Ok(file) => {
                let path = TempPath::try_from_path(temporary)?;
                return Ok(NamedTempFile::from_parts(file, path));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The folder that `path` names a file in.
fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Writes all of `bytes` at `offset`, without moving the file's own position: threads may write
/// to different places of one file at once.
#[cfg(unix)]
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        let written = file.seek_write(bytes, offset)?;
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn appears_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomically(&path, |file| file.write_all(b"old")).unwrap();
        let file = AtomicFile::create(&path).unwrap();
        file.file().write_all(b"half").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        drop(file);
        let failed = write_atomically(&path, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a.bin"]);
        write_atomically(&path, |file| file.write_all(b"new")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[cfg(unix)]
    #[test]
    fn may_be_read_as_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
        write_atomically(&ours, |file| file.write_all(b"")).unwrap();
        File::create(&plain).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&ours), mode(&plain));
    }

    #[cfg(unix)]
    #[test]
    fn errors_name_the_file_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_atomically(folder.path(), |file| file.write_all(b"")).unwrap_err();
        assert!(error.to_string().contains("is a directory"));
        let absent = folder.path().join("absent").join("a.bin");
        match write_atomically(&absent, |file| file.write_all(b"")) {
            Err(Error::Io { path, source }) => {
                assert_eq!((path, source.raw_os_error()), (absent, Some(2)));
            }
            other => panic!("{other:?}"),
        }
    }
}
