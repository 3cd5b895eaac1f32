//! [`Slots`]: equal pieces of address space, each with one holder at a time.

#![expect(unsafe_code, reason = "holders use slots as raw memory, so what they must not do cannot be checked")]

use std::io::{Error, Result};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wipe::{self, Pages, Wiped};

/// At most this many wiped slots keep their pages for the next instance. Others return them to the kernel.
const WARM_MAX: usize = 64;

/// Equal pieces of address space, mapped many at a time. Never unmapped, so that addresses in them stay valid.
pub(super) struct Cells {
    bytes: usize,
    /// Cells that are mapped in one call.
    in_chunk: usize,
    pages: Pages,
    chunks: Mutex<Vec<Start>>,
}

/// A part of each cell that is a slot.
pub(super) struct Part {
    /// The slot's range within the cell.
    pub(super) within: Range<usize>,
    /// Prepares the slot at `start` before its first use.
    pub(super) prepare: unsafe fn(start: NonNull<u8>) -> Result<()>,
}

/// Slots of one size, one per cell: zeroed, readable and writable, except for what `Part::prepare` made unusable.
pub(super) struct Slots {
    cells: Arc<Cells>,
    part: Part,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// Slots whose pages are in memory, all zero.
    warm: Vec<Start>,
    /// Slots without pages.
    cold: Vec<Start>,
    /// Cells whose slot was taken at least once.
    carved: usize,
}

/// One slot and its only holder. Dropping it wipes the slot, which may then be taken again.
pub(super) struct Slot {
    slots: Arc<Slots>,
    start: Start,
    /// The range to wipe: the whole slot, unless `wipe_only` narrows it.
    written: Range<usize>,
}

/// The address of a slot or a chunk. Not `Copy`, so that it is in only one place at a time, a list or a `Slot`.
struct Start(NonNull<u8>);

// SAFETY: It is the address of memory that belongs to the process until the process ends. It is valid on every thread.
unsafe impl Send for Start {}

// SAFETY: A shared reference gives access to the address only.
unsafe impl Sync for Start {}

impl Cells {
    pub(super) fn new(bytes: usize, in_chunk: usize, pages: Pages) -> Cells {
        Cells { bytes, in_chunk, pages, chunks: Mutex::default() }
    }

    fn start(&self, index: usize) -> Result<NonNull<u8>> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        while chunks.len() <= index / self.in_chunk {
            chunks.push(Start(wipe::map(self.bytes * self.in_chunk, self.pages)?));
        }
        let start = chunks[index / self.in_chunk].0.as_ptr().wrapping_add(index % self.in_chunk * self.bytes);
        NonNull::new(start).ok_or_else(|| Error::other("a cell at address zero"))
    }
}

impl Part {
    /// A slot that needs no preparation.
    pub(super) fn plain(within: Range<usize>) -> Part {
        Part { within, prepare: |_| Ok(()) }
    }
}

impl Slots {
    /// Divides each cell into `parts`, which must be in order and must not overlap. Takes the cells by value, so that
    /// they cannot be divided a second time.
    pub(super) fn divide<const N: usize>(cells: Cells, parts: [Part; N]) -> [Arc<Slots>; N] {
        let ends = parts.iter().map(|part| part.within.end);
        let starts = parts.iter().skip(1).map(|part| part.within.start).chain([cells.bytes]);
        assert!(ends.zip(starts).all(|(end, next)| end <= next), "slots overlap");
        let cells = Arc::new(cells);
        parts.map(|part| Arc::new(Slots { cells: cells.clone(), part, free: Mutex::default() }))
    }

    pub(super) fn slot_bytes(&self) -> usize {
        self.part.within.len()
    }

    /// Takes a slot full of zeros.
    pub(super) fn take(self: &Arc<Slots>) -> Result<Slot> {
        let start = self.take_start()?;
        Ok(Slot { slots: self.clone(), start, written: 0..self.slot_bytes() })
    }

    fn take_start(&self) -> Result<Start> {
        let mut free = self.lock();
        if let Some(start) = free.warm.pop().or_else(|| free.cold.pop()) {
            return Ok(start);
        }
        let cell = self.cells.start(free.carved)?;
        free.carved += 1;
        drop(free);
        let start = cell.as_ptr().wrapping_add(self.part.within.start);
        let start = NonNull::new(start).ok_or_else(|| Error::other("a slot at address zero"))?;
        // SAFETY: No other call gets this cell number, and parts do not overlap, so nobody else has or will get these
        // bytes.
        unsafe { (self.part.prepare)(start) }?;
        Ok(Start(start))
    }

