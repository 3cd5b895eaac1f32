//! Memory for instances: linear memories and stacks as slots of a few large mappings.
//!
//! The kernel allows a process some 65,000 maps, and an instance that maps its own memory and stack takes several. Here
//! slots of one size lie side by side in one mapping, so that the number of maps does not grow with that of instances.
//! A slot that comes back is wiped before anybody else gets it.
//!
//! A stack and a small memory lie in one cell, so that what an instance touches of both is covered by one page of page
//! tables, 4 KiB: toolchains place a guest's own stack into the first MiB of its memory, growing downwards, and data and
//! heap behind. Whose stack and whose memory share a cell is chance. Measured: 4.3 KiB of page tables an instance, and
//! 6.3 with stacks and memories in mappings apart from each other.
//!
//! ```text
//! 0 KiB    16 KiB             832 KiB                  1856 KiB          2 MiB         64 MiB + 832 KiB
//! | guard  | stack, downwards | memory: guest's stack  | data, first heap | more heap    | nothing
//! ```

mod memory;
mod slots;
mod stack;
mod wipe;

use std::ops::Range;
use std::sync::Arc;

use wasmtime::Config;

use self::memory::Memories;
use self::slots::{Cells, Part, Slots};
use self::stack::Stacks;
use self::wipe::Pages;

/// Bytes of address space of a small memory. What grows beyond it moves to a larger slot; up to it, it stays in place,
/// which the engine relies on for memories that are declared not to grow further.
const MEMORY_RESERVATION: usize = 64 << 20;
/// A stack and its guard, in a cell; the memory follows.
const STACK_SLOT: Range<usize> = 0..832 << 10;
const MEMORY_SLOT: Range<usize> = STACK_SLOT.end..STACK_SLOT.end + MEMORY_RESERVATION;
const CELL_BYTES: usize = MEMORY_RESERVATION + wipe::TABLE_BYTES;
/// Cells that are mapped together: 16 GiB of address space at a time.
const CHUNK_CELLS: usize = 248;
/// Bytes of a fiber's stack: the guest's and room for the host calls on top.
const STACK_BYTES: usize = STACK_SLOT.end - stack::GUARD_BYTES;

/// Makes an engine take all memories and stacks from an arena of its own.
pub(super) fn install(config: &mut Config) {
    let [stacks, memories] = slots();
    config
        .with_host_memory(Arc::new(Memories::new(memories)))
        .with_host_stack(Arc::new(Stacks::new(stacks)))
        .async_stack_size(STACK_BYTES)
        .memory_reservation(MEMORY_RESERVATION as u64)
        .memory_may_move(true)
        // Slots lie side by side, so nothing but the guest's own checks ends a memory.
        .memory_guard_size(0)
        .guard_before_linear_memory(false)
        .memory_reservation_for_growth(0)
        // The engine cannot map images into memory that it did not map itself.
        .memory_init_cow(false);
}

/// Slots for stacks and for small memories.
fn slots() -> [Arc<Slots>; 2] {
    let cells = Cells::new(CELL_BYTES, CHUNK_CELLS, Pages::Small);
    Slots::divide(cells, [stack::part(STACK_SLOT), Part::plain(MEMORY_SLOT)])
}

/// Kernel maps that an instance of an arena adds.
pub(super) fn maps_per_instance() -> u64 {
    // Without lightweight guards each stack's guard splits the mapping.
    if stack::guards_are_free() { 0 } else { 2 }
}
