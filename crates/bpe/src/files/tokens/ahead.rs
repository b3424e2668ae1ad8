//! Ids that are ahead of their turn, on the disk: where they belong is known when all ids before
//! them are counted, and files that are read at the same time are all finished late.
//!
//! They go to a file without a name beside the output, which ends with the job, whatever ends it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::{Error, Result};
use crate::files::atomic_file::write_all_at;
use crate::files::input::read_exact_at;

/// A chunk's ids, as they are stored.
pub enum Ids {
    Memory(Vec<u8>),
    Disk { at: u64, len: usize },
}

impl Ids {
    /// How many buffers they take, and how many bytes on the disk.
    pub fn held(&self) -> (usize, u64) {
        match self {
            Self::Memory(_) => (1, 0),
            Self::Disk { len, .. } => (0, *len as u64),
        }
    }
}

/// The file that they wait in, made when the first of them comes.
pub struct Ahead {
    folder: PathBuf,
    file: OnceLock<File>,
    end: AtomicU64,
}

impl Ahead {
    /// For the output `out`.
    pub fn beside(out: &Path) -> Self {
        let folder = match out.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_path_buf(),
            _ => PathBuf::from("."),
        };
        Self { folder, file: OnceLock::new(), end: AtomicU64::new(0) }
    }

    /// Writes ids.
    ///
    /// # Errors
    /// The disk is full, or the folder cannot be written to.
    pub fn put(&self, bytes: &[u8]) -> Result<Ids> {
        let with_path = |error| Error::io(&self.folder, error);
        let file = match self.file.get() {
            Some(file) => file,
            None => {
                let made = tempfile::tempfile_in(&self.folder).map_err(with_path)?;
                self.file.get_or_init(|| made)
            }
        };
        let at = self.end.fetch_add(bytes.len() as u64, Relaxed);
        write_all_at(file, bytes, at).map_err(with_path)?;
        Ok(Ids::Disk { at, len: bytes.len() })
    }

    /// The ids, in memory.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn get(&self, ids: Ids) -> Result<Vec<u8>> {
        match (ids, self.file.get()) {
            (Ids::Memory(bytes), _) => Ok(bytes),
            (Ids::Disk { at, len }, Some(file)) => {
                let mut bytes = vec![0; len];
                read_exact_at(file, &mut bytes, at)
                    .map_err(|error| Error::io(&self.folder, error))?;
                Ok(bytes)
            }
            (Ids::Disk { .. }, None) => Err(Error::invalid("ids of another job")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_comes_back_in_any_order_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let ahead = Ahead::beside(&folder.path().join("out.npy"));
        let chunks: Vec<Vec<u8>> = (0..20u8).map(|i| vec![i; 100 * usize::from(i)]).collect();
        let put: Vec<Ids> = chunks.iter().map(|chunk| ahead.put(chunk).unwrap()).collect();
        for (ids, chunk) in put.into_iter().zip(&chunks).rev() {
            assert_eq!(ids.held(), (0, chunk.len() as u64));
            assert_eq!(ahead.get(ids).unwrap(), *chunk);
        }
        assert_eq!(ahead.get(Ids::Memory(vec![7])).unwrap(), [7]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
