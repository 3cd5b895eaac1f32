//! Readings on their way to SQLite: open windows folded into their latest reading, everything else encoded in blocks.
//!
//! Owned by the writer. It knows no SQLite and no clock. A reading leaves it only when its transaction is committed.

use std::collections::{HashMap, HashSet};

use super::block::{Block, Blocks};
use super::record::{Invocation, Window};
use crate::ids::InstanceId;
use crate::meter::{Reading, WindowReading};

/// What names a window.
pub(super) type Key = (InstanceId, u32);

/// The name of the window that `reading` is of.
pub(super) fn key(reading: &WindowReading) -> Key {
    (reading.instance, reading.sequence)
}

/// The numbers that come next in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) window_block: i64,
    pub(super) invocation_block: i64,
    pub(super) invocation: u64,
}

/// Readings that are not stored yet.
pub(super) struct Batch {
    /// Windows that have not ended.
    open: HashMap<Key, WindowReading>,
    windows: Blocks,
    /// Windows that ended, if a row may be left of the time when they were open.
    ended: HashSet<Key>,
    invocations: Blocks,
}

impl Batch {
    /// An empty one; numbers count on from those in the file.
    pub(super) fn new(numbers: Numbers) -> Batch {
        Batch {
            open: HashMap::new(),
            // Nothing refers to a window by a number.
            windows: Blocks::new(numbers.window_block, 0),
            ended: HashSet::new(),
            invocations: Blocks::new(numbers.invocation_block, numbers.invocation),
        }
    }

    /// Adds `reading`; `was_stored` says of a window whether it has a row as an open one. Returns how many earlier
    /// readings it took the place of.
    ///
    /// The readings of a window come in order, and its end, which its meter posts when it is dropped, comes last.
    pub(super) fn add(&mut self, reading: &Reading, was_stored: impl FnOnce(&Key) -> bool) -> u64 {
        match reading {
            Reading::Window(window) if window.ended => {
                let key = key(window);
                self.windows.push(&Window::from(window));
                if was_stored(&key) {
                    self.ended.insert(key);
                }
                u64::from(!self.open.is_empty() && self.open.remove(&key).is_some())
            }
            Reading::Window(window) => u64::from(self.open.insert(key(window), window.clone()).is_some()),
            Reading::Invocation(invocation) => {
                self.invocations.push(&Invocation::from(invocation));
                0
            }
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.windows.is_empty() && self.invocations.is_empty()
    }

    /// The latest readings of windows that have not ended.
    pub(super) fn open(&self) -> impl Iterator<Item = &WindowReading> {
        self.open.values()
    }

    /// Windows that ended and have a row as open ones.
    pub(super) fn ended(&self) -> impl Iterator<Item = &Key> {
        self.ended.iter()
    }

    /// Windows that ended.
    pub(super) fn windows(&mut self) -> &[Block] {
        self.windows.finished()
    }

    /// Requests that ended.
    pub(super) fn invocations(&mut self) -> &[Block] {
        self.invocations.finished()
    }

    /// Forgets everything, which is stored; how many readings it was.
    pub(super) fn forget(&mut self) -> u64 {
        let open = self.open.len() as u64;
        // A burst must not hold its memory for ever.
        (self.open, self.ended) = (HashMap::new(), HashSet::new());
        open + self.windows.forget() + self.invocations.forget()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::block::records;
    use super::super::tests::{invocation, window};
    use super::*;

    const NUMBERS: Numbers = Numbers { window_block: 1, invocation_block: 7, invocation: 40 };

    fn reading(instance: u64, executed_ms: u64, ended: bool) -> Reading {
        let instance = InstanceId::from_u64(instance);
        let executed = Duration::from_millis(executed_ms);
        Reading::Window(WindowReading { instance, executed, open: executed, ended, ..window("f") })
    }

    #[test]
    fn the_latest_reading_of_an_open_window_takes_the_place_of_the_earlier_ones() {
        let mut batch = Batch::new(NUMBERS);
        let replaced: Vec<u64> = (1..=3).map(|ms| batch.add(&reading(1, ms, false), |_| false)).collect();
        assert_eq!(replaced, [0, 1, 1]);
        assert_eq!(batch.open().map(|window| window.executed.as_millis()).collect::<Vec<_>>(), [3]);
        assert_eq!(batch.forget(), 1);
        assert!(batch.is_empty());
    }

    #[test]
    fn a_window_that_ends_is_open_no_more_and_its_row_is_to_go() {
        let mut batch = Batch::new(NUMBERS);
        batch.add(&reading(1, 1, false), |_| false);
        assert_eq!(batch.add(&reading(1, 2, true), |_| false), 1);
        batch.add(&reading(2, 2, true), |_| true);
        assert_eq!((batch.open().count(), batch.ended().count()), (0, 1));
        assert_eq!(batch.windows()[0].records, 2);
        assert_eq!(batch.forget(), 2);
    }

    #[test]
    fn records_are_numbered_on_from_those_in_the_file_and_stay_until_they_are_forgotten() {
        let mut batch = Batch::new(NUMBERS);
        let mut numbers = Vec::new();
        for round in 0..2 {
            for _ in 0..3 {
                batch.add(&Reading::Invocation(invocation("f")), |_| false);
            }
            // A transaction that failed finds the same blocks with the same numbers.
            for _ in 0..2 {
                let block = &batch.invocations()[0];
                assert_eq!((block.id, block.function.as_deref()), (7 + round, Some("f")));
            }
            let block = &batch.invocations()[0];
            let read = records::<Invocation<'_>>(block.first_number, &block.data).map(|read| read.unwrap().0);
            numbers.extend(read);
            assert_eq!(batch.forget(), 3);
        }
        assert_eq!(numbers, [40, 41, 42, 43, 44, 45]);
    }

    #[test]
    fn a_block_holds_one_hour() {
        let mut batch = Batch::new(NUMBERS);
        let now = window("f").start;
        for hours in [0, 5, 0, 5] {
            let start = now - Duration::from_secs(hours * 3600);
            batch.add(&Reading::Window(WindowReading { start, ..window("f") }), |_| false);
        }
        batch.add(&Reading::Window(WindowReading { start: now, ..window("other") }), |_| false);
        let blocks: Vec<_> = batch.windows().iter().map(|block| (block.records, block.function.as_deref())).collect();
        assert_eq!(blocks, [(3, None), (2, Some("f"))]);
    }
}
