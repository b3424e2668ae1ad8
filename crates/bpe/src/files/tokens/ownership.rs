//! Before any work: that a job's outputs are its own, by what stands in them.
//!
//! A sidecar and a journal say so themselves. An array says only that it holds ids; it is this
//! crate's if such a file stands beside it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::journal;
use super::npy;
use super::outputs::OutputPaths;
use super::sidecar;
use crate::error::{Error, Result};
use crate::files::claim::{Claim, Inputs, remove_unfinished};
use crate::files::place::{folder, follow_links};

const WRITER: &str = "cs336lm tokenize";

/// Larger files of JSON are not read to see whose they are; with a line for each of a million
/// inputs a sidecar has a tenth of this.
const MAX_JSON: u64 = 1 << 30;

/// Claims a job's outputs: nobody else may write them, none of them is an input, and what they
/// replace was written by a job like this one. Then removes what killed ones left unfinished.
///
/// # Errors
/// Names the output that must not be written, and why.
pub fn claim(outputs: &OutputPaths, inputs: &[PathBuf]) -> Result<Vec<Claim>> {
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
    check(outputs, &Inputs::of(inputs))?;
    remove_unfinished(outputs.asked(), |name| outputs.is_output(name));
    Ok(claims)
}

fn check(outputs: &OutputPaths, inputs: &Inputs) -> Result<()> {
    let journal = outputs.journal();
    let has_journal = is_journal(&journal);
    for side in outputs.sides() {
        let sidecar = outputs.sidecar(side);
        let is_known = has_journal || is_sidecar(&sidecar);
        for array in outputs.arrays_there(side) {
            // What was asked for by its own name is kept if it is someone's array; what is called
            // so and is none is of no use to anyone.
            let is_asked = array == outputs.asked();
            inputs.check_output(&array, WRITER, |path| {
                (is_known && holds_ids(path)) || (is_asked && !is_array(path))
            })?;
        }
        inputs.check_output(&sidecar, WRITER, is_sidecar)?;
    }
    if outputs.is_sharded() {
        inputs.check_output(&journal, WRITER, is_journal)?;
    }
    Ok(())
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

/// Whether the file begins like one of NumPy's, single or in an archive.
fn is_array(path: &Path) -> bool {
    let mut magic = [0; 6];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && (magic == *b"\x93NUMPY" || magic.starts_with(b"PK"))
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
