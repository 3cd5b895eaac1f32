//! Memory for instances: linear memories and stacks as slots of a few large mappings.
//!
//! The kernel allows a process some 65,000 maps, and an instance that maps its own memory and stack takes several. Here
//! slots of one size share a mapping, so the number of maps does not grow with the number of instances. A freed slot is
//! wiped before it is used again.
//!
//! A cell holds a stack and a small memory, so that the pages touched in both are covered by one 4 KiB page of page
//! tables: toolchains place a guest's own stack in the first MiB of its memory, growing downwards, with data and heap
//! after it. The stack and the memory in a cell may belong to different instances. Measured: 4.3 KiB of page tables per
//! instance, and 6.3 KiB with stacks and memories in separate mappings.
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

/// Address space of a small memory, in bytes. A memory that grows beyond this moves to a larger slot. Up to this size
/// it does not move, which the engine relies on for memories that are declared not to grow further.
const MEMORY_RESERVATION: usize = 64 << 20;
/// The stack and its guard within a cell; the memory follows.
const STACK_SLOT: Range<usize> = 0..832 << 10;
const MEMORY_SLOT: Range<usize> = STACK_SLOT.end..STACK_SLOT.end + MEMORY_RESERVATION;
const CELL_BYTES: usize = MEMORY_RESERVATION + wipe::TABLE_BYTES;
/// Cells that are mapped in one call: 16 GiB of address space.
const CHUNK_CELLS: usize = 248;
/// Bytes of a fiber's stack: the guest's stack, and room for host calls.
const STACK_BYTES: usize = STACK_SLOT.end - stack::GUARD_BYTES;

/// Makes an engine allocate all memories and stacks from its own arena.
pub(super) fn install(config: &mut Config) {
    let [stacks, memories] = slots();
    config
        .with_host_memory(Arc::new(Memories::new(memories)))
        .with_host_stack(Arc::new(Stacks::new(stacks)))
        .async_stack_size(STACK_BYTES)
        .memory_reservation(MEMORY_RESERVATION as u64)
        .memory_may_move(true)
        // Slots are adjacent, so only the bounds checks in the guest's code stop an access beyond the memory.
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

/// Kernel maps that each instance adds.
pub(super) fn maps_per_instance() -> u64 {
    // Without lightweight guards each stack's guard splits the mapping.
    if stack::guards_are_free() { 0 } else { 2 }
}
