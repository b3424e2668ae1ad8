//! Files that appear whole or not at all: written beside their place under another name, synced
//! to the disk, renamed. Whatever fails before the renaming leaves nothing.
//!
//! Links are followed: the file appears where they lead. One that replaces another keeps its
//! permissions, and has no wider ones before either. While it is written it is locked, so that what
//! a killed process leaves can be told from what a living one is writing (`unfinished` removes it).

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::place::{folder, follow_links, is_called};
use super::unfinished::{UNFINISHED, remove_unfinished};
use crate::error::{Error, Result};

pub struct AtomicFile {
    unfinished: Unfinished,
    path: PathBuf,
    /// Where the links of `path` lead.
    place: PathBuf,
}

impl AtomicFile {
    /// Begins a file that will be at `path`.
    ///
    /// # Errors
    /// `path` is a directory, a device or a pipe, or its folder cannot be written to.
    pub fn create(path: &Path) -> Result<Self> {
        let place = follow_links(path)?;
        let replaced = replaceable(path)?;
        let unfinished =
            create_beside(&place, replaced.as_ref()).map_err(|error| Error::io(path, error))?;
        Ok(Self { unfinished, path: path.to_path_buf(), place })
    }

    pub fn file(&self) -> &File {
        &self.unfinished.file
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has the file written to the disk.
    ///
    /// # Errors
    /// The disk is full.
    pub fn sync(&self) -> Result<()> {
        self.file().sync_all().map_err(|error| Error::io(&self.path, error))
    }

    /// Puts the file in its place, over one that may be there.
    ///
    /// # Errors
    /// The disk is full, or the folder cannot be written to.
    pub fn commit(self) -> Result<()> {
        self.sync()?;
        let Self { unfinished, path, place } = self;
        unfinished.rename(&place).map_err(|error| Error::io(&path, error))?;
        // The new name too is to survive a power cut; not every file system can promise that.
        if let Ok(folder) = File::open(folder(&place)) {
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

/// A file that is removed unless it is renamed. Its name is as relative as the one that was given:
/// nobody need be allowed to read the folders above the current one.
struct Unfinished {
    file: File,
    path: PathBuf,
    is_renamed: bool,
}

impl Unfinished {
    fn rename(mut self, place: &Path) -> io::Result<()> {
        fs::rename(&self.path, place)?;
        self.is_renamed = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What stands at `path`, if a file may take its place.
///
/// # Errors
/// It is a directory; or a device or a pipe, which a file must not replace.
pub fn replaceable(path: &Path) -> Result<Option<Metadata>> {
    let refuse = |why: &str| Err(Error::invalid(format!("{}: {why}", path.display())));
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => refuse("is a directory; give a file's name"),
        Ok(there) if !there.is_file() => {
            refuse("is a device or a pipe, not a file; give a file's name")
        }
        Ok(there) => Ok(Some(there)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, error)),
    }
}

/// Creates or replaces `path` with what `write` writes. If anything fails, what stood there
/// stays, and nothing is left beside it; what a killed process left of the same file is removed.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::commit`], and those of `write`.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    let place = follow_links(path)?;
    let name = place.file_name().and_then(|name| name.to_str());
    remove_unfinished(&place, |left| Some(left) == name);
    let file = AtomicFile::create(path)?;
    let mut writer = BufWriter::new(file.file());
    write(&mut writer).and_then(|()| writer.flush()).map_err(|error| Error::io(path, error))?;
    drop(writer);
    file.commit()
}

/// Removes a file; if `path` is a link, what it leads to.
///
/// # Errors
/// `path` is there and cannot be removed.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(follow_links(path)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

/// A new file in the folder of `path`, locked, and removed when dropped. Its permissions are those
/// of the file that it is to replace, or else of any new file. An error is the system's own.
fn create_beside(path: &Path, replaced: Option<&Metadata>) -> io::Result<Unfinished> {
    let name = path.file_name().unwrap_or_default();
    let process = std::process::id();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    restrict(&mut options, replaced);
    for number in 0.. {
        let mut unfinished = std::ffi::OsString::from(".");
        unfinished.push(name);
        unfinished.push(format!(".{process}-{number}{UNFINISHED}"));
        let path = folder(path).join(unfinished);
        match options.open(&path) {
            Ok(file) => {
                if !lock_new(&file, &path)? {
                    continue;
                }
                adopt_permissions(&file, replaced);
                return Ok(Unfinished { file, path, is_renamed: false });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Locks a file that was just created; `false` if someone took it for one that a killed process
/// left, between its creation and now.
fn lock_new(file: &File, path: &Path) -> io::Result<bool> {
    loop {
        match file.try_lock() {
            Err(fs::TryLockError::WouldBlock) => return Ok(false),
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            // Where the file system has no locks, unfinished files are not removed either.
            Err(fs::TryLockError::Error(_)) | Ok(()) => return is_called(file, path),
        }
    }
}

#[cfg(unix)]
fn restrict(options: &mut OpenOptions, replaced: Option<&Metadata>) {
    use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
    if let Some(replaced) = replaced {
        options.mode(replaced.mode() & 0o777);
    }
}

#[cfg(not(unix))]
fn restrict(_: &mut OpenOptions, _: Option<&Metadata>) {}

/// The permissions of the file that is to be replaced, and its owner where the system allows it.
/// That it may not is no failure: what was created has no wider permissions.
fn adopt_permissions(file: &File, replaced: Option<&Metadata>) {
    let Some(replaced) = replaced else { return };
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, fchown};
        let ours = file.metadata().map(|ours| (ours.uid(), ours.gid())).ok();
        if ours != Some((replaced.uid(), replaced.gid())) {
            let _ = fchown(file, Some(replaced.uid()), Some(replaced.gid()));
        }
    }
    let _ = file.set_permissions(replaced.permissions());
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

    #[test]
    fn what_a_killed_process_left_of_the_same_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        for name in [".a.bin.4000000-0.part", ".b.bin.4000000-0.part"] {
            fs::write(folder.path().join(name), "left").unwrap();
        }
        write_atomically(&path, |file| file.write_all(b"new")).unwrap();
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, [".b.bin.4000000-0.part", "a.bin"]);
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

    #[cfg(unix)]
    #[test]
    fn what_is_replaced_keeps_its_permissions_and_was_never_open_to_others() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let mode = |file: &File| file.metadata().unwrap().permissions().mode() & 0o777;
        for bits in [0o600, 0o640, 0o666] {
            std::fs::write(&path, "old").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(bits)).unwrap();
            let file = AtomicFile::create(&path).unwrap();
            assert_eq!(mode(file.file()), bits);
            file.commit().unwrap();
            assert_eq!(mode(&File::open(&path).unwrap()), bits);
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_stay() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        let link = folder.path().join("link");
        let middle = other.path().join("middle");
        symlink(&middle, &link).unwrap();
        symlink("real", &middle).unwrap();
        for text in ["first", "second"] {
            write_atomically(&link, |file| file.write_all(text.as_bytes())).unwrap();
            assert_eq!(std::fs::read_to_string(other.path().join("real")).unwrap(), text);
        }
        remove_if_there(&link).unwrap();
        assert_eq!(names(folder.path()), ["link"]);
        assert_eq!(names(other.path()), ["middle"]);
        let round = folder.path().join("round");
        symlink("round", &round).unwrap();
        assert!(write_atomically(&round, |file| file.write_all(b"")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_device_is_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let error = AtomicFile::create(Path::new("/dev/null")).err().unwrap().to_string();
        assert!(error.contains("/dev/null: is a device or a pipe"), "{error}");
        assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    }
}
