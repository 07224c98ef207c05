//! A bounded queue of elements from one subtask to another. It never blocks: a sender or receiver that cannot go on
//! waits for its mailbox to be woken.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::super::control::{Mailbox, locked};
use super::super::element::Element;

/// Limit of elements in flight on one channel. Batches are large, so more would only add latency and alignment time.
pub const CHANNEL_LEN_MAX: usize = 8;

#[derive(Debug)]
struct Shared {
    queue: Mutex<VecDeque<Element>>,
    producer: Arc<Mailbox>,
    consumer: Arc<Mailbox>,
}

/// The sending end of a channel.
#[derive(Debug)]
pub struct Sender(Arc<Shared>);

/// The receiving end of a channel.
#[derive(Debug)]
pub struct Receiver(Arc<Shared>);

/// Creates a channel between two subtasks. The consumer is woken when the queue is no longer empty, the producer when
/// it is half empty again.
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
        let mut queue = locked(&self.0.queue);
        if queue.len() >= CHANNEL_LEN_MAX {
            return Err(element);
        }
        queue.push_back(element);
        let was_empty = queue.len() == 1;
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
        let element = queue.pop_front();
        let has_room_again = queue.len() == CHANNEL_LEN_MAX / 2;
        drop(queue);
        if element.is_some() && has_room_again {
            self.0.producer.wake.wake();
        }
        element
    }
}
