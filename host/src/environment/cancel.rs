//! A request to stop work that is under way.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A request to stop work that is under way. All clones share it.
///
/// The work asks for it between two of its steps, and then ends with an error.
#[derive(Debug, Clone, Default)]
pub struct Cancellation(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    cancelled: AtomicBool,
    notify: Notify,
}

impl Cancellation {
    /// Requests that the work stops. Doing it again changes nothing.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Returns true if the work is to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Acquire)
    }

    /// Waits until the work is to stop.
    pub async fn cancelled(&self) {
        let mut notified = pin!(self.0.notify.notified());
        // Registered before the flag is read, so that no request is missed.
        notified.as_mut().enable();
        if !self.is_cancelled() {
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_learns_of_the_request() {
        let (one, other) = (Cancellation::default(), Cancellation::default());
        let clone = one.clone();
        let waiting = tokio::spawn(async move { clone.cancelled().await });
        tokio::task::yield_now().await;
        assert!(!one.is_cancelled() && !waiting.is_finished());
        one.cancel();
        waiting.await.expect("ended");
        one.cancelled().await;
        assert!(one.is_cancelled() && !other.is_cancelled());
    }
}
