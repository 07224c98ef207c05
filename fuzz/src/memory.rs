//! An allocator that counts what each thread holds, so that excessive use of memory is measured, not guessed.
//! Allocations inside C libraries are not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Limit of a single allocation. Beyond it, the allocation fails and the process ends, rather than fill the memory of
/// the machine.
const SINGLE_MAX: usize = 8 << 30;

thread_local! {
    /// Bytes that this thread has allocated and not freed.
    static LIVE: Cell<isize> = const { Cell::new(0) };
    /// Maximum of `LIVE` since the last reset.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(change: isize) {
    // A thread that ends has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
    });
}

fn refused() -> *mut u8 {
    let text = b"more than 8 GiB were asked for at once; the input is in the temporary directory, regraft-fuzz-*\n";
    let _ = rustix::io::write(rustix::stdio::stderr(), text);
    std::ptr::null_mut()
}

// SAFETY: all memory is the system allocator's; nothing but counting is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SINGLE_MAX {
            return refused();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > SINGLE_MAX {
            return refused();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > SINGLE_MAX {
            return refused();
        }
        count(size as isize - layout.size() as isize);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

/// Runs a function, and returns its result with the maximum of bytes that it held beyond what the thread had before.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.get();
    PEAK.set(before);
    let result = run();
    (result, usize::try_from(PEAK.get() - before).unwrap_or(0))
}
