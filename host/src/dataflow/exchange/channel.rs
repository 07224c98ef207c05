//! A bounded queue of elements from one subtask to another. It never blocks: a sender or receiver that cannot go on
//! waits for its mailbox to be woken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::super::control::{Mailbox, locked};
use super::super::element::Element;

/// Limit of elements in flight on one channel. Batches are large, so more would only add latency and alignment time.
pub const CHANNEL_LEN_MAX: usize = 8;

/// Limit of bytes in flight on one channel: a batch of any size is taken in while there is less.
pub const CHANNEL_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    producer: Arc<Mailbox>,
    consumer: Arc<Mailbox>,
}

#[derive(Debug, Default)]
struct Queue {
    elements: VecDeque<Element>,
    /// Bytes of the elements.
    bytes: usize,
    /// True if an element was refused since the producer was last woken.
    refused: bool,
}

/// The sending end of a channel.
#[derive(Debug)]
pub struct Sender(Arc<Shared>);

/// The receiving end of a channel.
#[derive(Debug)]
pub struct Receiver(Arc<Shared>);

/// Creates a channel between two subtasks. The consumer is woken when the queue is no longer empty, a producer that found it
/// full when it is half empty again.
#[must_use]
pub fn channel(producer: Arc<Mailbox>, consumer: Arc<Mailbox>) -> (Sender, Receiver) {
    let shared = Arc::new(Shared {
        queue: Mutex::default(),
        producer,
        consumer,
    });
    (Sender(shared.clone()), Receiver(shared))
}

impl Sender {
    /// Sends an element, without blocking.
    ///
    /// # Errors
    /// The element itself, where the channel is full.
    pub fn try_send(&self, element: Element) -> Result<(), Element> {
        let bytes = element.bytes();
        let mut queue = locked(&self.0.queue);
        if queue.elements.len() >= CHANNEL_LEN_MAX || queue.bytes >= CHANNEL_BYTES_MAX {
            queue.refused = true;
            return Err(element);
        }
        queue.elements.push_back(element);
        queue.bytes += bytes;
        let was_empty = queue.elements.len() == 1;
        drop(queue);
        if was_empty {
            self.0.consumer.wake.wake();
        }
        Ok(())
    }
}

impl Receiver {
    /// Returns the next element, or `None` if the channel is empty.
    #[must_use]
    pub fn try_receive(&self) -> Option<Element> {
        let mut queue = locked(&self.0.queue);
        let element = queue.elements.pop_front()?;
        queue.bytes -= element.bytes();
        let has_room = queue.elements.len() <= CHANNEL_LEN_MAX / 2 && queue.bytes <= CHANNEL_BYTES_MAX / 2;
        let has_room_again = has_room && std::mem::take(&mut queue.refused);
        drop(queue);
        if has_room_again {
            self.0.producer.wake.wake();
        }
        Some(element)
    }
}

#[cfg(test)]
mod tests {
    use regraft_model::batch::Batch;

    use super::*;

    fn of_bytes(len: usize) -> Element {
        let mut batch = Batch::default();
        batch.values.push(&vec![0; len]);
        Element::Batch(batch)
    }

    #[test]
    fn bytes_fill_a_channel_too() {
        let producer = Arc::<Mailbox>::default();
        let (sender, receiver) = channel(producer.clone(), Arc::default());
        // Larger than the limit, and taken in alone.
        sender.try_send(of_bytes(2 * CHANNEL_BYTES_MAX)).expect("room");
        sender.try_send(of_bytes(1)).expect_err("full");
        assert!(receiver.try_receive().is_some() && producer.wake.take());
        for _ in 0..3 {
            sender.try_send(of_bytes(CHANNEL_BYTES_MAX / 3 + 1)).expect("room");
        }
        sender.try_send(Element::Idle(true)).expect_err("full");
        assert!(
            receiver.try_receive().is_some() && !producer.wake.take(),
            "more than half full"
        );
        assert!(
            receiver.try_receive().is_some() && producer.wake.take(),
            "half empty again"
        );
        assert!(
            receiver.try_receive().is_some() && !producer.wake.take(),
            "nothing was refused since"
        );
        assert!(receiver.try_receive().is_none());
    }

    #[test]
    fn elements_fill_a_channel() {
        let producer = Arc::<Mailbox>::default();
        let (sender, receiver) = channel(producer.clone(), Arc::default());
        for _ in 0..CHANNEL_LEN_MAX {
            sender.try_send(Element::Idle(true)).expect("room");
        }
        sender.try_send(Element::Idle(true)).expect_err("full");
        for _ in 0..CHANNEL_LEN_MAX / 2 {
            assert!(!producer.wake.take());
            assert!(receiver.try_receive().is_some());
        }
        assert!(producer.wake.take());
    }
}
