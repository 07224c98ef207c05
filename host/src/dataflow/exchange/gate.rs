//! Merges the input channels of a subtask: fairly, with barriers aligned and watermarks combined.

use std::sync::Arc;

use regraft_model::batch::Batch;
use regraft_model::id::CheckpointId;
use regraft_model::time::EventTime;

use super::super::element::{CheckpointBarrier, Element};
use super::super::watermark::{Signal, combine};
use super::align::{Aligned, Alignment};
use super::channel::Receiver;

/// All input channels of a subtask.
#[derive(Debug)]
pub struct Gate {
    channels: Vec<Channel>,
    alignment: Alignment,
    /// Barriers of the rounds under way.
    barriers: Vec<Arc<CheckpointBarrier>>,
    watermark: EventTime,
    idle: bool,
    /// True if the last element may have more to deliver.
    again: bool,
    next: usize,
    told_end: bool,
}

#[derive(Debug)]
struct Channel {
    receiver: Receiver,
    /// Number of the operator's input that it feeds.
    input: u32,
    watermark: EventTime,
    idle: bool,
    ended: bool,
}

/// The next item that the gate delivers.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time, and it is not kept")]
pub enum Delivered {
    /// Records of one input.
    Batch(u32, Batch),
    /// Records of one input whose key column is distinct.
    Grouped(u32, Batch),
    /// The combined watermark has advanced, or the inputs as a whole have become idle or active again.
    Signal(Signal),
    /// The first barrier of a round has come, and alignment begins.
    Aligning,
    /// Every input has reached this barrier.
    Barrier(Arc<CheckpointBarrier>),
    /// All inputs have ended. Delivered once.
    End,
    /// There is nothing to do for now.
    Nothing,
}

impl Gate {
    /// Creates a gate over channels, each with the number of the input that it feeds. `watermark` is the one that all
    /// of them start from.
    #[must_use]
    pub fn new(channels: Vec<(u32, Receiver)>, watermark: EventTime) -> Self {
        let alignment = Alignment::new(channels.len());
        let channels = channels
            .into_iter()
            .map(|(input, receiver)| Channel {
                receiver,
                input,
                watermark,
                idle: false,
                ended: false,
            })
            .collect();
        Self {
            channels,
            alignment,
            barriers: vec![],
            watermark,
            idle: false,
            again: false,
            next: 0,
            told_end: false,
        }
    }

    /// Returns the next item from any open channel, taking the channels in turn.
    pub fn poll(&mut self) -> Delivered {
        loop {
            if std::mem::take(&mut self.again) {
                match self.more() {
                    Delivered::Nothing => {}
                    delivered => return delivered,
                }
            }
            let Some((at, element)) = self.receive() else { break };
            match self.take(at, element) {
                Delivered::Nothing => {}
                delivered => return delivered,
            }
        }
        if self.alignment.all_ended() && !self.told_end {
            self.told_end = true;
            return Delivered::End;
        }
        Delivered::Nothing
    }

    fn receive(&mut self) -> Option<(usize, Element)> {
        let count = self.channels.len();
        for turn in 0..count {
            let at = (self.next + turn) % count;
            if !self.alignment.is_open(at) {
                continue;
            }
            if let Some(element) = self.channels[at].receiver.try_receive() {
                self.next = (at + 1) % count;
                return Some((at, element));
            }
        }
        None
    }

    fn take(&mut self, at: usize, element: Element) -> Delivered {
        let channel = &mut self.channels[at];
        match element {
            Element::Batch(batch) => return Delivered::Batch(channel.input, batch),
            Element::Grouped(batch) => return Delivered::Grouped(channel.input, batch),
            Element::Watermark(watermark) => channel.watermark = channel.watermark.max(watermark),
            Element::Idle(idle) => channel.idle = idle,
            Element::Barrier(barrier) => {
                let (id, waits) = (barrier.id, barrier.aligned);
                let first = !self.alignment.is_aligning();
                self.barriers.retain(|known| known.id != id);
                self.barriers.push(barrier);
                return match self.alignment.barrier(at, id, waits) {
                    Aligned::NotYet if first && self.alignment.is_aligning() => Delivered::Aligning,
                    aligned => self.aligned(aligned),
                };
            }
            Element::EndOfInput => {
                channel.ended = true;
                let aligned = self.alignment.end(at);
                self.again = true;
                return self.aligned(aligned);
            }
        }
        self.advance()
    }

