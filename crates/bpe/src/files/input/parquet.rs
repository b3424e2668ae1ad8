//! Apache Parquet: a table stored by column; one column of strings holds the documents, one a row.
//! The format: <https://parquet.apache.org/docs/file-format/>
//!
//! The crate `parquet` decodes it, without Arrow. Threads may read different row groups at the same
//! time; of each only that column's pages are read, so memory is bounded by a few pages a thread, not
//! by a row group.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::cutter::{read_at, read_exact_at};
use super::table::{Rows, Table};

/// Rows that are decoded at a time: few, because each may be a book.
const BATCH: usize = 64;

/// A Parquet file, opened once for all threads.
pub struct ParquetTable {
    file: SerializedFileReader<Positions>,
    column: usize,
    parts: Vec<Range<usize>>,
    ends: Vec<u64>,
}

impl ParquetTable {
    /// Opens a file. Its parts are row groups, or several where they are small: at least
    /// `part_bytes` of the column, packed.
    ///
    /// # Errors
    /// Says what is wrong with the file, or which columns it has.
    pub fn open(path: &Path, column: &str, part_bytes: u64) -> Result<Self, String> {
        guarded(|| Self::open_unguarded(path, column, part_bytes))
    }

    fn open_unguarded(path: &Path, column: &str, part_bytes: u64) -> Result<Self, String> {
        let file = Positions::open(path).map_err(|error| error.to_string())?;
        let file = SerializedFileReader::new(file).map_err(corrupt)?;
        let column = find_column(&file, column)?;
        let (mut parts, mut ends) = (Vec::new(), Vec::new());
        let (mut first, mut bytes, mut rows, mut end) = (0, 0, 0, 0u64);
        for (index, group) in file.metadata().row_groups().iter().enumerate() {
            let packed = group.columns().get(column).map_or(0, |column| column.compressed_size());
            bytes += packed.unsigned_abs();
            rows += group.num_rows().unsigned_abs();
            let is_last = index + 1 == file.num_row_groups();
            if rows > 0 && bytes >= part_bytes || is_last {
                end = end.saturating_add(rows);
                parts.push(first..index + 1);
                ends.push(end);
                (first, bytes, rows) = (index + 1, 0, 0);
            }
        }
        if ends.is_empty() {
            parts.push(0..0);
            ends.push(0);
        }
        Ok(Self { file, column, parts, ends })
    }

    fn rows_unguarded(self: Arc<Self>, row: u64) -> Result<GroupRows, String> {
        let part = self.ends.partition_point(|&end| end <= row).min(self.parts.len() - 1);
        let groups = self.parts[part].clone();
        let next_row = if part == 0 { 0 } else { self.ends[part - 1] };
        let mut rows = GroupRows { table: self, groups, open: None, next_row };
        rows.skip(row - next_row)?;
        Ok(rows)
    }
}

impl Table for ParquetTable {
    fn ends(&self) -> &[u64] {
        &self.ends
    }

    fn rows_from(self: Arc<Self>, row: u64) -> Result<Box<dyn Rows>, String> {
        guarded(|| Ok(Box::new(self.rows_unguarded(row)?) as Box<dyn Rows>))
    }
}

/// The rows of some row groups.
struct GroupRows {
    table: Arc<ParquetTable>,
    /// The row groups to open next,
    groups: Range<usize>,
    /// and what is left of the one before them.
    open: Option<ColumnReaderImpl<ByteArrayType>>,
    next_row: u64,
}

impl GroupRows {
    fn read_unguarded(
        &mut self,
        text: &mut Vec<u8>,
        ends: &mut Vec<usize>,
    ) -> Result<bool, String> {
        let (mut levels, mut values) = (Vec::new(), Vec::<ByteArray>::new());
        while let Some(open) = self.open_group()? {
            let (rows, _, _) =
                open.read_records(BATCH, Some(&mut levels), None, &mut values).map_err(corrupt)?;
            if rows == 0 {
                self.open = None;
                continue;
            }
            self.next_row += rows as u64;
            for value in &values {
                text.extend_from_slice(value.data());
                ends.push(text.len());
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn skip(&mut self, mut rows: u64) -> Result<(), String> {
        while rows > 0 {
            let in_group = self.rows_in(self.groups.start);
            if self.open.is_none() && in_group <= rows && !self.groups.is_empty() {
                // A whole row group: not even opened.
                self.groups.start += 1;
                self.next_row += in_group;
                rows -= in_group;
                continue;
            }
            let Some(open) = self.open_group()? else { return Ok(()) };
            let skipped = open.skip_records(rows as usize).map_err(corrupt)? as u64;
            if skipped == 0 {
                self.open = None;
            }
            self.next_row += skipped;
            rows -= skipped;
        }
        Ok(())
    }

    /// The row group that is being read, or else the next; `None` after the last.
    fn open_group(&mut self) -> Result<Option<&mut ColumnReaderImpl<ByteArrayType>>, String> {
        if self.open.is_none() {
            let Some(next) = self.groups.next() else { return Ok(None) };
            let group = self.table.file.get_row_group(next).map_err(corrupt)?;
            let ColumnReader::ByteArrayColumnReader(column) =
                group.get_column_reader(self.table.column).map_err(corrupt)?
            else {
                return Err("its row groups disagree about the column's type".to_owned());
            };
            self.open = Some(column);
        }
        Ok(self.open.as_mut())
    }

    fn rows_in(&self, group: usize) -> u64 {
        let groups = self.table.file.metadata().row_groups();
        groups.get(group).map_or(0, |group| group.num_rows().unsigned_abs())
    }
}

impl Rows for GroupRows {
    fn read(&mut self, text: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<bool, String> {
        guarded(|| self.read_unguarded(text, ends))
    }

    fn next_row(&self) -> u64 {
        self.next_row
    }
}

/// A file that several threads read at once, by position: a `File` and its clones have only one
/// place to read at between them.
struct Positions {
    file: Arc<File>,
    len: u64,
}

impl Positions {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), len })
    }
}

