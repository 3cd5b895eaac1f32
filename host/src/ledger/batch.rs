//! What the writer has to store: blocks as they were posted, and the latest reading of each open window.
//!
//! Owned by the writer. It knows no SQLite and no clock. A reading is removed only after its transaction is committed.
//!
//! Readings of one window may arrive in any order, because each posting thread has a shard of its own. The end of a
//! window is posted last, so a reading that arrives after it was already in a shard and arrives with the next drain at
//! the latest. [`Ended`] knows the window until then, so the reading is dropped. Of the readings that arrive before the
//! end, the one with the highest figures is the latest.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::block::{Block, Key, Taken, key};
use crate::meter::WindowReading;

/// How many keys of ended windows are kept at least, more than the order of readings requires.
const ENDED_KEPT: usize = 8192;

/// What one transaction stores: blocks from the front of a [`Batch`] and, if `open`, the open windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    windows: usize,
    invocations: usize,
    open: bool,
}

/// A window that has not ended.
struct Open {
    reading: WindowReading,
    /// It has no row, or the row of an earlier reading.
    waits: bool,
}

type Keyed<V> = HashMap<Key, V, BuildHasherDefault<KeyHasher>>;
type Keys = HashSet<Key, BuildHasherDefault<KeyHasher>>;

/// Readings that are not stored yet, and what must be known of stored ones.
#[derive(Default)]
pub(super) struct Batch {
    windows: VecDeque<Block>,
    invocations: VecDeque<Block>,
    open: Keyed<Open>,
    /// Open windows that wait to be stored; some may have ended since.
    changed: Vec<Key>,
    /// Open windows in which something is under way.
    busy: usize,
    ended: Ended,
}

impl Batch {
    /// Adds what waited in all shards. Returns how many readings were replaced by others and need not be stored.
    pub(super) fn take(&mut self, all: impl IntoIterator<Item = Taken>) -> u64 {
        let mut folded = 0;
        for taken in all {
            for block in taken.ended {
                folded += self.add_ended(block);
            }
            folded += taken.open.into_iter().map(|window| self.add_open(window)).sum::<u64>();
            self.invocations.extend(taken.invocations);
        }
        self.ended.turn();
        folded
    }

    fn add_ended(&mut self, mut block: Block) -> u64 {
        let mut folded = 0;
        let mut again = Vec::new();
        for (place, key) in block.keys.iter().enumerate() {
            if !self.ended.insert(*key) {
                again.push(place);
            } else if let Some(open) = self.open.remove(key) {
                self.busy -= usize::from(open.reading.busy);
                folded += u64::from(open.waits);
                // Even if it waits, it may have a row: that of an earlier reading, or of a commit that succeeded
                // unconfirmed.
                block.ends.push(*key);
            }
        }
        if !again.is_empty() {
            folded += again.len() as u64;
            block = block.without(&again);
        }
        if block.count > 0 {
            self.windows.push_back(block);
        }
        folded
    }

    /// Returns 1 if `window` replaces a reading that waits, or is older than the known one.
    fn add_open(&mut self, window: WindowReading) -> u64 {
        let key = key(&window);
        if self.ended.contains(&key) {
            return 1;
        }
        let Some(known) = self.open.get_mut(&key) else {
            self.busy += usize::from(window.busy);
            self.open.insert(key, Open { reading: window, waits: true });
            self.changed.push(key);
            return 0;
        };
        if progress(&window) < progress(&known.reading) {
            return 1;
        }
        self.busy += usize::from(window.busy);
        self.busy -= usize::from(known.reading.busy);
        known.reading = window;
        if std::mem::replace(&mut known.waits, true) {
            return 1;
        }
        self.changed.push(key);
        0
    }

    /// True if a request or a hook is under way in an open window.
    pub(super) fn is_busy(&self) -> bool {
        self.busy > 0
    }

    /// The next transaction: as many blocks as fit into `records_max` records, but at least one.
    pub(super) fn chunk(&self, records_max: usize) -> Chunk {
        let mut records = 0;
        let mut fit = |blocks: &VecDeque<Block>| {
            let mut fits = |block: &&Block| {
                let fits = records == 0 || records + block.count as usize <= records_max;
                records += block.count as usize;
                fits
            };
            blocks.iter().take_while(|block| fits(block)).count()
        };
        let windows = fit(&self.windows);
        Chunk { windows, invocations: fit(&self.invocations), open: !self.changed.is_empty() }
    }

    /// True if `chunk` is everything that waits.
    pub(super) fn is_whole(&self, chunk: Chunk) -> bool {
        chunk.windows == self.windows.len() && chunk.invocations == self.invocations.len()
    }

