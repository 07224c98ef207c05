//! Measures the silence of an operator: usually, and around a swap.

use regraft_model::id::CheckpointId;

/// Number of recent gaps that are remembered to tell the usual silence of an operator.
const USUAL_GAPS: usize = 64;

/// Times of an operator's output.
#[derive(Debug, Default)]
pub(super) struct Silence {
    last_ns: Option<u64>,
    gaps: Vec<u64>,
    next: usize,
    /// The swap whose first output is still to come, and the time of the last output before it.
    swap: Option<(CheckpointId, u64)>,
}

impl Silence {
    /// Notes output.
    pub(super) fn output(&mut self, now_ns: u64) {
        // The gap of a swap itself is not a usual one.
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

    /// Notes a swap.
    pub(super) fn swapped(&mut self, id: CheckpointId, now_ns: u64) {
        self.swap = Some((id, self.last_ns.unwrap_or(now_ns)));
    }

    /// Returns the round of a swap, the length of the gap around it and the longest gap among the recent outputs before
    /// it, both in nanoseconds. Returns it once, when the first output after the swap has come.
    pub(super) fn take_gap(&mut self) -> Option<(CheckpointId, u64, u64)> {
        let (id, from) = self.swap?;
        let last = self.last_ns.filter(|last| *last > from)?;
        self.swap = None;
        Some((id, last - from, self.gaps.iter().copied().max().unwrap_or(0)))
    }
}