impl Length for Positions {
    fn len(&self) -> u64 {
        self.len
    }
}

impl ChunkReader for Positions {
    type T = BufReader<FromPlace>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(BufReader::new(FromPlace { file: Arc::clone(&self.file), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        // A damaged file may ask for any length.
        if start.checked_add(length as u64).is_none_or(|end| end > self.len) {
            return Err(ParquetError::EOF(format!("{length} bytes at {start} of {}", self.len)));
        }
        let mut bytes = vec![0; length];
        read_exact_at(&self.file, &mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// A file from one place on.
struct FromPlace {
    file: Arc<File>,
    at: u64,
}

impl Read for FromPlace {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = read_at(&self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The index of the column of that name, which must hold one string a row.
fn find_column(file: &SerializedFileReader<Positions>, name: &str) -> Result<usize, String> {
    let columns = file.metadata().file_metadata().schema_descr().columns();
    let found = columns.iter().position(|column| column.path().string() == name);
    let Some(index) = found else {
        return Err(format!("no column {name:?}; it has {}", names(columns.iter())));
    };
    if is_text(&columns[index]) {
        return Ok(index);
    }
    let texts: Vec<_> = columns.iter().filter(|column| is_text(column)).collect();
    let instead = match texts.is_empty() {
        true => "no column holds strings".to_owned(),
        false => format!("strings are in {}", names(texts.into_iter())),
    };
    Err(format!("column {name:?} holds {}, not strings; {instead}", kind(&columns[index])))
}

fn names<'c>(columns: impl Iterator<Item = &'c std::sync::Arc<ColumnDescriptor>>) -> String {
    let names: Vec<String> =
        columns.map(|column| format!("{:?}", column.path().string())).collect();
    names.join(", ")
}

/// Whether there is at most one string a row.
fn is_text(column: &ColumnDescriptor) -> bool {
    let says_text = matches!(
        column.converted_type(),
        ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM
    ) || matches!(column.logical_type_ref(), Some(LogicalType::String));
    says_text && column.physical_type() == PhysicalType::BYTE_ARRAY && column.max_rep_level() == 0
}

fn kind(column: &ColumnDescriptor) -> String {
    let list = if column.max_rep_level() > 0 { "lists of " } else { "" };
    format!("{list}{}", column.physical_type())
}

thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });

/// Whether a panic on this thread, now, becomes an error. Whoever owns the program's panic hook may
/// want to print nothing then; the hook is not this crate's to replace.
#[cfg(feature = "python")]
pub fn is_guarded() -> bool {
    GUARDED.get()
}

/// The crate panics on some damaged files (60.1): for the caller that is an error like any other.
fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    GUARDED.set(true);
    let decoded = panic::catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(false);
    decoded.unwrap_or_else(|_| Err("damaged: its contents make no sense".to_owned()))
}

fn corrupt(error: ParquetError) -> String {
    format!("not a Parquet file, or damaged ({error})")
}

#[cfg(test)]
pub mod tests {
    use parquet::data_type::{ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::super::table::bytes_before;
    use super::*;

    const SCHEMA: &str = "message table {
        required int64 id;
        optional binary text (UTF8);
        optional group meta { optional binary title (UTF8); }
        optional binary image;
        repeated binary tags (UTF8);
    }";

    /// A file with these texts, so many rows a row group.
    pub fn table(texts: &[Option<String>], group_rows: usize) -> Vec<u8> {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = Arc::new(WriterProperties::builder().build());
        let mut file = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        for texts in texts.chunks(group_rows) {
            let mut group = file.next_row_group().unwrap();
            let ids: Vec<i64> = (0..).take(texts.len()).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let levels: Vec<i16> = texts.iter().map(|text| text.is_some().into()).collect();
            let values: Vec<ByteArray> =
                texts.iter().flatten().map(|text| text.as_str().into()).collect();
            // The text, and without a value anywhere the title, the image and the tags.
            for (values, levels, repeated) in [
                (values, levels, false),
                (vec![], vec![0; texts.len()], false),
                (vec![], vec![0; texts.len()], false),
                (vec![], vec![0; texts.len()], true),
            ] {
                let mut column = group.next_column().unwrap().unwrap();
                let repeats = vec![0; texts.len()];
                let repeats = repeated.then_some(repeats.as_slice());
                let writer = column.typed::<ByteArrayType>();
                writer.write_batch(&values, Some(&levels), repeats).unwrap();
                column.close().unwrap();
            }
            group.close().unwrap();
        }
        file.into_inner().unwrap()
    }

    fn written(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn open(file: &tempfile::NamedTempFile, column: &str) -> Result<Arc<ParquetTable>, String> {
        ParquetTable::open(file.path(), column, 1).map(Arc::new)
    }

    /// The rows from `row` to the end, part by part.
    fn read_rest(table: &Arc<ParquetTable>, row: u64) -> Vec<String> {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        let first = table.ends().partition_point(|&end| end <= row);
        let starts = std::iter::once(row).chain(table.ends()[first..].iter().copied());
        for (start, &end) in starts.zip(&table.ends()[first..]) {
            let mut rows = Arc::clone(table).rows_from(start).unwrap();
            assert_eq!(rows.next_row(), start);
            while rows.read(&mut text, &mut ends).unwrap() {}
            assert_eq!(rows.next_row(), end);
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let piece = |(start, &end): (usize, &usize)| text[start..end].to_vec();
        starts.zip(&ends).map(piece).map(|piece| String::from_utf8(piece).unwrap()).collect()
    }

    #[test]
    fn rows_come_in_order_without_nulls_from_wherever_reading_begins() {
        let text = |row: usize| match row % 7 {
            0 => None,
            1 => Some(String::new()),
            _ => Some(format!("row {row} ").repeat(row % 50)),
        };
        let texts: Vec<_> = (0..1000).map(text).collect();
        for group_rows in [1, 100, 1000] {
            let file = written(&table(&texts, group_rows));
            for skip in [0, 1, 99, 100, 101, 250, 999, 1000] {
                let rows = open(&file, "text").unwrap();
                assert_eq!(rows.ends().len(), 1000 / group_rows);
                let expected: Vec<_> = texts[skip..].iter().flatten().cloned().collect();
                let found = read_rest(&rows, skip as u64);
                assert_eq!(found, expected, "{group_rows} a group, {skip} skipped");
                assert_eq!(bytes_before(&*rows, 1000, 77), 77);
            }
        }
        let file = written(&table(&[], 1));
        assert_eq!(open(&file, "text").unwrap().ends(), [0]);
        assert_eq!(read_rest(&open(&file, "text").unwrap(), 0), [""; 0]);
    }

    #[test]
    fn a_column_without_text_is_refused_with_those_that_have_it() {
        let file = written(&table(&[Some("a".to_owned())], 1));
        let refused = |column| open(&file, column).err().unwrap();
        assert!(open(&file, "meta.title").is_ok());
        let missing = refused("content");
        assert!(missing.contains("no column \"content\""), "{missing}");
        assert!(missing.contains("\"id\", \"text\", \"meta.title\""), "{missing}");
        for (column, kind) in [("id", "INT64"), ("image", "BYTE_ARRAY"), ("tags", "lists of")] {
            let message = refused(column);
            assert!(message.contains(kind), "{message}");
            assert!(message.contains("\"text\", \"meta.title\""), "{message}");
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_wherever_it_is_damaged() {
        let texts: Vec<_> = (0..300).map(|row| Some(format!("text number {row}"))).collect();
        let whole = table(&texts, 100);
        let read = |content: &[u8]| -> Result<(), String> {
            let file = written(content);
            let table = open(&file, "text")?;
            let (mut text, mut ends) = (Vec::new(), Vec::new());
            let starts: Vec<u64> = std::iter::once(0).chain(table.ends().iter().copied()).collect();
            for &start in &starts[..starts.len() - 1] {
                let mut rows = Arc::clone(&table).rows_from(start)?;
                while rows.read(&mut text, &mut ends)? {}
            }
            Ok(())
        };
        read(&whole).unwrap();
        for len in (0..whole.len()).step_by(97) {
            let why = read(&whole[..len]).unwrap_err();
            assert!(why.contains("damaged"), "cut at {len}: {why}");
        }
        // The checks may miss a flipped bit; it must not panic.
        for at in (0..whole.len()).step_by(7) {
            let mut content = whole.clone();
            content[at] ^= 1 << (at % 8);
            let _ = read(&content);
        }
    }
}
