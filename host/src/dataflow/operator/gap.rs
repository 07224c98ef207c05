//! How long an operator gives no output: usually, and around a swap.

use regraft_model::id::CheckpointId;

/// Outputs remembered to tell how long an operator is usually silent.
const USUAL_GAPS: usize = 64;

/// When an operator last gave output.
#[derive(Debug, Default)]
pub(super) struct Silence {
    last_ns: Option<u64>,
    gaps: Vec<u64>,
    next: usize,
    /// The swap whose first output has not come yet, and since when there was none.
    swap: Option<(CheckpointId, u64)>,
}

impl Silence {
    /// There was output.
    pub(super) fn output(&mut self, now_ns: u64) {
        // The gap of a swap itself is not usual.
        if let (Some(last), None) = (self.last_ns, self.swap) {
            if self.gaps.len() < USUAL_GAPS {
                self.gaps.push(now_ns - last);
            } else {
                self.gaps[self.next] = now_ns - last;
                self.next = (self.next + 1) % USUAL_GAPS;
            }
        }
        self.last_ns = Some(now_ns);
    }

    /// A swap has taken place.
    pub(super) fn swapped(&mut self, id: CheckpointId, now_ns: u64) {
        self.swap = Some((id, self.last_ns.unwrap_or(now_ns)));
    }

    /// The round of a swap, how long there was no output around it, and the longest time without output just before it, all
    /// in nanoseconds; once, when the first output behind it has come.
    pub(super) fn take_gap(&mut self) -> Option<(CheckpointId, u64, u64)> {
        let (id, from) = self.swap?;
        let last = self.last_ns.filter(|last| *last > from)?;
        self.swap = None;
        Some((id, last - from, self.gaps.iter().copied().max().unwrap_or(0)))
    }
}
