//! Apache Parquet: a table stored by column; one column of strings holds the documents, one a row.
//! The format: <https://parquet.apache.org/docs/file-format/>
//!
//! The crate `parquet` decodes it, without Arrow. Row groups are read one after the other, and of
//! each only that column's pages, so memory is bounded by a few pages, not by a row group.

use std::cell::Cell;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::table::Table;

/// Rows that are decoded at a time: few, because each may be a book.
const BATCH: usize = 64;

/// The rows of a Parquet file.
pub struct ParquetTable {
    file: SerializedFileReader<File>,
    column: usize,
    /// The row group to open next,
    group: usize,
    /// and what is left of the one before it.
    open: Option<ColumnReaderImpl<ByteArrayType>>,
    /// How many rows there are, and how many were read or skipped.
    total: u64,
    read: u64,
}

impl ParquetTable {
    /// Opens a file at its first row.
    ///
    /// # Errors
    /// Says what is wrong with the file, or which columns it has.
    pub fn open(path: &Path, column: &str) -> Result<Self, String> {
        guarded(|| Self::open_unguarded(path, column))
    }

    fn open_unguarded(path: &Path, column: &str) -> Result<Self, String> {
        let file = File::open(path).map_err(|error| error.to_string())?;
        let file = SerializedFileReader::new(file).map_err(corrupt)?;
        let column = find_column(&file, column)?;
        let total = file.metadata().file_metadata().num_rows().unsigned_abs();
        Ok(Self { file, column, group: 0, open: None, total, read: 0 })
    }

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
            self.read += rows as u64;
            for value in &values {
                text.extend_from_slice(value.data());
                ends.push(text.len());
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn skip_unguarded(&mut self, mut rows: u64) -> Result<(), String> {
        while rows > 0 {
            let in_group = self.rows_in(self.group);
            if self.open.is_none() && in_group <= rows && self.group < self.file.num_row_groups() {
                // A whole row group: not even opened.
                self.group += 1;
                self.read += in_group;
                rows -= in_group;
                continue;
            }
            let Some(open) = self.open_group()? else { return Ok(()) };
            let skipped = open.skip_records(rows as usize).map_err(corrupt)? as u64;
            if skipped == 0 {
                self.open = None;
            }
            self.read += skipped;
            rows -= skipped;
        }
        Ok(())
    }

    /// The row group that is being read, or else the next; `None` after the last.
    fn open_group(&mut self) -> Result<Option<&mut ColumnReaderImpl<ByteArrayType>>, String> {
        if self.open.is_none() {
            if self.group == self.file.num_row_groups() {
                return Ok(None);
            }
            let group = self.file.get_row_group(self.group).map_err(corrupt)?;
            let ColumnReader::ByteArrayColumnReader(column) =
                group.get_column_reader(self.column).map_err(corrupt)?
            else {
                return Err("its row groups disagree about the column's type".to_owned());
            };
            self.group += 1;
            self.open = Some(column);
        }
        Ok(self.open.as_mut())
    }

    fn rows_in(&self, group: usize) -> u64 {
        let groups = self.file.metadata().row_groups();
        groups.get(group).map_or(0, |group| group.num_rows().unsigned_abs())
    }
}

impl Table for ParquetTable {
    fn read(&mut self, text: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<bool, String> {
        guarded(|| self.read_unguarded(text, ends))
    }

    fn skip(&mut self, rows: u64) -> Result<(), String> {
        guarded(|| self.skip_unguarded(rows))
    }

    fn rows_read(&self) -> u64 {
        self.read
    }

    fn bytes_read(&self, len: u64) -> u64 {
        let read = u128::from(len) * u128::from(self.read.min(self.total));
        (read / u128::from(self.total.max(1))) as u64
    }
}

/// The index of the column of that name, which must hold one string a row.
fn find_column(file: &SerializedFileReader<File>, name: &str) -> Result<usize, String> {
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
    use std::sync::Arc;

    use parquet::data_type::{ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

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

    fn read_rest(rows: &mut ParquetTable) -> Vec<String> {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        while rows.read(&mut text, &mut ends).unwrap() {}
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
                let mut rows = ParquetTable::open(file.path(), "text").unwrap();
                rows.skip(skip as u64).unwrap();
                assert_eq!(rows.rows_read(), skip as u64);
                let expected: Vec<_> = texts[skip..].iter().flatten().cloned().collect();
                assert_eq!(read_rest(&mut rows), expected, "{group_rows} a group, {skip} skipped");
                assert_eq!((rows.rows_read(), rows.bytes_read(77)), (1000, 77));
            }
        }
        let file = written(&table(&[], 1));
        assert_eq!(read_rest(&mut ParquetTable::open(file.path(), "text").unwrap()), [""; 0]);
    }

    #[test]
    fn a_column_without_text_is_refused_with_those_that_have_it() {
        let file = written(&table(&[Some("a".to_owned())], 1));
        let refused = |column| ParquetTable::open(file.path(), column).err().unwrap();
        assert!(ParquetTable::open(file.path(), "meta.title").is_ok());
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
            let mut rows = ParquetTable::open(file.path(), "text")?;
            let (mut text, mut ends) = (Vec::new(), Vec::new());
            while rows.read(&mut text, &mut ends)? {}
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
