//! One input file: what its name says about its contents, and how large it is.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::compression::Compression;
use super::foreign;
use super::json_lines;
use crate::error::{Error, Result};

/// The path that stands for standard input.
pub const STDIN: &str = "-";

/// Where the text is in files of records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFields {
    /// The field of JSON lines; `None` reads such files as plain text.
    pub json: Option<String>,
    /// The column of Parquet files.
    pub parquet: String,
}

impl Default for TextFields {
    fn default() -> Self {
        Self { json: None, parquet: "text".to_owned() }
    }
}

/// A file to read, which was there when the job began.
pub struct InputFile {
    pub path: PathBuf,
    /// `None` for what is not a regular file: it is read in order, to its end.
    pub len: Option<u64>,
    pub file_type: FileType,
    pub compression: Option<Compression>,
    /// The bytes to read, if not all: from one safe cut to another.
    pub range: Option<Range<u64>>,
}

/// How a file holds its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileType {
    /// Its bytes are the text.
    PlainText,
    /// Every line is an object; this field of it is a document.
    JsonLines(String),
    /// Every row is a document, in this column.
    Parquet(String),
}

impl InputFile {
    /// Looks at a file without reading it.
    ///
    /// # Errors
    /// There is no such file, it is a directory or must not be read, or this build cannot read
    /// files of its type.
    pub fn find(path: &Path, fields: &TextFields) -> Result<Self> {
        let refuse = |why: String| Err(Error::invalid(format!("{}: {why}", path.display())));
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        if let Some(what) = foreign::of_name(&name) {
            return refuse(what);
        }
        let (stem, compression) = Compression::of_name(&name);
        let mut file_type = FileType::of_stem(stem, fields);
        if file_type.is_parquet() && compression.is_some() {
            return refuse(
                "a Parquet file is not read in order, so it cannot be read while it is unpacked; \
                 unpack it first"
                    .to_owned(),
            );
        }
        let needed = match &file_type {
            FileType::Parquet(_) => Some(("parquet", cfg!(feature = "parquet"))),
            _ => compression.map(Compression::feature),
        };
        if let Some((feature, false)) = needed {
            return refuse(format!(
                "this build cannot read such files; build it with the cargo feature {feature:?}"
            ));
        }
        let len = len_of(path)?;
        if len.is_some() && !file_type.is_parquet() {
            let mut text = open_text(path, compression).map_err(|error| Error::io(path, error))?;
            // What is damaged is refused when it is read, or left out.
            if let Some(what) = text.fill_buf().ok().and_then(foreign::of_content) {
                return refuse(what);
            }
            if let (Some(field), true) = (&fields.json, stem.ends_with(".json"))
                && json_lines::are_in(text, field)
            {
                file_type = FileType::JsonLines(field.clone());
            }
        }
        Ok(Self { path: path.to_path_buf(), len, file_type, compression, range: None })
    }

    /// How much is to be read, as far as that is known.
    pub fn bytes_to_read(&self) -> Option<u64> {
        self.range.as_ref().map(|range| range.end - range.start).or(self.len)
    }

    /// Leaves out what is outside `range`.
    ///
    /// # Errors
    /// The file's bytes are not its text, or it ends before the range does.
    pub fn restrict(&mut self, range: Range<u64>) -> Result<()> {
        let path = self.path.display();
        match self.len {
            Some(len) if self.is_positioned() && range.start <= range.end && range.end <= len => {
                self.range = Some(range);
                Ok(())
            }
            Some(_) if self.is_positioned() => Err(Error::invalid(format!(
                "{path}: does not hold the bytes {} to {}",
                range.start, range.end
            ))),
            _ => Err(Error::invalid(format!("{path}: only plain text can be read in parts"))),
        }
    }

    /// Whether a place in the text is one in the file.
    pub fn is_uncompressed(&self) -> bool {
        self.compression.is_none() && !self.file_type.is_parquet()
    }

    /// Whether any part of the file can be read on its own: plain text, or lines.
    pub fn has_positions(&self) -> bool {
        self.len.is_some() && self.is_uncompressed()
    }

    /// Whether the file's bytes are the text, so that any part of it can be read on its own.
    pub fn is_positioned(&self) -> bool {
        let is_plain = self.file_type == FileType::PlainText;
        self.len.is_some() && self.compression.is_none() && is_plain
    }
}

impl FileType {
    fn of_stem(stem: &str, fields: &TextFields) -> Self {
        let is_json_lines = stem.ends_with(".jsonl") || stem.ends_with(".ndjson");
        match (&fields.json, stem.ends_with(".parquet")) {
            (_, true) => Self::Parquet(fields.parquet.clone()),
            (Some(field), _) if is_json_lines => Self::JsonLines(field.clone()),
            _ => Self::PlainText,
        }
    }

    pub fn is_parquet(&self) -> bool {
        matches!(self, Self::Parquet(_))
    }
}

/// The size of a regular file that can be opened; `None` for a pipe, a device or standard input.
fn len_of(path: &Path) -> Result<Option<u64>> {
    if path == Path::new(STDIN) {
        return Ok(None);
    }
    let metadata = fs::metadata(path).map_err(|error| Error::io(path, error))?;
    if metadata.is_dir() {
        let path = path.display();
        return Err(Error::invalid(format!("{path}: is a directory; give the files in it")));
    }
    if !metadata.is_file() {
        return Ok(None);
    }
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let len = metadata.len();
    Ok((!is_made_up(file, len)).then_some(len))
}

/// Whether the size of a file is not how much can be read of it. Files that the system makes up are
/// empty by their size (/proc) or have that of a page of memory (/sys).
fn is_made_up(file: File, len: u64) -> bool {
    const LARGEST_PAGE: u64 = 1 << 16;
    if len > LARGEST_PAGE {
        return false;
    }
    // One byte tells of an empty file; some of /proc have no end.
    let read = io::copy(&mut file.take(len + 1), &mut io::sink());
    read.is_ok_and(|read| read != len)
}

/// The start of a file's text.
fn open_text(path: &Path, compression: Option<Compression>) -> io::Result<impl BufRead> {
    let file = BufReader::with_capacity(foreign::SAMPLE, File::open(path)?);
    let text: Box<dyn Read> = match compression {
        None => Box::new(file),
        Some(compression) => compression.decoder(file)?,
    };
    Ok(BufReader::with_capacity(foreign::SAMPLE, text))
}
