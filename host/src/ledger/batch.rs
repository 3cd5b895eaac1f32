//! Readings on their way to SQLite, with the readings of one window folded into the latest.
//!
//! Owned by the writer. It keeps the order in which windows and invocations first came, and knows no SQLite and no
//! clock. A reading leaves it only when its transaction is committed.

use std::collections::{HashMap, VecDeque};

use crate::ids::InstanceId;
use crate::meter::{InvocationReading, Reading, WindowReading};

/// What names a window.
pub(super) type Key = (InstanceId, u32);

/// The name of the window that `reading` is of.
pub(super) fn key(reading: &WindowReading) -> Key {
    (reading.instance, reading.sequence)
}

/// Rows from the front of a [`Batch`] that go into one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) windows: usize,
    pub(super) invocations: usize,
}

/// Readings that are not stored yet.
#[derive(Default)]
pub(super) struct Batch {
    windows: VecDeque<WindowReading>,
    /// The place of each window in `windows`, counted from the first window that was ever added.
    places: HashMap<Key, u64>,
    /// The place of the front of `windows`.
    first: u64,
    invocations: VecDeque<InvocationReading>,
}

impl Batch {
    /// Adds `reading`; false if it was folded into one that is here already.
    pub(super) fn add(&mut self, reading: Reading) -> bool {
        match reading {
            Reading::Window(window) => self.add_window(window),
            Reading::Invocation(invocation) => {
                self.invocations.push_back(invocation);
                true
            }
        }
    }

    fn add_window(&mut self, window: WindowReading) -> bool {
        let next = self.first + self.windows.len() as u64;
        let place = *self.places.entry(key(&window)).or_insert(next);
        if place == next {
            self.windows.push_back(window);
            return true;
        }
        let known = &mut self.windows[(place - self.first) as usize];
        if progress(&window) >= progress(known) {
            *known = window;
        }
        false
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty() && self.invocations.is_empty()
    }

    /// The next transaction: at most `rows_max` rows, the windows first.
    pub(super) fn chunk(&self, rows_max: usize) -> Chunk {
        let windows = self.windows.len().min(rows_max);
        Chunk { windows, invocations: self.invocations.len().min(rows_max - windows) }
    }

    /// Whether `chunk` is all that waits.
    pub(super) fn is_whole(&self, chunk: Chunk) -> bool {
        chunk.windows == self.windows.len() && chunk.invocations == self.invocations.len()
    }

    /// The windows of `chunk`.
    pub(super) fn windows(&self, chunk: Chunk) -> impl Iterator<Item = &WindowReading> {
        self.windows.iter().take(chunk.windows)
    }

    /// The invocations of `chunk`.
    pub(super) fn invocations(&self, chunk: Chunk) -> impl Iterator<Item = &InvocationReading> {
        self.invocations.iter().take(chunk.invocations)
    }

    /// Forgets `chunk`, which is stored.
    pub(super) fn forget(&mut self, chunk: Chunk) {
        for window in self.windows.drain(..chunk.windows) {
            self.places.remove(&key(&window));
        }
        self.first += chunk.windows as u64;
        self.invocations.drain(..chunk.invocations);
        if self.is_empty() {
            // A burst must not hold its memory for ever.
            *self = Batch { first: self.first, ..Batch::default() };
        }
    }
}

/// Orders the readings of one window by age. Every figure is a total that only grows, so the order needs no clock, and
/// an ended reading comes after all others. `store.rs` compares rows in the same way.
fn progress(reading: &WindowReading) -> impl Ord + use<> {
    let times = (reading.open, reading.executed, reading.duration);
    (reading.ended, times, reading.requests, reading.hook_calls, reading.memory_bytes_peak)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{invocation, window};
    use super::*;

    const ALL: Chunk = Chunk { windows: usize::MAX, invocations: usize::MAX };

    fn executed_ms(batch: &Batch) -> Vec<u128> {
        batch.windows(ALL).map(|window| window.executed.as_millis()).collect()
    }

    fn reading(instance: u64, executed_ms: u64, ended: bool) -> Reading {
        let instance = InstanceId::from_u64(instance);
        let executed = Duration::from_millis(executed_ms);
        Reading::Window(WindowReading { instance, executed, open: executed, ended, ..window("f") })
    }

    #[test]
    fn the_latest_reading_of_a_window_wins_in_any_order() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let mut batch = Batch::default();
            let added: Vec<bool> = order.iter().map(|&ms| batch.add(reading(1, ms, false))).collect();
            assert_eq!(added, [true, false, false]);
            assert_eq!(executed_ms(&batch), [3]);
        }
    }

    #[test]
    fn an_ended_reading_wins_over_any_that_is_not() {
        for order in [[true, false], [false, true]] {
            let mut batch = Batch::default();
            for ended in order {
                batch.add(reading(1, if ended { 5 } else { 9 }, ended));
            }
            assert_eq!(executed_ms(&batch), [5]);
        }
    }

    #[test]
    fn windows_keep_their_places_when_earlier_ones_are_stored() {
        let mut batch = Batch::default();
        for instance in 1..=4 {
            assert!(batch.add(reading(instance, instance, false)));
        }
        batch.forget(Chunk { windows: 2, invocations: 0 });
        assert!(!batch.add(reading(4, 40, true)));
        assert!(batch.add(reading(1, 10, true)), "the stored window is here again");
        assert_eq!(executed_ms(&batch), [3, 40, 10]);
    }

    #[test]
    fn chunks_are_bounded_and_windows_go_first() {
        let mut batch = Batch::default();
        for number in 0..5 {
            batch.add(Reading::Invocation(invocation("f")));
            batch.add(reading(number, 1, true));
        }
        assert_eq!(batch.chunk(3), Chunk { windows: 3, invocations: 0 });
        let chunk = batch.chunk(7);
        assert_eq!(chunk, Chunk { windows: 5, invocations: 2 });
        assert!(!batch.is_whole(chunk));
        batch.forget(chunk);
        assert!(batch.is_whole(batch.chunk(3)) && !batch.is_empty());
    }
}