    /// Returns a further item that the last element has caused: one element can complete rounds and advance the
    /// watermark.
    fn more(&mut self) -> Delivered {
        let aligned = self.alignment.next_complete();
        match self.aligned(aligned) {
            Delivered::Nothing => self.advance(),
            delivered => delivered,
        }
    }

    fn aligned(&mut self, aligned: Aligned) -> Delivered {
        let Aligned::Now(id) = aligned else {
            return Delivered::Nothing;
        };
        self.again = true;
        let barrier = self.barriers.iter().find(|barrier| barrier.id == id).cloned();
        self.barriers.retain(|barrier| barrier.id > id);
        barrier.map_or(Delivered::Nothing, Delivered::Barrier)
    }

    fn advance(&mut self) -> Delivered {
        let open = self.channels.iter().filter(|channel| !channel.ended);
        // The watermark of ended channels does not count; the end of all of them is delivered as [`Delivered::End`].
        let Some((mut watermark, idle)) = combine(open.map(|channel| (channel.watermark, channel.idle))) else {
            return Delivered::Nothing;
        };
        if idle {
            // Treat ended channels as if they had become idle before they ended. The order of idleness and end differs
            // between subtasks, and one that stays behind would emit late what its last timers give.
            let all = self.channels.iter().map(|channel| channel.watermark);
            watermark = all.fold(watermark, EventTime::max);
        }
        let signal = if self.idle && !idle {
            self.idle = false;
            Signal::Idle(false)
        } else if watermark > self.watermark {
            self.watermark = watermark;
            Signal::Watermark(watermark)
        } else if idle && !self.idle {
            self.idle = true;
            Signal::Idle(true)
        } else {
            return Delivered::Nothing;
        };
        self.again = true;
        Delivered::Signal(signal)
    }

    /// Drops an aborted round.
    pub fn abort(&mut self, id: CheckpointId) {
        self.alignment.abort(id);
        self.barriers.retain(|barrier| barrier.id != id);
    }

    /// Returns true if some input has delivered a barrier that others have not.
    #[must_use]
    pub fn is_aligning(&self) -> bool {
        self.alignment.is_aligning()
    }
}

#[cfg(test)]
mod tests {
    use super::super::channel::{Sender, channel};
    use super::*;
    use regraft_model::snapshot::SnapshotKind;
    use regraft_model::time::NO_TIMESTAMP;

    fn gate(channels: usize, watermark: EventTime) -> (Vec<Sender>, Gate) {
        let (senders, receivers): (Vec<_>, Vec<_>) =
            (0..channels).map(|_| channel(Arc::default(), Arc::default())).unzip();
        let receivers = receivers.into_iter().enumerate();
        let gate = Gate::new(receivers.map(|(i, receiver)| (i as u32, receiver)).collect(), watermark);
        (senders, gate)
    }

    fn barrier(id: u64, aligned: bool) -> Element {
        Element::Barrier(Arc::new(CheckpointBarrier {
            id: CheckpointId(id),
            kind: SnapshotKind::Checkpoint,
            swaps: None,
            base: None,
            aligned,
        }))
    }

    fn record(value: &str) -> Element {
        let mut batch = Batch::default();
        batch.values.push(value.as_bytes());
        Element::Batch(batch)
    }

    fn send(sender: &Sender, elements: impl IntoIterator<Item = Element>) {
        for element in elements {
            sender.try_send(element).expect("room");
        }
    }

    /// Returns everything that is there, as short texts.
    fn drain(gate: &mut Gate) -> Vec<String> {
        let mut all = vec![];
        loop {
            all.push(match gate.poll() {
                Delivered::Batch(input, batch) | Delivered::Grouped(input, batch) => {
                    format!("{input}:{}", String::from_utf8_lossy(batch.values.get(0)))
                }
                Delivered::Signal(Signal::Watermark(watermark)) => format!("watermark {watermark}"),
                Delivered::Signal(Signal::Idle(idle)) => if idle { "idle" } else { "active" }.to_owned(),
                Delivered::Aligning => "aligning".to_owned(),
                Delivered::Barrier(barrier) => format!("barrier {}", barrier.id),
                Delivered::End => "end".to_owned(),
                Delivered::Nothing => return all,
            });
        }
    }

