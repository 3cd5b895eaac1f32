//! Memory for instances: linear memories and stacks as slots of a few large mappings.
//!
//! The kernel allows a process some 65,000 maps, and an instance that maps its own memory and stack takes several. Here
//! slots of one size lie side by side in one mapping, so that the number of maps does not grow with that of instances.
//! A slot that comes back is wiped before anybody else gets it.

mod memory;
mod slots;
mod stack;
mod wipe;

use std::sync::Arc;

use wasmtime::Config;

use self::memory::Memories;
use self::stack::Stacks;

/// Bytes of address space of a small memory. What grows beyond it moves to a larger slot; up to it, it stays in place,
/// which the engine relies on for memories that are declared not to grow further.
const MEMORY_RESERVATION: usize = 64 << 20;
/// Bytes of a fiber's stack: the guest's and room for the host calls on top.
const STACK_BYTES: usize = (1 << 20) - stack::GUARD_BYTES;

/// Makes an engine take all memories and stacks from an arena of its own.
pub(super) fn install(config: &mut Config) {
    config
        .with_host_memory(Arc::new(Memories::new()))
        .with_host_stack(Arc::new(Stacks::new()))
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

/// Kernel maps that an instance of an arena adds.
pub(super) fn maps_per_instance() -> u64 {
    // Without lightweight guards each stack's guard splits the mapping.
    if stack::guards_are_free() { 0 } else { 2 }
}
