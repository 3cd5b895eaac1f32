//! Blocks: records of one function and version that start close to each other, packed while they wait to be stored.
//!
//! The posting thread packs a reading into a block of its own shard (`intake.rs`), so that the writer has almost no
//! work per reading. Once the writer has a block, its records do not change, except that duplicates are removed.
//!
//! Each time span of [`SPAN_US`] has its own blocks. This makes pages cheap: records that start at a given time are in
//! blocks that start shortly before it.

use std::collections::HashMap;
use std::sync::Arc;

use super::rows::{Memory, WindowRow};
use super::time::to_unix_us;
use crate::ids::{FunctionName, InstanceId};
use crate::meter::{InvocationReading, Reading, WindowReading};
use crate::varint::Bytes;

/// The tables of window blocks and of invocation blocks.
pub(super) const WINDOW_BLOCKS: &str = "window_blocks";
pub(super) const INVOCATION_BLOCKS: &str = "invocation_blocks";

/// The time span of a block: two seconds, so that most commits have one block for each function.
const SPAN_US: i64 = 1 << 21;

/// A block with this many bytes takes no more records, because queries always read whole blocks.
const BYTES_MAX: usize = 64 * 1024;

/// How many of a function's blocks are tried before a new one is made. Long requests from many time spans may end at
/// once.
const TRIED_MAX: usize = 4;

/// Identifies a window.
pub(super) type Key = (InstanceId, u32);

/// The key of the window that `reading` belongs to.
pub(super) fn key(reading: &WindowReading) -> Key {
    (reading.instance, reading.sequence)
}

/// The beginning of the time span that contains `start_us`. A block stores its starts relative to this.
pub(super) fn base(start_us: i64) -> i64 {
    start_us & !(SPAN_US - 1)
}

/// The error for stored data that cannot be read.
pub(super) fn damaged(what: &str) -> rusqlite::Error {
    let corrupt = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(corrupt, Some(format!("{what} is damaged")))
}

/// No record of a block that begins at `first_us` starts as late as this.
pub(super) fn end(first_us: i64) -> i64 {
    base(first_us).saturating_add(SPAN_US)
}

/// Records that will be one row of SQLite.
pub(super) struct Block {
    pub(super) function: FunctionName,
    pub(super) version: Arc<str>,
    pub(super) first_us: i64,
    pub(super) last_us: i64,
    pub(super) count: u32,
    pub(super) rows: Vec<u8>,
    /// The windows in it; empty if it contains invocations.
    pub(super) keys: Vec<Key>,
    /// Those of its windows that were open before. Their rows are deleted in the same transaction.
    pub(super) ends: Vec<Key>,
    memory: Memory<'static>,
    /// The block of the same function before this one, in [`Blocks`].
    earlier: Option<usize>,
}

impl Block {
    /// An empty block for the time span that contains `start_us`.
    pub(super) fn new(function: FunctionName, version: Arc<str>, start_us: i64) -> Block {
        Block {
            function,
            version,
            first_us: start_us,
            last_us: start_us,
            count: 0,
            rows: Vec::new(),
            keys: Vec::new(),
            ends: Vec::new(),
            memory: Memory::default(),
            earlier: None,
        }
    }

    fn takes(&self, function: &FunctionName, version: &str, start_us: i64) -> bool {
        base(start_us) == base(self.first_us)
            && self.rows.len() < BYTES_MAX
            && self.function == *function
            && *self.version == *version
    }

    pub(super) fn add_window(&mut self, row: &WindowRow) {
        self.memory.put_window(row, base(self.first_us), &mut self.rows);
        self.keys.push((row.instance, row.sequence));
        self.count(row.start_us);
    }

    fn add_invocation(&mut self, reading: &InvocationReading, start_us: i64) {
        self.memory.put_invocation(reading, base(self.first_us), &mut self.rows);
        self.count(start_us);
    }

    fn count(&mut self, start_us: i64) {
        self.first_us = self.first_us.min(start_us);
        self.last_us = self.last_us.max(start_us);
        self.count += 1;
    }

