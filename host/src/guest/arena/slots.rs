//! [`Slots`]: equal pieces of address space, taken and given back.

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::wipe::{self, Wiped};

/// Wiped slots whose pages are kept for the next instance; others give them back to the kernel.
const WARM_MAX: usize = 64;

/// Slots of one size, all alike: zeroed, readable and writable.
pub(super) struct Slots {
    slot_bytes: usize,
    /// Slots that are mapped together.
    chunk_slots: usize,
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
    /// What was mapped last and was never taken.
    fresh: Vec<Slot>,
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

impl Slots {
    pub(super) const fn new(
        slot_bytes: usize,
        chunk_slots: usize,
        prepare: fn(NonNull<u8>) -> std::io::Result<()>,
    ) -> Slots {
        let free = Free { warm: Vec::new(), cold: Vec::new(), fresh: Vec::new() };
        Slots { slot_bytes, chunk_slots, prepare, free: Mutex::new(free) }
    }

    pub(super) fn slot_bytes(&self) -> usize {
        self.slot_bytes
    }

    /// A slot full of zeros.
    pub(super) fn take(&self) -> std::io::Result<Slot> {
        let mut free = self.lock();
        if let Some(slot) = free.warm.pop().or_else(|| free.cold.pop()) {
            return Ok(slot);
        }
        if free.fresh.is_empty() {
            self.map_chunk(&mut free)?;
        }
        let slot = free.fresh.pop().ok_or_else(|| std::io::Error::other("a chunk has no slots"))?;
        drop(free);
        (self.prepare)(slot.0)?;
        Ok(slot)
    }

    /// Takes back a slot whose bytes from `from` to `to` may have been written.
    pub(super) fn put(&self, slot: Slot, from: usize, to: usize) {
        debug_assert!(from <= to && to <= self.slot_bytes);
        let keep = self.lock().warm.len() < WARM_MAX;
        // Wiped by whoever gives it back, outside of the lock.
        match wipe::wipe(slot.0, from, to, keep) {
            Wiped::Warm => self.lock().warm.push(slot),
            Wiped::Cold => self.lock().cold.push(slot),
            // Whatever is in it, nobody will see it: it is never given out again.
            Wiped::Failed(error) => tracing::error!(%error, "cannot wipe memory of an instance; it is given up"),
        }
    }

    fn map_chunk(&self, free: &mut Free) -> std::io::Result<()> {
        let bytes = self.slot_bytes * self.chunk_slots;
        let chunk = wipe::map(bytes)?;
        // The lowest is taken first.
        for index in (0..self.chunk_slots).rev() {
            let start = chunk.as_ptr().wrapping_add(index * self.slot_bytes);
            free.fresh.extend(NonNull::new(start).map(Slot));
        }
        Ok(())
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
        Slots::new(1 << 20, 4, |_| Ok(()))
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
