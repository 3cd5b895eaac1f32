//! Fibers' stacks in slots, each with a guard below it.

#![expect(unsafe_code, reason = "the engine asks for an unsafe trait: it runs guests and host calls on these stacks")]

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, LazyLock};

use wasmtime::{StackCreator, StackMemory};

use super::slots::{Part, Slot, Slots};
use super::wipe;

/// Bytes at the lower end of each slot that nobody may touch.
pub(super) const GUARD_BYTES: usize = 16 << 10;

/// `MADV_GUARD_INSTALL` of Linux 6.13: pages that fault, without a map of their own.
const GUARD_INSTALL: i32 = 102;

/// Allocates an engine's stacks.
pub(super) struct Stacks(Arc<Slots>);

impl Stacks {
    /// Stacks in slots that [`part`] prepared.
    pub(super) fn new(slots: Arc<Slots>) -> Stacks {
        Stacks(slots)
    }
}

/// The part of a cell that is a stack.
pub(super) fn part(within: Range<usize>) -> Part {
    Part { within, prepare: install_guard }
}

/// True if guards need no kernel maps of their own.
pub(super) fn guards_are_free() -> bool {
    static FREE: LazyLock<bool> = LazyLock::new(|| {
        let page = wipe::map(GUARD_BYTES, wipe::Pages::Small);
        // SAFETY: The pages were mapped for this and are used for nothing else.
        page.is_ok_and(|page| unsafe { wipe::advise(page.as_ptr().cast(), GUARD_BYTES, GUARD_INSTALL) }.is_ok())
    });
    *FREE
}

/// Makes the lower end of a slot unusable.
///
/// # Safety
///
/// A slot of at least `GUARD_BYTES` begins at `slot`, and nobody uses it yet.
unsafe fn install_guard(slot: NonNull<u8>) -> std::io::Result<()> {
    let start = slot.as_ptr().cast();
    // SAFETY: These are whole pages of the slot, which nobody uses yet.
    unsafe {
        if guards_are_free() {
            wipe::advise(start, GUARD_BYTES, GUARD_INSTALL)
        } else {
            wipe::protect(start, GUARD_BYTES)
        }
    }
}

// SAFETY: Each stack is a slot of its own: zeroed, whole pages, with a guard at its lower end that stays until the
// process ends.
unsafe impl StackCreator for Stacks {
    fn new_stack(&self, size: usize, _zeroed: bool) -> wasmtime::Result<Box<dyn StackMemory>> {
        wasmtime::ensure!(
            size <= self.0.slot_bytes() - GUARD_BYTES,
            "a stack of {size} bytes does not fit into a slot"
        );
        let mut slot = self.0.take()?;
        let stack = GUARD_BYTES..slot.bytes();
        // SAFETY: Nobody can write to the guard.
        unsafe { slot.wipe_only(stack) };
        Ok(Box::new(Stack { slot }))
    }
}

/// One stack.
struct Stack {
    slot: Slot,
}

impl Stack {
    fn at(&self, offset: usize) -> *mut u8 {
        self.slot.start().as_ptr().wrapping_add(offset)
    }
}

// SAFETY: The ranges are parts of the slot, which this stack owns until it is dropped.
unsafe impl StackMemory for Stack {
    fn top(&self) -> *mut u8 {
        self.at(self.slot.bytes())
    }

    fn range(&self) -> Range<usize> {
        self.at(GUARD_BYTES) as usize..self.at(self.slot.bytes()) as usize
    }

    fn guard_range(&self) -> Range<*mut u8> {
        self.at(0)..self.at(GUARD_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{STACK_BYTES, slots};
    use super::*;

    fn stacks() -> Stacks {
        let [stacks, _] = slots();
        Stacks::new(stacks)
    }

    #[test]
    fn a_stack_that_is_used_again_shows_nothing_of_the_former_tenant() {
        let stacks = stacks();
        let used = stacks.new_stack(STACK_BYTES, true).unwrap();
        let range = used.range();
        // SAFETY: The stack is this test's alone.
        let bytes =
            |range: &Range<usize>| unsafe { std::slice::from_raw_parts_mut(range.start as *mut u8, range.len()) };
        bytes(&range)[range.len() - 5000..].fill(0xa5);
        bytes(&range)[0] = 1; // The deepest byte.
        drop(used);
        let again = stacks.new_stack(STACK_BYTES, true).unwrap();
        assert_eq!(again.range(), range);
        assert!(bytes(&range).iter().all(|byte| *byte == 0));
    }

    /// True if `address` is not writable. The kernel reports that as an error, which does not stop the test.
    fn faults(address: *mut u8) -> bool {
        let zeros = std::fs::File::open("/dev/zero").unwrap();
        // SAFETY: The kernel writes one byte to a stack of this test's own, or refuses.
        let read = unsafe { libc::read(std::os::fd::AsRawFd::as_raw_fd(&zeros), address.cast(), 1) };
        read == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EFAULT)
    }

    #[test]
    fn the_guard_stops_whoever_runs_off_the_stack_and_stays_when_the_slot_is_used_again() {
        let stacks = stacks();
        for _ in 0..2 {
            let stack = stacks.new_stack(STACK_BYTES, true).unwrap();
            let guard = stack.guard_range();
            assert!(faults(guard.start) && faults(guard.end.wrapping_sub(1)));
            assert!(!faults(guard.end) && !faults(stack.top().wrapping_sub(1)));
        }
    }

    #[test]
    fn older_kernels_guard_by_protection() {
        let [_, unguarded] = slots();
        let slot = unguarded.take().unwrap();
        let start = slot.start().as_ptr();
        // SAFETY: The slot is this test's alone.
        unsafe { wipe::protect(start.cast(), GUARD_BYTES) }.unwrap();
        assert!(faults(start) && faults(start.wrapping_add(GUARD_BYTES - 1)));
        assert!(!faults(start.wrapping_add(GUARD_BYTES)));
        std::mem::forget(slot); // It cannot be wiped any more.
    }
}
