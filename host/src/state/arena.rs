//! Memory for the tables of one backend, on huge pages.
//!
//! A lookup in a large state misses the cache; with small pages it also misses the TLB, which costs more.
//!
//! Blocks of a power of two are cut from chunks of the size of a huge page, and merged again when freed (a buddy
//! allocator).
//! Smaller and larger blocks come from the global allocator.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::BTreeSet;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

/// log2 of a chunk's size: a huge page of x86-64, and of most other architectures.
const CHUNK: u32 = 21;
/// log2 of the smallest block that is cut from a chunk.
const LEAST: u32 = 16;
/// Alignment of smaller blocks: a cache line.
const ALIGN: usize = 64;

/// An allocator of blocks. Clones share its free blocks.
#[derive(Debug, Clone, Default)]
pub struct Arena(Arc<Mutex<Free>>);

/// Free blocks by log2 of their size, from [`LEAST`]. A chunk that is entirely free is deallocated.
#[derive(Debug, Default)]
struct Free([BTreeSet<NonNull<u8>>; (CHUNK - LEAST) as usize]);

// SAFETY: free blocks are unaliased memory, owned by this struct.
unsafe impl Send for Free {}

/// Memory of 2^bits bytes, zeroed when made and aligned to a cache line.
#[derive(Debug)]
pub struct Block {
    start: NonNull<u8>,
    bits: u32,
    arena: Arena,
}

// SAFETY: a block owns its memory, as a `Box` does.
unsafe impl Send for Block {}
// SAFETY: as above, and nothing in it changes through a shared reference.
unsafe impl Sync for Block {}

impl Arena {
    /// Returns a zeroed block of 2^`bits` bytes.
    #[must_use]
    pub fn block(&self, bits: u32) -> Block {
        let start = if (LEAST..CHUNK).contains(&bits) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).take(bits)
        } else {
            allocate(bits)
        };
        // SAFETY: the block is `1 << bits` bytes long, and not aliased.
        unsafe { start.write_bytes(0, 1 << bits) };
        Block {
            start,
            bits,
            arena: self.clone(),
        }
    }
}

impl Block {
    /// Returns a pointer to the first byte.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if (LEAST..CHUNK).contains(&self.bits) {
            self.arena
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .give(self.start, self.bits);
        } else {
            // SAFETY: it was allocated with the same number of bits, hence with the same layout.
            unsafe { dealloc(self.start.as_ptr(), layout(self.bits)) };
        }
    }
}

impl Free {
    fn take(&mut self, bits: u32) -> NonNull<u8> {
        for from in bits..CHUNK {
            if let Some(start) = self.0[(from - LEAST) as usize].pop_first() {
                self.cut(start, from, bits);
                return start;
            }
        }
        let start = allocate(CHUNK);
        self.cut(start, CHUNK, bits);
        start
    }

    /// Cuts a block of 2^`from` bytes down to 2^`to` bytes, and frees the rest.
    fn cut(&mut self, start: NonNull<u8>, from: u32, to: u32) {
        for bits in to..from {
            // SAFETY: the block is `1 << from` bytes long, and `bits` is less than `from`.
            self.0[(bits - LEAST) as usize].insert(unsafe { start.add(1 << bits) });
        }
    }

    fn give(&mut self, mut start: NonNull<u8>, mut bits: u32) {
        while bits < CHUNK {
            // Chunks are aligned to their size, so blocks are to theirs, and one bit of the address tells the upper
            // half from the lower.
            let is_upper = start.addr().get() & (1 << bits) != 0;
            // SAFETY: both halves are in the same chunk.
            let other = unsafe {
                if is_upper {
                    start.sub(1 << bits)
                } else {
                    start.add(1 << bits)
                }
            };
            if !self.0[(bits - LEAST) as usize].remove(&other) {
                self.0[(bits - LEAST) as usize].insert(start);
                return;
            }
            start = start.min(other);
            bits += 1;
        }
        // SAFETY: all of the chunk is free, and it was allocated with this layout.
        unsafe { dealloc(start.as_ptr(), layout(CHUNK)) };
    }
}

const fn layout(bits: u32) -> Layout {
    let align = if bits < CHUNK { ALIGN } else { 1 << CHUNK };
    match Layout::from_size_align(1 << bits, align) {
        Ok(layout) => layout,
        Err(_) => panic!("a block larger than the address space"),
    }
}

fn allocate(bits: u32) -> NonNull<u8> {
    let layout = layout(bits);
    // SAFETY: the size is not 0.
    let Some(start) = NonNull::new(unsafe { alloc(layout) }) else {
        handle_alloc_error(layout)
    };
    #[cfg(target_os = "linux")]
    if bits >= CHUNK {
        use rustix::mm::{Advice, madvise};
        // It is advice: where it is not taken, everything is only slower.
        // SAFETY: these are whole pages of memory that was just allocated, and the advice does not change their content.
        let _ = unsafe { madvise(start.as_ptr().cast(), layout.size(), Advice::LinuxHugepage) };
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn is_empty(arena: &Arena) -> bool {
        arena.0.lock().expect("not poisoned").0.iter().all(BTreeSet::is_empty)
    }

    proptest! {
        #[test]
        fn blocks_do_not_overlap_and_all_come_back(steps in prop::collection::vec((14u32..23, 0usize..8), 1..60)) {
            let arena = Arena::default();
            let mut blocks: Vec<Block> = vec![];
            for (bits, drop_at) in steps {
                let block = arena.block(bits);
                prop_assert_eq!(block.start().addr().get() % ALIGN, 0);
                for other in &blocks {
                    let (a, b) = (block.start().addr().get(), other.start().addr().get());
                    prop_assert!(a + (1 << bits) <= b || b + (1 << other.bits) <= a);
                }
                blocks.push(block);
                if drop_at < blocks.len() && blocks.len() > 4 {
                    blocks.swap_remove(drop_at);
                }
            }
            blocks.clear();
            prop_assert!(is_empty(&arena));
        }
    }
}