    /// True if nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.invocations.is_empty() && self.changed.is_empty()
    }

    /// The blocks of ended windows in `chunk`.
    pub(super) fn windows(&self, chunk: Chunk) -> impl Iterator<Item = &Block> {
        self.windows.iter().take(chunk.windows)
    }

    /// The blocks of invocations in `chunk`.
    pub(super) fn invocations(&self, chunk: Chunk) -> impl Iterator<Item = &Block> {
        self.invocations.iter().take(chunk.invocations)
    }

    /// The open windows in `chunk`.
    pub(super) fn open(&self, chunk: Chunk) -> impl Iterator<Item = &WindowReading> {
        let changed = self.changed.iter().take(if chunk.open { usize::MAX } else { 0 });
        changed.filter_map(|key| self.open.get(key)).map(|open| &open.reading)
    }

    /// Removes `chunk`, which is stored. Returns the number of its rows, and of its readings.
    pub(super) fn forget(&mut self, chunk: Chunk) -> (usize, u64) {
        let mut rows = chunk.windows + chunk.invocations;
        let blocks = self.windows.drain(..chunk.windows).chain(self.invocations.drain(..chunk.invocations));
        let mut readings = blocks.map(|block| u64::from(block.count)).sum();
        if chunk.open {
            for key in self.changed.drain(..) {
                if let Some(open) = self.open.get_mut(&key) {
                    open.waits = false;
                    rows += 1;
                    readings += 1;
                }
            }
        }
        if self.is_empty() {
            // The memory of a burst must not be kept for ever.
            (self.windows, self.invocations, self.changed) = Default::default();
            self.open.shrink_to(self.open.len() * 2);
        }
        (rows, readings)
    }
}

/// Orders the readings of one window by age. Every figure is a total that only grows, so the order needs no clock.
fn progress(reading: &WindowReading) -> impl Ord + use<> {
    let times = (reading.open, reading.executed, reading.duration);
    (times, reading.requests, reading.hook_calls, reading.memory_bytes_peak)
}

/// The keys of windows that ended lately: all of the last two drains, and some thousands more.
#[derive(Default)]
struct Ended {
    newer: Keys,
    older: Keys,
}

impl Ended {
    /// Adds `key`. False if it was known already.
    fn insert(&mut self, key: Key) -> bool {
        !self.older.contains(&key) && self.newer.insert(key)
    }

    fn contains(&self, key: &Key) -> bool {
        self.newer.contains(key) || self.older.contains(key)
    }

    /// Called after each drain.
    fn turn(&mut self) {
        if self.newer.len() >= ENDED_KEPT {
            std::mem::swap(&mut self.older, &mut self.newer);
            self.newer.clear();
        }
    }
}

