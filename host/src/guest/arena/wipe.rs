//! The system calls of an arena: mapping address space, and making used memory zero again.

#![expect(unsafe_code, reason = "this file is the arena's calls into the kernel")]

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::{Error, Result};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::LazyLock;

/// Up to this many pages are overwritten with zeros. More are returned to the kernel in one system call, which
/// interrupts the other cores that run this process. Measured with a small Rust component on an otherwise idle machine:
/// a fresh instance, one call and its end take 14 us when pages are overwritten, and 28 us when they are returned.
const PAGES_MAX: usize = 64;
/// Stretches of pages that one scan of the page table reports.
const STRETCHES_MAX: usize = PAGES_MAX;

/// Alignment of mappings: the address range that one page of page tables covers.
pub(super) const TABLE_BYTES: usize = 2 << 20;

/// `linux/fs.h`: `_IOWR('f', 16, struct pm_scan_arg)`.
const PAGEMAP_SCAN: u64 = 0xc060_6610;
/// Pages that are in memory, or were and are swapped out.
const PAGE_IS_PRESENT: u64 = 1 << 3;
const PAGE_IS_SWAPPED: u64 = 1 << 4;
/// Pages that were read but never written: the kernel's shared page of zeros.
const PAGE_IS_PFNZERO: u64 = 1 << 5;

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

impl Stretch {
    fn bytes(&self) -> usize {
        (self.end - self.start) as usize
    }
}

/// The result of wiping a slot.
pub(super) enum Wiped {
    /// The slot is zero, and its pages are in memory.
    Warm,
    /// The slot is zero, and has no pages.
    Cold,
    /// The slot is not zero.
    Failed(Error),
}

/// The page sizes that the kernel may use for a mapping.
#[derive(Clone, Copy)]
pub(super) enum Pages {
    /// Small pages only: touching one byte must not cost two megabytes.
    Small,
    /// Huge pages as well, which speed up guests that use much memory.
    Huge,
}

/// Maps zeroed address space, aligned to `TABLE_BYTES`, without reserving memory for it.
pub(super) fn map(bytes: usize, pages: Pages) -> Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let (mapped, access) = (bytes + TABLE_BYTES, libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: A new private mapping at an address that the kernel chooses touches nothing that exists.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), mapped, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return Err(Error::last_os_error());
    }
    if let Pages::Small = pages {
        // A kernel without huge pages refuses the advice, but uses small pages anyway.
        // SAFETY: The mapping is new, so nobody uses it, and the advice changes no bytes.
        let _ = unsafe { advise(start, mapped, libc::MADV_NOHUGEPAGE) };
    }
    let skipped = start.align_offset(TABLE_BYTES);
    NonNull::new(start.cast::<u8>().wrapping_add(skipped)).ok_or_else(|| Error::other("mapped address zero"))
}

/// The kernel's page size in bytes.
pub(super) fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// Zeroes the bytes of `range`, counted from `start`. With `keep`, their pages may stay in memory.
///
/// # Safety
///
/// Nobody else uses the pages of `range`, which lie in a mapping of [`map`] and are writable.
pub(super) unsafe fn wipe(start: NonNull<u8>, range: Range<usize>, keep: bool) -> Wiped {
    let first = start.as_ptr().wrapping_add(range.start - range.start % page_bytes());
    let end = start.as_ptr().wrapping_add(range.end.next_multiple_of(page_bytes()));
    // SAFETY: As the caller promises, for whole pages.
    if keep && unsafe { overwrite(first, end) }.is_some() {
        return Wiped::Warm;
    }
    // SAFETY: As above; the advice makes the pages zero.
    match unsafe { advise(first.cast(), end as usize - first as usize, libc::MADV_DONTNEED) } {
        Ok(()) => Wiped::Cold,
        Err(error) => Wiped::Failed(error),
    }
}

