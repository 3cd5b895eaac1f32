//! The system calls of an arena: mapping address space, and making used memory zero again.

#![expect(unsafe_code, reason = "this file is the arena's calls into the kernel")]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{Error, Result};
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::LazyLock;

/// Up to so many pages are overwritten with zeros; more are given back to the kernel at once, which costs a call and
/// interrupts the other cores that run this process.
const PAGES_MAX: usize = 64;
/// Stretches of pages that one look at the page table tells of.
const STRETCHES_MAX: usize = 32;

const PAGE_BYTES: usize = 4096;

/// `linux/fs.h`: `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// Pages that are in memory, or were and are swapped out.
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
#[derive(Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Stretch {
    start: u64,
    end: u64,
    categories: u64,
}

/// What became of a slot that was wiped.
pub(super) enum Wiped {
    /// It is zero, and its pages are in memory.
    Warm,
    /// It is zero, and has no pages.
    Cold,
    /// It is not zero.
    Failed(Error),
}

/// Maps zeroed address space for which no memory is set aside.
pub(super) fn map(bytes: usize) -> Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: A new private mapping at an address that the kernel chooses touches nothing that exists.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    // One page touched must not cost two megabytes.
    advise(start, bytes, libc::MADV_NOHUGEPAGE)?;
    NonNull::new(start.cast()).ok_or_else(|| Error::other("the kernel mapped address zero"))
}

/// Makes the bytes from `from` to `to` of the slot at `start` zero, whose holder gives it up. `keep` says whether its
/// pages may stay in memory.
pub(super) fn wipe(start: NonNull<u8>, from: usize, to: usize, keep: bool) -> Wiped {
    let first = start.as_ptr().wrapping_add(from - from % PAGE_BYTES);
    let end = start.as_ptr().wrapping_add(to.next_multiple_of(PAGE_BYTES));
    if keep && overwrite(first, end).is_some() {
        return Wiped::Warm;
    }
    match advise(first.cast(), end as usize - first as usize, libc::MADV_DONTNEED) {
        Ok(()) => Wiped::Cold,
        Err(error) => Wiped::Failed(error),
    }
}

/// Overwrites all pages that are there, if they are few.
fn overwrite(first: *mut u8, end: *mut u8) -> Option<()> {
    let mut stretches = [Stretch::default(); STRETCHES_MAX];
    let found = scan(first, end, &mut stretches)?;
    let pages: u64 = found.iter().map(|stretch| (stretch.end - stretch.start) / PAGE_BYTES as u64).sum();
    if pages > PAGES_MAX as u64 {
        return None;
    }
    for stretch in found {
        let bytes = (stretch.end - stretch.start) as usize;
        // SAFETY: The kernel reports stretches within what it was asked about: pages of a slot that is mapped readable
        // and writable, and that nobody else uses, for its holder gave it up to `wipe`.
        unsafe { std::ptr::write_bytes(stretch.start as *mut u8, 0, bytes) };
    }
    Some(())
}

/// The pages between `first` and `end` that are not known to be zero; none if they are too many stretches, or if the
/// kernel cannot tell (`PAGEMAP_SCAN` came with Linux 6.7).
fn scan<'s>(first: *mut u8, end: *mut u8, stretches: &'s mut [Stretch; STRETCHES_MAX]) -> Option<&'s [Stretch]> {
    static PAGEMAP: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/pagemap").ok());
    let pagemap = PAGEMAP.as_ref()?;
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        start: first as u64,
        end: end as u64,
        vec: stretches.as_mut_ptr() as u64,
        vec_len: STRETCHES_MAX as u64,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        return_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        ..Scan::default()
    };
    // SAFETY: The kernel reads and writes `scan`, and writes at most `vec_len` elements of `stretches`; both outlive
    // the call.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut scan) };
    // It stops early when there is no room for another stretch.
    let whole = scan.walk_end == end as u64;
    usize::try_from(found).ok().filter(|_| whole).map(|found| &stretches[..found])
}

/// Tells the kernel how a stretch of an arena's own mapping will be used.
pub(super) fn advise(start: *mut c_void, bytes: usize, advice: c_int) -> Result<()> {
    // SAFETY: Callers name whole pages of the arena's own mappings, of slots that they hold. The advices in use here
    // make such pages zero, make them fault, or change nothing that can be seen.
    match unsafe { libc::madvise(start, bytes, advice) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Makes a stretch of an arena's own mapping inaccessible.
pub(super) fn protect(start: *mut c_void, bytes: usize) -> Result<()> {
    // SAFETY: As for `advise`; whoever touches the stretch is stopped.
    match unsafe { libc::mprotect(start, bytes, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}
