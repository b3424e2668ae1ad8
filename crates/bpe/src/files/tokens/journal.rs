//! What it takes to resume a job with shards: written after each finished shard, removed at the
//! end.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ledger::Position;
use crate::error::{Error, Result};
use crate::files::atomic_file::{remove_if_there, write_atomically};

/// The record of an unfinished job.
pub struct Journal {
    path: PathBuf,
    /// Everything that decides which id stands where; a job with other settings is another job.
    settings: Value,
}

#[derive(Serialize, Deserialize)]
struct Content {
    settings: Value,
    /// How many tokens each finished shard has, for training and validation.
    shards: Vec<[u64; 2]>,
    position: Position,
}

impl Journal {
    pub fn new(path: PathBuf, settings: Value) -> Self {
        Self { path, settings }
    }

    /// Records the finished shards and where to continue.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, shards: &[[u64; 2]], position: &Position) -> Result<()> {
        let (settings, shards, position) = (&self.settings, shards.to_vec(), position.clone());
        let content = Content { settings: settings.clone(), shards, position };
        write_atomically(&self.path, |file| {
            serde_json::to_writer(&mut *file, &content)?;
            file.write_all(b"\n")
        })
    }

    /// The finished shards and where to continue; `None` if no job was interrupted.
    ///
    /// # Errors
    /// The file cannot be read, or the interrupted job was another one: says what differs.
    pub fn read(&self) -> Result<Option<(Vec<[u64; 2]>, Position)>> {
        let json = match fs::read(&self.path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&self.path, error)),
        };
        let content: Content = serde_json::from_slice(&json).map_err(|error| {
            self.refuse(&format!("is not a record of an interrupted job ({error})"))
        })?;
        if let Some(name) = self.first_difference(&content.settings) {
            return Err(self.refuse(&format!("the interrupted job used a different {name}")));
        }
        Ok(Some((content.shards, content.position)))
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