/// Overwrites all pages in use with zeros. Returns `None` if there are too many, or if the kernel cannot tell.
///
/// # Safety
///
/// Nobody else uses the pages from `first` to `end`, which are writable.
unsafe fn overwrite(first: *mut u8, end: *mut u8) -> Option<()> {
    let mut stretches = [Stretch::default(); STRETCHES_MAX];
    let (found, scanned_to) = scan(first, end, &mut stretches)?;
    let bytes: usize = found.iter().map(Stretch::bytes).sum();
    if scanned_to != end || bytes > PAGES_MAX * page_bytes() {
        return None;
    }
    for stretch in found {
        // SAFETY: The kernel reports stretches between `first` and `end` only, which the caller vouches for.
        unsafe { std::ptr::write_bytes(stretch.start as *mut u8, 0, stretch.bytes()) };
    }
    Some(())
}

/// Copies the first `bytes` of one slot to another, which is all zero. Skips pages that were never written: copying
/// their zeros would take memory.
///
/// # Safety
///
/// Nobody else uses the two slots, which do not overlap, and `bytes`, rounded up to whole pages, fit into both.
pub(super) unsafe fn copy(from: NonNull<u8>, to: NonNull<u8>, bytes: usize) {
    let end = from.as_ptr().wrapping_add(bytes.next_multiple_of(page_bytes()));
    let mut at = from.as_ptr();
    while at < end {
        let mut stretches = [Stretch::default(); STRETCHES_MAX];
        let rest = [Stretch { start: at as u64, end: end as u64, categories: 0 }];
        let (found, scanned_to) = scan(at, end, &mut stretches).unwrap_or((&rest, end));
        for stretch in found {
            let offset = stretch.start as usize - from.as_ptr() as usize;
            // SAFETY: The stretch lies within the pages of the first `bytes`, which both slots have, as the caller
            // promises.
            unsafe {
                let (from, to) = (from.as_ptr().add(offset), to.as_ptr().add(offset));
                std::ptr::copy_nonoverlapping(from, to, stretch.bytes());
            }
        }
        at = scanned_to;
    }
}

/// Returns the pages between `first` and `end` that are not known to be zero, and the address where the scan stopped:
/// before `end` only if `stretches` is full. `None` if the kernel cannot tell (`PAGEMAP_SCAN` came with Linux 6.7).
fn scan(first: *mut u8, end: *mut u8, stretches: &mut [Stretch; STRETCHES_MAX]) -> Option<(&[Stretch], *mut u8)> {
    static PAGEMAP: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/pagemap").ok());
    let pagemap = PAGEMAP.as_ref()?;
    let mut scan = Scan {
        size: size_of::<Scan>() as u64,
        start: first as u64,
        end: end as u64,
        vec: stretches.as_mut_ptr() as u64,
        vec_len: STRETCHES_MAX as u64,
        // In memory or swapped out, and not the page of zeros.
        category_inverted: PAGE_IS_PFNZERO,
        category_mask: PAGE_IS_PFNZERO,
        category_anyof_mask: PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        ..Scan::default()
    };
    // SAFETY: The kernel reads and writes `scan`, and writes at most `vec_len` elements of `stretches`; both outlive
    // the call.
    let found = unsafe { libc::ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut scan) };
    let found = usize::try_from(found).ok()?;
    Some((&stretches[..found], first.wrapping_add(scan.walk_end as usize - first as usize)))
}

/// Tells the kernel how a stretch of an arena's own mapping will be used.
///
/// # Safety
///
/// These are whole pages of a mapping of [`map`], and nobody else uses them. `advice` makes pages zero, makes them
/// fault, or has no visible effect.
pub(super) unsafe fn advise(start: *mut c_void, bytes: usize, advice: c_int) -> Result<()> {
    // SAFETY: As the caller promises.
    match unsafe { libc::madvise(start, bytes, advice) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}

/// Makes a stretch of an arena's own mapping inaccessible.
///
/// # Safety
///
/// These are whole pages of a mapping of [`map`], and nobody else uses them.
pub(super) unsafe fn protect(start: *mut c_void, bytes: usize) -> Result<()> {
    // SAFETY: As the caller promises.
    match unsafe { libc::mprotect(start, bytes, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(Error::last_os_error()),
    }
}
