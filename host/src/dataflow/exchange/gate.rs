//! Merges a subtask's input channels: fairly, with barriers aligned and the least watermark.

use std::sync::Arc;

use regraft_model::batch::Batch;
use regraft_model::id::CheckpointId;
use regraft_model::time::{EventTime, MAX_WATERMARK, NO_TIMESTAMP};

use super::super::element::{CheckpointBarrier, Element};
use super::align::{Aligned, Alignment};
use super::channel::Receiver;

/// All input channels of a subtask.
#[derive(Debug)]
pub struct Gate {
    channels: Vec<Channel>,
    alignment: Alignment,
    barrier: Option<Arc<CheckpointBarrier>>,
    watermark: EventTime,
    next: usize,
    told_end: bool,
}

#[derive(Debug)]
struct Channel {
    receiver: Receiver,
    /// Which of the operator's inputs it belongs to.
    input: u32,
    watermark: EventTime,
}

/// What the gate delivers.
#[derive(Debug)]
pub enum Delivered {
    /// Records of one input.
    Batch(u32, Batch),
    /// Records of one input whose key column is distinct.
    Grouped(u32, Batch),
    /// The least watermark of all inputs has advanced.
    Watermark(EventTime),
    /// The first barrier of a round has come: alignment begins.
    Aligning,
    /// Every input is at the barrier.
    Barrier(Arc<CheckpointBarrier>),
    /// All inputs have ended. Told once.
    End,
    /// There is nothing to do for now.
    Nothing,
}

impl Gate {
    /// Channels with the number of the input each belongs to.
    #[must_use]
    pub fn new(channels: Vec<(u32, Receiver)>, watermark: EventTime) -> Self {
        let alignment = Alignment::new(channels.len());
        let channels = channels
            .into_iter()
            .map(|(input, receiver)| Channel {
                receiver,
                input,
                watermark,
            })
            .collect();
        Self {
            channels,
            alignment,
            barrier: None,
            watermark,
            next: 0,
            told_end: false,
        }
    }

    /// The next thing from any open channel, each in turn.
    pub fn poll(&mut self) -> Delivered {
        let count = self.channels.len();
        for turn in 0..count {
            let at = (self.next + turn) % count;
            if !self.alignment.is_open(at) {
                continue;
            }
            let Some(element) = self.channels[at].receiver.try_receive() else {
                continue;
            };
            self.next = (at + 1) % count;
            match self.take(at, element) {
                Delivered::Nothing => return self.poll(),
                delivered => return delivered,
            }
        }
        if self.alignment.all_ended() && !self.told_end {
            self.told_end = true;
            return Delivered::End;
        }
        Delivered::Nothing
    }

    fn take(&mut self, at: usize, element: Element) -> Delivered {
        match element {
            Element::Batch(batch) => Delivered::Batch(self.channels[at].input, batch),
            Element::Grouped(batch) => Delivered::Grouped(self.channels[at].input, batch),
            Element::Watermark(watermark) => {
                self.channels[at].watermark = watermark;
                self.advance()
            }
            Element::Barrier(barrier) => {
                let id = barrier.id;
                let first = !self.alignment.is_aligning();
                self.barrier = Some(barrier);
                match self.alignment.barrier(at, id) {
                    Aligned::NotYet if first => Delivered::Aligning,
                    aligned => self.aligned(aligned),
                }
            }
            Element::EndOfInput => {
                self.channels[at].watermark = MAX_WATERMARK;
                match self.alignment.end(at) {
                    Aligned::NotYet => self.advance(),
                    aligned => self.aligned(aligned),
                }
            }
        }
    }

    fn aligned(&mut self, aligned: Aligned) -> Delivered {
        match (aligned, &self.barrier) {
            (Aligned::Now(id), Some(barrier)) if barrier.id == id => Delivered::Barrier(barrier.clone()),
            _ => Delivered::Nothing,
        }
    }

    fn advance(&mut self) -> Delivered {
        let least = self
            .channels
            .iter()
            .map(|channel| channel.watermark)
            .min()
            .unwrap_or(NO_TIMESTAMP);
        // The last watermark is the end, which is told as such.
        if least > self.watermark && least < MAX_WATERMARK {
            self.watermark = least;
            return Delivered::Watermark(least);
        }
        Delivered::Nothing
    }

    /// The round is given up.
    pub fn abort(&mut self, id: CheckpointId) {
        self.alignment.abort(id);
    }

    /// Whether some input waits at a barrier for the others.
    #[must_use]
    pub fn is_aligning(&self) -> bool {
        self.alignment.is_aligning()
    }
}
