//! The code that an input reaches. Known only in an instrumented build (`fuzz/guided.sh`); otherwise inputs are mutated
//! blindly.

use std::sync::Mutex;

/// The counters of each instrumented crate.
static REGIONS: Mutex<Vec<Region>> = Mutex::new(Vec::new());

struct Region {
    start: *mut u8,
    len: usize,
}

// SAFETY: the counters live as long as the program, and are bytes that any thread may change.
unsafe impl Send for Region {}

/// Called by the compiler's start-up code, once for each instrumented crate.
#[unsafe(no_mangle)]
pub extern "C" fn __sanitizer_cov_8bit_counters_init(start: *mut u8, stop: *mut u8) {
    let len = (stop as usize).saturating_sub(start as usize);
    if let Ok(mut regions) = REGIONS.lock() {
        regions.push(Region { start, len });
    }
}

/// The code reached so far by all inputs.
#[derive(Debug, Default)]
pub struct Coverage {
    /// For each counter, the magnitudes that it has had, a bit each.
    seen: Vec<u8>,
    /// Number of bits set in `seen`.
    pub features: usize,
}

impl Coverage {
    /// Returns true if the build is instrumented.
    #[must_use]
    pub fn is_there() -> bool {
        REGIONS.lock().is_ok_and(|regions| !regions.is_empty())
    }

    /// Resets all counters.
    pub fn clear() {
        let Ok(regions) = REGIONS.lock() else { return };
        for region in regions.iter() {
            // SAFETY: the compiler gave these bounds.
            unsafe { region.start.write_bytes(0, region.len) };
        }
    }

    /// Adds what has been reached since [`Coverage::clear`]. Returns true if any of it is new.
    pub fn add(&mut self) -> bool {
        let Ok(regions) = REGIONS.lock() else { return false };
        let before = self.features;
        let mut base = 0;
        for region in regions.iter() {
            self.seen.resize(self.seen.len().max(base + region.len), 0);
            // SAFETY: the compiler gave these bounds, and nothing instrumented runs now.
            let counters = unsafe { std::slice::from_raw_parts(region.start, region.len) };
            // Most counters are 0; skip eight at a time.
            for (seen, counters) in self.seen[base..].chunks_mut(8).zip(counters.chunks(8)) {
                if counters.iter().fold(0, |any, counter| any | counter) == 0 {
                    continue;
                }
                for (seen, &counter) in seen.iter_mut().zip(counters) {
                    let bit = magnitude(counter) & !*seen;
                    *seen |= bit;
                    self.features += usize::from(bit != 0);
                }
            }
            base += region.len;
        }
        self.features > before
    }
}

/// Returns the bit of a counter's magnitude: 1, 2, 3, 4 to 7, and so on.
const fn magnitude(counter: u8) -> u8 {
    match counter {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        _ => 128,
    }
}
