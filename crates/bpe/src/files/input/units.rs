//! Which unit a thread reads from next: the first that no other thread is reading from.
//!
//! What has no positions (compressed text, pages of a table) is read in order, by one thread at a
//! time. While it does, the others begin with what comes after: the next file, the next part of the
//! table. So there are no more units open than threads, and where all are read equally fast, all
//! threads are busy.

use std::sync::Arc;

use super::chunk::Place;
use super::cursor::{Cursor, TablePart, open_table};
use super::file::{FileType, InputFile};
use super::table::Table;

/// Units in order: those that are being read, and where the next one begins.
pub struct Units {
    next: Place,
    /// The table that the next unit is in, if it is not the table's first.
    table: Option<Arc<dyn Table>>,
    open: Vec<Unit>,
    /// After an error there are no more chunks.
    stopped: bool,
}

struct Unit {
    file: usize,
    /// Where the unit begins, which no other does.
    start: Place,
    /// `None` while a thread reads from it.
    cursor: Option<Cursor>,
}

/// What a thread may do.
pub enum Turn {
    /// Read from this unit, and give the cursor back. It may be the first, or one ahead of that.
    Read { unit: Place, cursor: Cursor, is_ahead: bool },
    /// Wait until a cursor is given back.
    Wait,
    /// Nothing is left.
    End,
}

impl Units {
    /// All that comes from `start` on.
    pub fn from(start: Place) -> Self {
        Self { next: start, table: None, open: Vec::new(), stopped: false }
    }

    /// Begins with a unit that is open already.
    pub fn push(&mut self, cursor: Cursor) {
        let start = cursor.place.clone();
        self.next = Place::start_of(start.file + 1);
        self.open.push(Unit { file: start.file, start, cursor: Some(cursor) });
    }

    /// The next unit to read from. Without `ahead` it is the first that is left, and no other.
    pub fn take(&mut self, inputs: &[InputFile], part_bytes: usize, ahead: bool) -> Turn {
        if self.stopped {
            return Turn::End;
        }
        let limit = if ahead { self.open.len() } else { 1 };
        let units = self.open.iter_mut().take(limit).enumerate();
        let mut free = units.filter_map(|(place, unit)| Some((place, unit.cursor.take()?)));
        if let Some((place, cursor)) = free.next() {
            let unit = self.open[place].start.clone();
            return Turn::Read { unit, cursor, is_ahead: place > 0 };
        }
        let may_open = self.open.is_empty() || ahead && self.may_open_next(inputs);
        if !may_open {
            return Turn::Wait;
        }
        let is_ahead = !self.open.is_empty();
        match self.open_next(inputs, part_bytes) {
            Some((unit, cursor)) => Turn::Read { unit, cursor, is_ahead },
            None if self.open.is_empty() => Turn::End,
            None => Turn::Wait,
        }
    }

    /// Takes back the cursor of a unit, which may be at its end.
    pub fn give_back(&mut self, unit: &Place, cursor: Cursor, is_at_end: bool) {
        if let Some(at) = self.open.iter().position(|open| open.start == *unit) {
            match is_at_end {
                true => drop(self.open.remove(at)),
                false => self.open[at].cursor = Some(cursor),
            }
        }
    }

    /// Ends the reading, for all threads.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whoever writes to two pipes may well write to one after the other: they are read so.
    fn may_open_next(&self, inputs: &[InputFile]) -> bool {
        let next = self.next.file;
        let mut concerned = self.open.iter().map(|unit| unit.file).chain([next]);
        concerned.all(|file| inputs.get(file).is_some_and(|input| input.len.is_some()))
    }

    fn open_next(&mut self, inputs: &[InputFile], part_bytes: usize) -> Option<(Place, Cursor)> {
        let start = self.next.clone();
        let input = inputs.get(start.file)?;
        self.next = Place::start_of(start.file + 1);
        let cursor = match &input.file_type {
            FileType::Parquet(column) => {
                let table = match self.table.take() {
                    Some(table) => Ok(table),
                    None => open_table(&input.path, column, part_bytes),
                };
                let part = table.map(|table| self.part(table, &start));
                Cursor::of_table(start.clone(), part)
            }
            _ => Cursor::of_file(start.clone()),
        };
        self.open.push(Unit { file: start.file, start: start.clone(), cursor: None });
        Some((start, cursor))
    }

    /// The part of a table that begins at `start`; the next unit is the one after it.
    fn part(&mut self, table: Arc<dyn Table>, start: &Place) -> TablePart {
        let ends = table.ends();
        let part = ends.partition_point(|&end| end <= start.offset);
        let until = ends.get(part).or(ends.last()).copied().unwrap_or(0);
        if part + 1 < ends.len() {
            self.next = Place { offset: until, ..start.clone() };
            self.table = Some(Arc::clone(&table));
        }
        TablePart { table, until }
    }
}
