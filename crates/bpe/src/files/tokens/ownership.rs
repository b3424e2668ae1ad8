//! Before any work: that a job's outputs are its own, by what stands in them.
//!
//! A sidecar and a journal say so themselves. An array says only that it holds ids; it is this
//! crate's if such a file stands beside it. Whatever else has an output's name is somebody's.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::journal::{self, FinishedShard};
use super::npy;
use super::outputs::OutputPaths;
use super::sidecar;
use crate::error::{Error, Result};
use crate::files::atomic_file::remove_if_there;
use crate::files::claim::{Claim, Inputs};
use crate::files::place::{folder, follow_links};
use crate::files::unfinished::remove_unfinished;

const WRITER: &str = "cs336lm tokenize";

/// Larger files of JSON are not read to see whose they are; with a line for each of a million
/// inputs a sidecar has a tenth of this.
const MAX_JSON: u64 = 1 << 30;

/// Outputs that are this job's to write, until this is dropped.
pub struct Claimed {
    _claims: Vec<Claim>,
    /// The arrays that jobs of before wrote under these names.
    older: Vec<PathBuf>,
}

impl Claimed {
    /// Removes, once the job is done, the arrays of older ones that are not among those it wrote: a
    /// longer set's last shards, or the array that is in shards now.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub fn remove_older(self, outputs: &OutputPaths, finished: &[FinishedShard]) -> Result<()> {
        let numbers = 0..finished.len();
        let is_written = |shard: usize, side: usize| shard == 0 || finished[shard].sizes[side] > 0;
        let written = numbers.flat_map(|shard| outputs.sides().map(move |side| (shard, side)));
        let written: Vec<PathBuf> = written
            .filter(|&(shard, side)| is_written(shard, side))
            .map(|(shard, side)| outputs.array(shard, side))
            .collect();
        let left = self.older.iter().filter(|path| !written.contains(path));
        left.into_iter().try_for_each(|path| remove_if_there(path))
    }
}

/// Claims a job's outputs: nobody else may write them, none of them is an input, and what they
/// replace was written by a job like this one. Then removes what killed ones left unfinished.
///
/// # Errors
/// Names the output that must not be written, and why.
pub fn claim(outputs: &OutputPaths, inputs: &[PathBuf]) -> Result<Claimed> {
    let mut claims = Vec::new();
    for stem in outputs.stems() {
        claims.extend(Claim::take(folder(outputs.asked()), &stem, outputs.asked())?);
    }
    // Reached through a link, the array has another name, under which another job may write it.
    let array = outputs.array(0, 0);
    let place = follow_links(&array)?;
    if place != array {
        let stem = place.file_stem().unwrap_or_default();
        claims.extend(Claim::take(folder(&place), stem, outputs.asked())?);
        let name = place.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        remove_unfinished(&place, |left| Some(left) == name.as_deref());
    }
    let older = check(outputs, &Inputs::of(inputs))?;
    remove_unfinished(outputs.asked(), |name| outputs.is_output(name));
    Ok(Claimed { _claims: claims, older })
}

/// Checks every output, and returns the arrays that older jobs wrote.
fn check(outputs: &OutputPaths, inputs: &Inputs) -> Result<Vec<PathBuf>> {
    let mut older = Vec::new();
    let journal = outputs.journal();
    let has_journal = is_journal(&journal);
    for side in outputs.sides() {
        let sidecar = outputs.sidecar(side);
        let described = read_json(&sidecar).filter(sidecar::is_one);
        let is_known = has_journal || described.is_some();
        for array in outputs.arrays_there(side) {
            inputs.check_output(&array, WRITER, |path| is_known && holds_ids(path))?;
            older.push(array);
        }
        // In one file now, in shards before, or the other way round.
        let listed = described.iter().flat_map(|sidecar| outputs.arrays_listed(side, sidecar));
        older.extend(listed.filter(|path| holds_ids(path)));
        inputs.check_output(&sidecar, WRITER, is_sidecar)?;
    }
    if outputs.is_sharded() {
        inputs.check_output(&journal, WRITER, is_journal)?;
    }
    Ok(older)
}

/// Whether the file is a sidecar of this crate's.
fn is_sidecar(path: &Path) -> bool {
    read_json(path).is_some_and(|json| sidecar::is_one(&json))
}

/// Whether the file is a record of an unfinished job.
pub fn is_journal(path: &Path) -> bool {
    read_json(path).is_some_and(|json| journal::is_one(&json))
}

fn read_json(path: &Path) -> Option<Value> {
    let len = fs::metadata(path).ok()?.len();
    if len > MAX_JSON {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Whether the file begins like an array that this crate writes, however long it is.
fn holds_ids(path: &Path) -> bool {
    let mut header = [0; npy::HEADER_LEN];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && npy::parse_header(&header).is_some()
}

/// Refuses a name that the sidecar could not spell.
///
/// # Errors
/// The name is not UTF-8, which JSON is.
pub fn check_name(out: &Path) -> Result<()> {
    match out.file_name().is_some_and(|name| name.to_str().is_none()) {
        true => Err(Error::invalid(format!(
            "{}: is not UTF-8, so the sidecar cannot name it; give the output another name",
            out.display()
        ))),
        false => Ok(()),
    }
}