    /// The same block without the windows at `places`.
    pub(super) fn without(self, places: &[usize]) -> Block {
        let mut rest = Block::new(self.function, self.version, self.last_us);
        rest.ends = self.ends;
        let mut rows = Rows::new(&self.rows, self.first_us);
        let mut place = 0;
        while let Some(row) = rows.window() {
            if !places.contains(&place) {
                rest.add_window(&row);
            }
            place += 1;
        }
        rest
    }
}

/// Reads the rows of a block in their order.
pub(super) struct Rows<'a> {
    memory: Memory<'a>,
    base_us: i64,
    bytes: Bytes<'a>,
}

impl<'a> Rows<'a> {
    /// The rows of the block that begins at `first_us`.
    pub(super) fn new(rows: &'a [u8], first_us: i64) -> Rows<'a> {
        Rows { memory: Memory::default(), base_us: base(first_us), bytes: Bytes(rows) }
    }

    /// The next window. `None` at the end, or where the block is damaged.
    pub(super) fn window(&mut self) -> Option<WindowRow> {
        let mut bytes = self.bytes;
        let row = self.memory.take_window(self.base_us, &mut bytes)?;
        self.bytes = bytes;
        Some(row)
    }

    /// The next invocation. `None` at the end, or where the block is damaged.
    pub(super) fn invocation(&mut self) -> Option<super::rows::InvocationRow<'a>> {
        let mut bytes = self.bytes;
        let row = self.memory.take_invocation(self.base_us, &mut bytes)?;
        self.bytes = bytes;
        Some(row)
    }

