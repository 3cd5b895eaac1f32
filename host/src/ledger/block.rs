//! Blocks: many records of one kind, encoded one after the other, that SQLite stores as one row.
//!
//! A row a record would cost the host more than a small request does. All records of a block start in the same hour, so
//! that a query by time knows which blocks it need not read, and old records can be deleted block by block.

use serde::Serialize;

use super::record::Record;

const HOUR_US: i64 = 3_600_000_000;

/// No record of a block starts later than its first by this.
pub(super) const SPAN_US: i64 = HOUR_US;

/// A block is full at this size. Pages of SQLite's log are written as a whole, and readers hold one block at a time.
const FULL_BYTES: usize = 256 << 10;

/// Some records of one kind.
#[derive(Debug)]
pub(super) struct Block {
    /// The row's number.
    pub(super) id: i64,
    /// The number of the first record; the others follow.
    pub(super) first_number: u64,
    pub(super) records: u64,
    /// The earliest and the latest start.
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    /// The function of all records, if it is the same.
    pub(super) function: Option<String>,
    pub(super) data: Vec<u8>,
}

/// Makes blocks of records.
pub(super) struct Blocks {
    full: Vec<Block>,
    /// The unfinished blocks, by the hour in which their records start: one, seldom more.
    growing: Vec<Block>,
    /// The numbers that come next.
    id: i64,
    number: u64,
}

impl Blocks {
    /// No blocks yet; the numbers of the first one and of its first record.
    pub(super) fn new(id: i64, number: u64) -> Blocks {
        Blocks { full: Vec::new(), growing: Vec::new(), id, number }
    }

    /// Adds a record.
    pub(super) fn push<'a, R: Record<'a> + Serialize>(&mut self, record: &R) {
        let start_us = record.start_us();
        let hour = start_us.div_euclid(HOUR_US);
        let index = self.growing.iter().position(|block| block.first_us.div_euclid(HOUR_US) == hour);
        let index = index.unwrap_or_else(|| {
            self.growing.push(Block {
                id: 0,
                first_number: 0,
                records: 0,
                first_us: start_us,
                last_us: start_us,
                function: Some(record.function().to_owned()),
                data: Vec::new(),
            });
            self.growing.len() - 1
        });
        let block = &mut self.growing[index];
        block.records += 1;
        block.first_us = block.first_us.min(start_us);
        block.last_us = block.last_us.max(start_us);
        if block.function.as_deref().is_some_and(|function| function != record.function()) {
            block.function = None;
        }
        let data = std::mem::take(&mut block.data);
        // Writing plain values into memory cannot fail.
        block.data = postcard::to_extend(record, data).unwrap_or_default();
        if block.data.len() >= FULL_BYTES {
            let block = self.growing.swap_remove(index);
            self.finish(block);
        }
    }

    fn finish(&mut self, block: Block) {
        let block = Block { id: self.id, first_number: self.number, ..block };
        self.id += 1;
        self.number += block.records;
        self.full.push(block);
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.full.is_empty() && self.growing.is_empty()
    }

    /// All blocks, the unfinished ones as they are. They stay until they are forgotten.
    pub(super) fn finished(&mut self) -> &[Block] {
        for block in std::mem::take(&mut self.growing) {
            self.finish(block);
        }
        &self.full
    }

    /// Forgets all finished blocks, which are stored; how many records they hold.
    pub(super) fn forget(&mut self) -> u64 {
        std::mem::take(&mut self.full).iter().map(|block| block.records).sum()
    }
}

/// Reads the records of a block, each with its number.
pub(super) fn records<'a, R: Record<'a>>(
    first_number: u64,
    mut data: &'a [u8],
) -> impl Iterator<Item = Result<(u64, R), postcard::Error>> {
    let mut number = first_number;
    std::iter::from_fn(move || {
        if data.is_empty() {
            return None;
        }
        Some(
            postcard::take_from_bytes(data)
                .map(|(record, rest)| {
                    data = rest;
                    number += 1;
                    (number - 1, record)
                })
                .inspect_err(|_| data = &[]),
        )
    })
}
