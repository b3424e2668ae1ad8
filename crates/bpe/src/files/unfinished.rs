//! What files are called before they are finished, and what becomes of those that never will be: a
//! killed process leaves them, and the next one that writes the same file removes them.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use super::place::folder;

/// How the names of unfinished files end.
pub const UNFINISHED: &str = ".part";

/// Removes what killed jobs left unfinished in the folder of `place`, of the files that `is_output`
/// says are this job's. Whoever writes a file holds a lock on it: such a one stays.
pub fn remove_unfinished(place: &Path, is_output: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder(place)) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name.to_str().and_then(finished_name).is_some_and(&is_output) {
            remove_if_abandoned(&entry.path());
        }
    }
}

/// `tokens.npy` for `.tokens.npy.1234-0.part`.
fn finished_name(unfinished: &str) -> Option<&str> {
    let (name, number) =
        unfinished.strip_prefix('.')?.strip_suffix(UNFINISHED)?.rsplit_once('.')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (process, count) = number.split_once('-')?;
    (is_number(process) && is_number(count)).then_some(name)
}

/// A failure is none of the job's.
fn remove_if_abandoned(path: &Path) {
    let open = || -> io::Result<bool> {
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(path.symlink_metadata()?.is_file() && file.try_lock().is_ok())
    };
    if open().unwrap_or(false) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::files::atomic_file::AtomicFile;

    #[test]
    fn only_what_is_abandoned_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a.npy");
        let living = AtomicFile::create(&out).unwrap();
        living.file().write_all(b"half").unwrap();
        for name in
            [".a.npy.4000000-0.part", ".b.npy.4000000-0.part", "a.npy.1-1.part", ".a.npy.part"]
        {
            fs::write(folder.path().join(name), "left").unwrap();
        }
        remove_unfinished(&out, |name| name == "a.npy");
        let left = |name: &str| folder.path().join(name).exists();
        assert!(!left(".a.npy.4000000-0.part"));
        assert!(left(".b.npy.4000000-0.part") && left("a.npy.1-1.part") && left(".a.npy.part"));
        living.commit().unwrap();
        assert_eq!(fs::read(&out).unwrap(), b"half");
    }
}
