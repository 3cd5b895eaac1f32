//! Linear memories in slots.

#![expect(unsafe_code, reason = "the engine asks for an unsafe trait: it trusts the memory's bounds")]

use std::sync::Arc;

use wasmtime::{LinearMemory, MemoryCreator, MemoryType};

use super::MEMORY_RESERVATION;
use super::slots::{Cells, Part, Slot, Slots};
use super::wipe::{self, Pages};

/// A slot for a memory that has outgrown a small one: it holds all that 32 bits can address, so a memory moves once, with
/// at most the bytes of a small slot. More would be a long time in which the guest cannot be interrupted.
const LARGE_SLOT_BYTES: usize = 4 << 30;
/// Large slots that are mapped in one call: 16 GiB of address space, out of 128 TiB.
const CHUNK_SLOTS: usize = 4;

/// Allocates an engine's linear memories.
pub(super) struct Memories(Arc<Sizes>);

/// Slots by size, the smallest first.
type Sizes = [Arc<Slots>; 2];

impl Memories {
    /// Memories start in slots of `small` and move to a large one when they outgrow it.
    pub(super) fn new(small: Arc<Slots>) -> Memories {
        let cells = Cells::new(LARGE_SLOT_BYTES, CHUNK_SLOTS, Pages::Huge);
        let [large] = Slots::divide(cells, [Part::plain(0..LARGE_SLOT_BYTES)]);
        Memories(Arc::new([small, large]))
    }
}

// SAFETY: A new memory is a slot of its own, zeroed, with room for `minimum` bytes. The engine is configured without
// guard pages, so its code checks every access against `byte_size`; see `install`.
unsafe impl MemoryCreator for Memories {
    fn new_memory(
        &self,
        _ty: MemoryType,
        minimum: usize,
        _maximum: Option<usize>,
        reserved: Option<usize>,
        guard: usize,
    ) -> Result<Box<dyn LinearMemory>, String> {
        if guard != 0 || reserved.is_some_and(|bytes| bytes > MEMORY_RESERVATION) {
            return Err("an arena has no guard pages and no larger reservations".to_owned());
        }
        let memory = Memory::new(&self.0, minimum).map_err(|error| format!("no address space: {error}"))?;
        Ok(Box::new(memory))
    }
}

fn take(sizes: &Sizes, bytes: usize) -> std::io::Result<Slot> {
    let fits = sizes.iter().find(|slots| bytes <= slots.slot_bytes());
    fits.ok_or_else(|| std::io::Error::other("more than 32 bits can address"))?.take()
}

/// One linear memory.
struct Memory {
    sizes: Arc<Sizes>,
    slot: Slot,
    /// Bytes that the guest may use. Memories never shrink.
    bytes: usize,
}

impl Memory {
    fn new(sizes: &Arc<Sizes>, bytes: usize) -> std::io::Result<Memory> {
        let mut memory = Memory { sizes: sizes.clone(), slot: take(sizes, bytes)?, bytes };
        memory.note_size();
        Ok(memory)
    }

    fn note_size(&mut self) {
        // SAFETY: The engine and its code write below `byte_size` only. When it grows, this is called before they can
        // write further.
        unsafe { self.slot.wipe_only(0..self.bytes) };
    }
}

// SAFETY: The memory owns its slot until it is dropped. All `byte_capacity` bytes are readable and writable, and
// `byte_size` never exceeds `byte_capacity`. The memory moves only in `grow_to`, after which the engine asks for its
// address again.
unsafe impl LinearMemory for Memory {
    fn byte_size(&self) -> usize {
        self.bytes
    }

    fn byte_capacity(&self) -> usize {
        self.slot.bytes()
    }

    fn grow_to(&mut self, bytes: usize) -> wasmtime::Result<()> {
        if bytes > self.byte_capacity() {
            let larger = take(&self.sizes, bytes)?;
            // SAFETY: This memory holds both slots, and its bytes fit into both; the new one is all zero.
            unsafe { wipe::copy(self.slot.start(), larger.start(), self.bytes) };
            self.slot = larger;
        }
        self.bytes = self.bytes.max(bytes);
        self.note_size();
        Ok(())
    }

    fn as_ptr(&self) -> *mut u8 {
        self.slot.start().as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slots;
    use super::*;

    fn memories() -> Memories {
        let [_, small] = slots();
        Memories::new(small)
    }

    fn memory(memories: &Memories, bytes: usize) -> Memory {
        Memory::new(&memories.0, bytes).unwrap()
    }

    fn bytes(memory: &mut Memory) -> &mut [u8] {
        // SAFETY: The memory is this test's alone, and its slot is readable and writable throughout.
        unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), memory.byte_size()) }
    }

    #[test]
    fn a_memory_moves_when_it_outgrows_its_slot_and_keeps_its_bytes() {
        let memories = memories();
        let mut moving = memory(&memories, 1 << 20);
        bytes(&mut moving)[5] = 42;
        let first = moving.as_ptr();
        moving.grow_to(MEMORY_RESERVATION).unwrap();
        assert_eq!(moving.as_ptr(), first, "it may not move within its reservation");
        *bytes(&mut moving).last_mut().unwrap() = 43;
        moving.grow_to(MEMORY_RESERVATION + 1).unwrap();
        assert_ne!(moving.as_ptr(), first);
        assert_eq!(
            (bytes(&mut moving)[5], bytes(&mut moving)[MEMORY_RESERVATION - 1], bytes(&mut moving)[MEMORY_RESERVATION]),
            (42, 43, 0)
        );
        let mut next = memory(&memories, MEMORY_RESERVATION);
        assert_eq!(next.as_ptr(), first);
        assert!(bytes(&mut next).iter().all(|byte| *byte == 0), "what moved away is wiped");
    }

    #[test]
    fn all_that_a_function_may_have_fits_and_more_is_refused() {
        let memories = memories();
        let mut largest = memory(&memories, 0);
        largest.grow_to(4096 << 20).unwrap();
        bytes(&mut largest)[(4096 << 20) - 1] = 1;
        assert!(largest.grow_to((4096 << 20) + 1).is_err());
    }

    #[test]
    fn what_was_never_written_takes_no_memory_when_a_memory_moves() {
        let memories = memories();
        let mut moving = memory(&memories, 48 << 20);
        bytes(&mut moving)[40 << 20] = 1;
        let resident = crate::machine::resident_bytes;
        let before = resident();
        moving.grow_to(MEMORY_RESERVATION + 1).unwrap();
        assert_eq!(bytes(&mut moving)[40 << 20], 1);
        assert!(resident() < before + (24 << 20), "untouched memory was copied");
    }
}
