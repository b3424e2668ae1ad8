//! What it takes to resume a job with shards: written after each finished shard, removed at the
//! end.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::ledger::Position;
use super::npy::{self, Dtype};
use super::outputs::OutputPaths;
use crate::error::{Error, Result};
use crate::files::atomic_file::{remove_if_there, write_atomically};
use crate::files::sealed::hex;
use crate::progress::{Phase, Progress};

/// The record of an unfinished job.
pub struct Journal {
    path: PathBuf,
    /// Everything that decides which id stands where; a job with other settings is another job.
    settings: Value,
}

#[derive(Serialize, Deserialize)]
struct Content {
    settings: Value,
    shards: Vec<FinishedShard>,
    position: Position,
    /// Of the three above: where it differs someone has changed them.
    checksum: String,
}

/// What its files hold, for training and validation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedShard {
    /// How many ids.
    pub sizes: [u64; 2],
    /// The CRC-32 of the ids' bytes.
    pub crc32: [u32; 2],
}

impl Content {
    fn new(settings: Value, shards: Vec<FinishedShard>, position: Position) -> io::Result<Self> {
        let bytes = serde_json::to_vec(&(&settings, &shards, &position))?;
        let checksum = hex(&Sha256::digest(bytes));
        Ok(Self { settings, shards, position, checksum })
    }
}

/// Whether this is what a journal holds, of this version or another.
pub fn is_one(json: &Value) -> bool {
    json["settings"]["tokenizer"].is_string()
        && json["shards"].is_array()
        && json["position"]["place"].is_object()
}

impl Journal {
    pub fn new(path: PathBuf, settings: Value) -> Self {
        Self { path, settings }
    }

    /// Records the finished shards and where to continue.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, shards: &[FinishedShard], position: &Position) -> Result<()> {
        let (settings, shards, position) = (&self.settings, shards.to_vec(), position.clone());
        write_atomically(&self.path, |file| {
            let content = Content::new(settings.clone(), shards, position)?;
            serde_json::to_writer(&mut *file, &content)?;
            file.write_all(b"\n")
        })
    }

    /// The finished shards and where to continue; `None` if no job was interrupted.
    ///
    /// # Errors
    /// The file cannot be read, or the interrupted job was another one: says what differs.
    pub fn read(&self) -> Result<Option<(Vec<FinishedShard>, Position)>> {
        let json = match fs::read(&self.path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&self.path, error)),
        };
        if json.last() != Some(&b'\n') {
            return Err(self.refuse("is damaged: its end is missing"));
        }
        let content: Content = serde_json::from_slice(&json).map_err(|error| {
            self.refuse(&format!("is not a record of an interrupted job ({error})"))
        })?;
        let Content { settings, shards, position, checksum } = content;
        if let Some(name) = self.first_difference(&settings) {
            return Err(self.refuse(&match changed_input(&self.settings, &settings, &name) {
                Some(input) => format!("the input {input} was changed since that job read it"),
                None => format!("the interrupted job used a different {name}"),
            }));
        }
        let again = Content::new(settings, shards, position)
            .map_err(|error| self.refuse(&error.to_string()))?;
        if again.checksum != checksum {
            return Err(self.refuse("is damaged: its checksum does not match"));
        }
        Ok(Some((again.shards, again.position)))
    }

    /// Reads the shards which the journal lists: they are there as they were written.
    ///
    /// # Errors
    /// Names the first that is not; or `progress` says stop.
    pub fn verify(
        &self,
        outputs: &OutputPaths,
        dtype: Dtype,
        shards: &[FinishedShard],
        progress: &Progress,
    ) -> Result<()> {
        let ids: u64 = shards.iter().flat_map(|shard| shard.sizes).sum();
        progress.begin(Phase::Checking, ids.saturating_mul(dtype.width()));
        for (number, shard) in shards.iter().enumerate() {
            for side in outputs.sides() {
                let (path, len) = (outputs.array(number, side), shard.sizes[side]);
                if len == 0 && number > 0 {
                    continue;
                }
                let refuse = |why: String| {
                    let (path, journal) = (path.display(), self.path.display());
                    Error::invalid(format!(
                        "{path}: {why}, but {journal} says that it was finished with {len} tokens; \
                         to start over, do not resume"
                    ))
                };
                let mut ids = open_array(&path, dtype, len).map_err(refuse)?;
                if checksum(&mut ids, &path, progress)? != shard.crc32[side] {
                    return Err(refuse("was changed since".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// # Errors
    /// The file is there and cannot be removed.
    pub fn remove(&self) -> Result<()> {
        remove_if_there(&self.path)
    }

    fn refuse(&self, why: &str) -> Error {
        Error::invalid(format!(
            "{}: {why}; to start over, delete it or do not resume",
            self.path.display()
        ))
    }

    fn first_difference(&self, other: &Value) -> Option<String> {
        let ours = self.settings.as_object()?;
        let differing = ours.iter().find(|(name, value)| other.get(name) != Some(value));
        differing.map(|(name, _)| name.clone())
    }
}

/// Which input is not what it was, if that is the difference between two jobs' settings.
fn changed_input(ours: &Value, theirs: &Value, name: &str) -> Option<String> {
    let (ours, theirs) = (ours.get(name)?.as_array()?, theirs.get(name)?.as_array()?);
    let path = |input: &Value| input.get(0).and_then(Value::as_str).map(str::to_owned);
    let same_paths = ours.len() == theirs.len()
        && ours.iter().zip(theirs).all(|(one, other)| path(one) == path(other));
    let (changed, _) = ours.iter().zip(theirs).find(|(one, other)| one != other)?;
    path(changed).filter(|_| same_paths)
}

/// The ids of an array, if it is one of so many.
fn open_array(path: &Path, dtype: Dtype, len: u64) -> Result<File, String> {
    let mut header = [0; npy::HEADER_LEN];
    let mut file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "is missing".to_owned(),
        _ => error.to_string(),
    })?;
    let bytes = file.metadata().map_err(|error| error.to_string())?.len();
    let expected =
        len.checked_mul(dtype.width()).and_then(|ids| ids.checked_add(npy::HEADER_LEN as u64));
    if Some(bytes) != expected {
        return Err(format!("has {bytes} bytes"));
    }
    file.read_exact(&mut header).map_err(|error| error.to_string())?;
    match npy::parse_header(&header) == Some((dtype, len)) {
        true => Ok(file),
        false => Err("is not that array".to_owned()),
    }
}

fn checksum(ids: &mut File, path: &Path, progress: &Progress) -> Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match ids.read(&mut block) {
            Ok(0) => return Ok(hasher.finalize()),
            Ok(read) => {
                hasher.update(&block[..read]);
                progress.advance(read as u64)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io(path, error)),
        }
    }
}
