//! [`Slots`]: equal pieces of address space, taken and given back.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wipe::{self, Pages, Wiped};

/// Wiped slots whose pages are kept for the next instance; others give them back to the kernel.
const WARM_MAX: usize = 64;

/// Equal pieces of address space, mapped many at a time. Never unmapped, so that addresses in them stay valid.
pub(super) struct Cells {
    bytes: usize,
    /// Cells that are mapped together.
    in_chunk: usize,
    pages: Pages,
    chunks: Mutex<Vec<Slot>>,
}

/// Slots of one size, one in each cell, all alike: zeroed, readable and writable.
pub(super) struct Slots {
    cells: Arc<Cells>,
    /// Where in its cell a slot lies.
    within: Range<usize>,
    /// Made unusable at the start of each slot, when it is first taken.
    prepare: fn(NonNull<u8>) -> std::io::Result<()>,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    /// With pages of zeros in memory.
    warm: Vec<Slot>,
    /// Without.
    cold: Vec<Slot>,
    /// Cells whose slot was taken at least once.
    carved: usize,
}

/// One slot's start.
#[derive(Clone, Copy)]
pub(super) struct Slot(NonNull<u8>);

#[expect(unsafe_code, reason = "an address of a mapping that is never unmapped, and that only its holder uses")]
// SAFETY: A slot is a plain address into memory that belongs to the process until it ends. Whoever holds it is the only
// one to use it, on whichever thread.
unsafe impl Send for Slot {}

#[expect(unsafe_code, reason = "as above")]
// SAFETY: Shared, it only tells its address.
unsafe impl Sync for Slot {}

impl Slot {
    pub(super) fn start(self) -> NonNull<u8> {
        self.0
    }
}

impl Cells {
    pub(super) fn new(bytes: usize, in_chunk: usize, pages: Pages) -> Arc<Cells> {
        Arc::new(Cells { bytes, in_chunk, pages, chunks: Mutex::default() })
    }

    pub(super) fn start(&self, index: usize) -> std::io::Result<NonNull<u8>> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        while chunks.len() <= index / self.in_chunk {
            chunks.push(Slot(wipe::map(self.bytes * self.in_chunk, self.pages)?));
        }
        let start = chunks[index / self.in_chunk].0.as_ptr().wrapping_add(index % self.in_chunk * self.bytes);
        NonNull::new(start).ok_or_else(|| std::io::Error::other("a cell at address zero"))
    }
}

impl Slots {
    pub(super) fn new(
        cells: Arc<Cells>,
        within: Range<usize>,
        prepare: fn(NonNull<u8>) -> std::io::Result<()>,
    ) -> Slots {
        debug_assert!(within.end <= cells.bytes);
        Slots { cells, within, prepare, free: Mutex::default() }
    }

    pub(super) fn slot_bytes(&self) -> usize {
        self.within.len()
    }

    /// A slot full of zeros.
    pub(super) fn take(&self) -> std::io::Result<Slot> {
        let mut free = self.lock();
        if let Some(slot) = free.warm.pop().or_else(|| free.cold.pop()) {
            return Ok(slot);
        }
        let cell = self.cells.start(free.carved)?;
        free.carved += 1;
        drop(free);
        let start = cell.as_ptr().wrapping_add(self.within.start);
        let slot = NonNull::new(start).map(Slot).ok_or_else(|| std::io::Error::other("a slot at address zero"))?;
        (self.prepare)(slot.0)?;
        Ok(slot)
    }

    /// Takes back a slot whose bytes from `from` to `to` may have been written.
    pub(super) fn put(&self, slot: Slot, from: usize, to: usize) {
        debug_assert!(from <= to && to <= self.slot_bytes());
        let keep = self.lock().warm.len() < WARM_MAX;
        // Wiped by whoever gives it back, outside of the lock.
        match wipe::wipe(slot.0, from, to, keep) {
            Wiped::Warm => self.lock().warm.push(slot),
            Wiped::Cold => self.lock().cold.push(slot),
            // Whatever is in it, nobody will see it: it is never given out again.
            Wiped::Failed(error) => tracing::error!(%error, "cannot wipe memory of an instance; it is given up"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    fn slots() -> Slots {
        Slots::new(Cells::new(3 << 20, 4, Pages::Small), 1 << 20..2 << 20, |_| Ok(()))
    }

    #[expect(unsafe_code, reason = "the test is about raw memory")]
    fn bytes(slots: &Slots, slot: Slot) -> &'static mut [u8] {
        // SAFETY: The slot is this test's alone, readable and writable throughout.
        unsafe { std::slice::from_raw_parts_mut(slot.start().as_ptr(), slots.slot_bytes()) }
    }

    /// Writes into each of `pages` of a slot, gives it back, and looks at all of what is given out next.
    fn used_and_taken_again(pages: impl Iterator<Item = usize> + Clone) {
        let slots = slots();
        let slot = slots.take().unwrap();
        for page in pages.clone() {
            bytes(&slots, slot)[page * PAGE + 7..page * PAGE + 60].fill(0xa5);
        }
        let most = pages.max().unwrap();
        slots.put(slot, 0, (most + 1) * PAGE);
        let again = slots.take().unwrap();
        assert_eq!(again.start(), slot.start(), "the last one given back is taken first");
        assert!(bytes(&slots, again).iter().all(|byte| *byte == 0), "a former tenant's bytes");
    }

    #[test]
    fn a_slot_that_was_used_shows_nothing_of_it() {
        used_and_taken_again([0, 5, 6, 7, 100].into_iter());
        used_and_taken_again(0..256); // More than are wiped one by one.
        used_and_taken_again((0..256).step_by(2)); // More stretches than one look at the page table tells of.
    }

    #[test]
    fn slots_do_not_overlap_and_chunks_follow_when_one_is_used_up() {
        let slots = slots();
        let mut starts: Vec<usize> = (0..10).map(|_| slots.take().unwrap().start().as_ptr() as usize).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= slots.slot_bytes()), "{starts:x?}");
    }

    #[test]
    fn a_burst_does_not_keep_its_pages() {
        let slots = slots();
        let taken: Vec<Slot> = (0..WARM_MAX + 8).map(|_| slots.take().unwrap()).collect();
        for slot in &taken {
            bytes(&slots, *slot)[0] = 1;
        }
        taken.into_iter().for_each(|slot| slots.put(slot, 0, PAGE));
        let free = slots.lock();
        assert_eq!((free.warm.len(), free.cold.len()), (WARM_MAX, 8));
    }
}