    /// True if nothing is left, so the block is not damaged.
    pub(super) fn are_read(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Blocks that still take records.
#[derive(Default)]
struct Blocks {
    blocks: Vec<Block>,
    /// The newest block of each function.
    newest: HashMap<FunctionName, usize>,
    /// The block that took the last record, which is likely to take the next.
    last: usize,
}

impl Blocks {
    fn block(&mut self, function: &FunctionName, version: &Arc<str>, start_us: i64) -> Option<&mut Block> {
        if !self.blocks.get(self.last).is_some_and(|block| block.takes(function, version, start_us)) {
            self.last = self.place(function, version, start_us);
        }
        self.blocks.get_mut(self.last)
    }

    fn place(&mut self, function: &FunctionName, version: &Arc<str>, start_us: i64) -> usize {
        let newest = self.newest.get(function).copied();
        let mut tried = std::iter::successors(newest, |place| self.blocks.get(*place)?.earlier).take(TRIED_MAX);
        let takes =
            |place: &usize| self.blocks.get(*place).is_some_and(|block| block.takes(function, version, start_us));
        if let Some(place) = tried.find(takes) {
            return place;
        }
        let place = self.blocks.len();
        let block = Block::new(function.clone(), version.clone(), start_us);
        self.blocks.push(Block { earlier: newest, ..block });
        self.newest.insert(function.clone(), place);
        place
    }
}

/// What waits in one shard. `add` is called from `Drop`, so it cannot panic.
#[derive(Default)]
pub(super) struct Waiting {
    ended: Blocks,
    invocations: Blocks,
    open: Vec<WindowReading>,
}

/// What waited in one shard, for the writer.
pub(super) struct Taken {
    /// Blocks of windows that ended.
    pub(super) ended: Vec<Block>,
    /// Blocks of invocations.
    pub(super) invocations: Vec<Block>,
    /// Windows that had not ended.
    pub(super) open: Vec<WindowReading>,
}

impl Waiting {
    pub(super) fn add(&mut self, reading: Reading<'_>) {
        match reading {
            Reading::Window(window) if window.ended => {
                let row = WindowRow::from(window);
                if let Some(block) = self.ended.block(&window.function, &window.version, row.start_us) {
                    block.add_window(&row);
                }
            }
            Reading::Window(window) => self.open.push(window.clone()),
            Reading::Invocation(invocation) => {
                let start_us = to_unix_us(invocation.start);
                if let Some(block) = self.invocations.block(&invocation.function, &invocation.version, start_us) {
                    block.add_invocation(invocation, start_us);
                }
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ended.blocks.is_empty() && self.invocations.blocks.is_empty()
    }

    pub(super) fn into_taken(self) -> Taken {
        Taken { ended: self.ended.blocks, invocations: self.invocations.blocks, open: self.open }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::tests::{invocation, window};
    use super::*;

    /// The beginning of a time span.
    const BEGIN_US: i64 = 1000 * SPAN_US;

    fn reading(function: &str, start_us: i64) -> InvocationReading {
        let start = UNIX_EPOCH + Duration::from_micros(start_us.unsigned_abs());
        InvocationReading { start, ..invocation(function) }
    }

    fn blocks(readings: &[InvocationReading]) -> Vec<Block> {
        let mut waiting = Waiting::default();
        readings.iter().for_each(|reading| waiting.add(Reading::Invocation(reading)));
        waiting.into_taken().invocations
    }

    #[test]
    fn records_share_a_block_if_they_share_function_version_and_time() {
        let other = InvocationReading { version: "2".into(), ..reading("f", BEGIN_US) };
        let mut readings = vec![reading("f", BEGIN_US), reading("g", BEGIN_US), other];
        readings.push(reading("f", BEGIN_US - 1));
        readings.push(reading("f", BEGIN_US + SPAN_US - 1));
        readings.push(reading("g", BEGIN_US + 5));
        let blocks = blocks(&readings);
        let heads: Vec<_> = blocks
            .iter()
            .map(|block| (block.function.as_str(), &*block.version, block.first_us - BEGIN_US, block.count))
            .collect();
        assert_eq!(heads, [("f", "LATEST", 0, 2), ("g", "LATEST", 0, 2), ("f", "2", 0, 1), ("f", "LATEST", -1, 1)]);
        assert_eq!((blocks[0].last_us, blocks[1].last_us), (BEGIN_US + SPAN_US - 1, BEGIN_US + 5));
        for block in &blocks {
            assert_eq!(base(block.first_us), base(block.last_us));
        }
    }

    #[test]
    fn records_in_a_block_need_no_order() {
        let starts = [7, 3, 9].map(|us| BEGIN_US + us);
        let blocks = blocks(&starts.map(|start_us| reading("f", start_us)));
        assert_eq!((blocks[0].first_us, blocks[0].last_us), (starts[1], starts[2]));
        let mut rows = Rows::new(&blocks[0].rows, blocks[0].first_us);
        for start_us in starts {
            assert_eq!(rows.invocation().unwrap().start_us, start_us);
        }
        assert!(rows.are_read());
    }

    #[test]
    fn a_full_block_is_followed_by_another() {
        let many: Vec<InvocationReading> = (0..10_000).map(|_| reading("f", BEGIN_US)).collect();
        let blocks = blocks(&many);
        assert_eq!(blocks.iter().map(|block| block.count).sum::<u32>(), 10_000);
        assert!((3..10).contains(&blocks.len()), "{}", blocks.len());
        for block in blocks {
            assert!(block.rows.len() < BYTES_MAX + 100);
        }
    }

    #[test]
    fn a_block_without_some_windows_has_the_others() {
        let mut waiting = Waiting::default();
        let windows: Vec<WindowReading> = (0..4).map(|_| window("f")).collect();
        windows.iter().for_each(|window| waiting.add(Reading::Window(window)));
        let mut taken = waiting.into_taken();
        let mut block = taken.ended.remove(0);
        block.ends = vec![key(&windows[1])];
        let rest = block.without(&[0, 2]);
        assert_eq!((rest.count, rest.keys), (2, vec![key(&windows[1]), key(&windows[3])]));
        assert_eq!(rest.ends, [key(&windows[1])]);
        let mut rows = Rows::new(&rest.rows, rest.first_us);
        assert_eq!(rows.window(), Some(WindowRow::from(&windows[1])));
        assert_eq!(rows.window(), Some(WindowRow::from(&windows[3])));
        assert!(rows.are_read());
    }
}