    /// Takes a slot back. Wipes the `written` range without holding the lock.
    ///
    /// # Safety
    ///
    /// The slot was taken from `self`, `written` lies within it, and nobody uses it any more.
    unsafe fn put(&self, start: Start, written: Range<usize>) {
        let keep = self.lock().warm.len() < WARM_MAX;
        // SAFETY: As the caller promises. Slots lie in a mapping that is writable except for what holders know not to
        // write.
        match unsafe { wipe::wipe(start.0, written, keep) } {
            Wiped::Warm => self.lock().warm.push(start),
            Wiped::Cold => self.lock().cold.push(start),
            // The slot is never taken again, so nobody sees its contents.
            Wiped::Failed(error) => tracing::error!(%error, "cannot wipe memory of an instance; it is given up"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start.0
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.slot_bytes()
    }

    /// Sets which bytes are wiped when the slot is dropped.
    ///
    /// # Safety
    ///
    /// No other byte of the slot was or will be written before the next call, or before the slot is dropped. Otherwise
    /// the next holder would see what was left there.
    pub(super) unsafe fn wipe_only(&mut self, written: Range<usize>) {
        assert!(written.start <= written.end && written.end <= self.bytes(), "beyond the slot");
        self.written = written;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: The slot's only holder gives it up, and `wipe_only` checks its range.
        unsafe { self.slots.put(Start(self.start.0), self.written.clone()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn slots() -> Arc<Slots> {
        let [slots] = Slots::divide(Cells::new(3 << 20, 4, Pages::Small), [Part::plain(1 << 20..2 << 20)]);
        slots
    }

    fn bytes(slot: &mut Slot) -> &mut [u8] {
        // SAFETY: The slot is readable and writable throughout, and borrowed for as long as its bytes are used.
        unsafe { std::slice::from_raw_parts_mut(slot.start().as_ptr(), slot.bytes()) }
    }

    /// Writes to each of `pages` of a slot, drops it, takes a slot again, and checks that all of it is zero.
    fn used_and_taken_again(pages: impl Iterator<Item = usize> + Clone) {
        let slots = slots();
        let mut slot = slots.take().unwrap();
        let start = slot.start();
        for page in pages.clone() {
            bytes(&mut slot)[page * PAGE + 7..page * PAGE + 60].fill(0xa5);
        }
        let most = pages.max().unwrap();
        // SAFETY: No page was written after the last one.
        unsafe { slot.wipe_only(0..(most + 1) * PAGE) };
        drop(slot);
        let mut again = slots.take().unwrap();
        assert_eq!(again.start(), start, "the last one given back is taken first");
        assert!(bytes(&mut again).iter().all(|byte| *byte == 0), "a former tenant's bytes");
    }

    #[test]
    fn a_slot_that_was_used_shows_nothing_of_it() {
        used_and_taken_again([0, 5, 6, 7, 100].into_iter());
        used_and_taken_again(0..256); // More pages than are overwritten with zeros.
        used_and_taken_again((0..256).step_by(2)); // More stretches than one scan reports.
    }

    #[test]
    fn slots_do_not_overlap_and_chunks_follow_when_one_is_used_up() {
        let slots = slots();
        let taken: Vec<Slot> = (0..10).map(|_| slots.take().unwrap()).collect();
        let mut starts: Vec<usize> = taken.iter().map(|slot| slot.start().as_ptr() as usize).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= slots.slot_bytes()), "{starts:x?}");
    }

    #[test]
    #[should_panic(expected = "slots overlap")]
    fn cells_cannot_be_divided_into_slots_that_overlap() {
        let parts = [Part::plain(0..2 << 20), Part::plain(1 << 20..3 << 20)];
        Slots::divide(Cells::new(3 << 20, 4, Pages::Small), parts);
    }

    #[test]
    fn a_burst_does_not_keep_its_pages() {
        let slots = slots();
        let mut taken: Vec<Slot> = (0..WARM_MAX + 8).map(|_| slots.take().unwrap()).collect();
        for slot in &mut taken {
            bytes(slot)[0] = 1;
        }
        drop(taken);
        let free = slots.lock();
        assert_eq!((free.warm.len(), free.cold.len()), (WARM_MAX, 8));
    }
}