    #[test]
    fn the_watermark_is_the_least_of_the_inputs_that_are_not_idle() {
        let (senders, mut gate) = gate(3, NO_TIMESTAMP);
        send(&senders[0], [Element::Watermark(10)]);
        send(&senders[1], [Element::Watermark(20)]);
        assert_eq!(drain(&mut gate), [""; 0]);
        send(&senders[2], [Element::Idle(true)]);
        assert_eq!(drain(&mut gate), ["watermark 10"]);
        send(&senders[0], [Element::Idle(true)]);
        assert_eq!(drain(&mut gate), ["watermark 20"]);
        send(&senders[1], [Element::Idle(true)]);
        assert_eq!(drain(&mut gate), ["idle"]);
        // It comes back with its old watermark: the combined one does not go back, and the input counts again.
        send(&senders[2], [Element::Idle(false), Element::Watermark(15)]);
        assert_eq!(drain(&mut gate), ["active"]);
        send(&senders[2], [Element::Watermark(25)]);
        assert_eq!(drain(&mut gate), ["watermark 25"]);
    }

    #[test]
    fn an_ended_input_holds_nobody_back() {
        let (senders, mut gate) = gate(2, 5);
        send(&senders[0], [Element::Watermark(10), Element::Watermark(11)]);
        send(&senders[1], [Element::Watermark(3), Element::EndOfInput]);
        assert_eq!(drain(&mut gate), ["watermark 11"]);
        send(&senders[0], [Element::EndOfInput]);
        assert_eq!(drain(&mut gate), ["end"]);
    }

    #[test]
    fn where_all_are_idle_it_does_not_matter_who_ended_before() {
        use Element::{EndOfInput, Idle, Watermark};
        let (senders, mut one) = gate(2, NO_TIMESTAMP);
        send(&senders[0], [Watermark(66), Idle(true)]);
        send(&senders[1], [Watermark(63), Idle(true)]);
        assert_eq!(
            drain(&mut one).last_chunk(),
            Some(&["watermark 66".to_owned(), "idle".to_owned()])
        );
        send(&senders[0], [EndOfInput]);
        assert_eq!(drain(&mut one), [""; 0]);

        let (senders, mut other) = gate(2, NO_TIMESTAMP);
        send(&senders[0], [Watermark(66), Idle(true), EndOfInput]);
        send(&senders[1], [Watermark(63)]);
        assert_eq!(drain(&mut other), ["watermark 63"]);
        send(&senders[1], [Idle(true)]);
        assert_eq!(drain(&mut other), ["watermark 66", "idle"]);
    }

    #[test]
    fn one_end_may_complete_a_round_and_move_the_watermark() {
        let (senders, mut gate) = gate(2, NO_TIMESTAMP);
        send(&senders[0], [Element::Watermark(10), barrier(1, true)]);
        send(&senders[1], [Element::Watermark(3)]);
        assert_eq!(drain(&mut gate), ["watermark 3", "aligning"]);
        send(&senders[1], [Element::EndOfInput]);
        assert_eq!(drain(&mut gate), ["barrier 1", "watermark 10"]);
    }

    #[test]
    fn aligned_rounds_hold_records_back_and_others_do_not() {
        for (aligned, expected) in [
            (true, ["aligning", "1:b", "barrier 1", "0:a"]),
            (false, ["aligning", "1:b", "0:a", "barrier 1"]),
        ] {
            let (senders, mut gate) = gate(2, NO_TIMESTAMP);
            send(&senders[0], [barrier(1, aligned), record("a")]);
            send(&senders[1], [record("b"), barrier(1, aligned)]);
            assert_eq!(drain(&mut gate), expected);
        }
    }

    #[test]
    fn rounds_that_are_not_aligned_overlap() {
        let (senders, mut gate) = gate(2, NO_TIMESTAMP);
        send(&senders[0], [barrier(1, false), barrier(2, false), barrier(3, false)]);
        assert_eq!(drain(&mut gate), ["aligning"]);
        send(&senders[1], [barrier(1, false)]);
        assert_eq!(drain(&mut gate), ["barrier 1"]);
        gate.abort(CheckpointId(3));
        send(&senders[1], [Element::EndOfInput]);
        assert_eq!(drain(&mut gate), ["barrier 2"]);
        assert!(!gate.is_aligning());
    }
}