/// Hashes a [`Key`]. A simple hash is enough, because most of a key is random, and no caller chooses it.
#[derive(Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }

    fn write_u64(&mut self, number: u64) {
        // Fibonacci hashing: multiplying by the golden ratio carries each bit to higher ones, and the rotation brings
        // them back.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::block::{Rows, Waiting};
    use super::super::tests::{invocation, window};
    use super::*;
    use crate::ids::InstanceId;
    use crate::meter::Reading;

    const ALL: usize = usize::MAX;

    fn reading(instance: u64, executed_ms: u64, ended: bool) -> WindowReading {
        let instance = InstanceId::from_u64(instance);
        let executed = Duration::from_millis(executed_ms);
        WindowReading { instance, executed, open: executed, ended, ..window("f") }
    }

    fn taken(readings: &[WindowReading]) -> Taken {
        let mut waiting = Waiting::default();
        readings.iter().for_each(|reading| waiting.add(Reading::Window(reading)));
        waiting.into_taken()
    }

    /// Executed milliseconds of the open windows that wait, and of the ended ones.
    fn executed_ms(batch: &Batch) -> (Vec<u64>, Vec<u64>) {
        let chunk = batch.chunk(ALL);
        let open = batch.open(chunk).map(|window| window.executed.as_millis() as u64).collect();
        let rows = batch.windows(chunk).flat_map(|block| {
            let mut rows = Rows::new(&block.rows, block.first_us);
            std::iter::from_fn(move || rows.window()).map(|row| row.executed_ns / 1_000_000).collect::<Vec<_>>()
        });
        (open, rows.collect())
    }

    #[test]
    fn the_latest_reading_of_an_open_window_wins_in_any_order() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            for together in [true, false] {
                let mut batch = Batch::default();
                let readings = order.map(|ms| reading(1, ms, false));
                let folded = match together {
                    true => batch.take([taken(&readings)]),
                    false => readings.iter().map(|reading| batch.take([taken(std::slice::from_ref(reading))])).sum(),
                };
                assert_eq!((folded, executed_ms(&batch)), (2, (vec![3], vec![])));
                assert_eq!(batch.forget(batch.chunk(ALL)), (1, 1));
                assert!(batch.is_empty());
            }
        }
    }

    #[test]
    fn a_window_ends_once_and_what_comes_of_it_later_is_dropped() {
        let (early, end) = (reading(1, 9, false), reading(1, 5, true));
        for order in [[&early, &end, &early, &end], [&end, &early, &end, &early]] {
            let mut batch = Batch::default();
            // Each is from another shard, so only their order here tells which was posted first.
            let folded = batch.take(order.map(|reading| taken(std::slice::from_ref(reading))));
            assert_eq!((folded, executed_ms(&batch)), (3, (vec![], vec![5])));
            batch.forget(batch.chunk(ALL));
            for late in [&early, &end] {
                assert_eq!(batch.take([taken(std::slice::from_ref(late))]), 1);
                assert!(batch.is_empty());
            }
        }
    }

    #[test]
    fn the_row_of_a_window_that_was_open_ends_with_its_block() {
        let mut batch = Batch::default();
        batch.take([taken(&[reading(1, 1, false), reading(2, 1, false)])]);
        batch.forget(batch.chunk(ALL));
        let again = reading(7, 3, true);
        batch.take([taken(std::slice::from_ref(&again))]);
        batch.forget(batch.chunk(ALL));
        batch.take([taken(&[again, reading(1, 2, true), reading(3, 2, true)])]);
        let chunk = batch.chunk(ALL);
        let blocks: Vec<&Block> = batch.windows(chunk).collect();
        assert_eq!(blocks.len(), 1);
        assert_eq!((blocks[0].count, blocks[0].ends.as_slice()), (2, &[(InstanceId::from_u64(1), 1)][..]));
        assert_eq!(executed_ms(&batch), (vec![], vec![2, 2]));
    }

    #[test]
    fn busy_windows_are_counted_until_they_are_not_or_end() {
        let mut batch = Batch::default();
        let busy = |instance, ms| WindowReading { busy: true, ..reading(instance, ms, false) };
        batch.take([taken(&[busy(1, 1), busy(1, 2), busy(2, 1)])]);
        assert!(batch.is_busy());
        batch.take([taken(&[reading(1, 3, false)])]);
        assert!(batch.is_busy());
        batch.take([taken(&[reading(2, 3, true), busy(2, 2)])]);
        assert!(!batch.is_busy());
    }

    #[test]
    fn transactions_are_bounded_and_windows_go_first() {
        let mut batch = Batch::default();
        for number in 0..5 {
            let mut waiting = Waiting::default();
            for _ in 0..3 {
                waiting.add(Reading::Invocation(&invocation("f")));
            }
            waiting.add(Reading::Window(&reading(number, 1, true)));
            waiting.add(Reading::Window(&reading(100 + number, 1, false)));
            batch.take([waiting.into_taken()]);
        }
        let sizes = |batch: &Batch, chunk| (batch.windows(chunk).count(), batch.invocations(chunk).count());
        assert_eq!(sizes(&batch, batch.chunk(1)), (1, 0));
        assert_eq!(sizes(&batch, batch.chunk(4)), (4, 0));
        let chunk = batch.chunk(11);
        assert_eq!((sizes(&batch, chunk), batch.is_whole(chunk)), ((5, 2), false));
        assert_eq!(batch.forget(chunk), (12, 16), "with five open windows");
        let chunk = batch.chunk(1);
        assert_eq!(sizes(&batch, chunk), (0, 1), "one block goes in, however large");
        batch.forget(chunk);
        assert!(batch.is_whole(batch.chunk(6)) && !batch.is_empty());
    }

    #[test]
    fn names_of_ended_windows_are_kept_for_a_drain_and_not_for_ever() {
        let mut ended = Ended::default();
        let name = |number: usize| (InstanceId::from_u64(number as u64), 1);
        for number in 0..10 * ENDED_KEPT {
            assert!(ended.insert(name(number)));
            assert!(!ended.insert(name(number)));
            if number % ENDED_KEPT == ENDED_KEPT - 1 {
                ended.turn();
                assert!(ended.contains(&name(number)) && !ended.insert(name(number)));
            }
        }
        assert!(ended.newer.len() + ended.older.len() <= 2 * ENDED_KEPT);
    }
}
