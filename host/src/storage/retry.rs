//! Retries for a store that fails for a moment.

use std::time::Duration;

use super::StoreError;
use crate::environment::Environment;

/// Number of times an operation is tried before its error is returned.
pub const ATTEMPTS: u32 = 5;

/// Wait before the second try. Each further wait is [`GROWTH`] times the previous one, about four seconds in total.
pub const FIRST_WAIT: Duration = Duration::from_millis(50);

/// Factor between consecutive waits; see [`FIRST_WAIT`].
pub const GROWTH: u32 = 4;

/// Runs an operation, and retries it after a wait if its error [may pass](StoreError::may_pass).
///
/// # Errors
/// Returns the error of the last try; its message tells the number of tries if there was more than one.
pub async fn retried<T, F>(environment: &dyn Environment, operation: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut wait = FIRST_WAIT;
    let mut attempt = 1;
    loop {
        match operation().await {
            Err(error) if error.may_pass() && attempt < ATTEMPTS => {
                tracing::debug!("{error}; trying again in {} ms", wait.as_millis());
                environment.sleep(wait).await;
                wait *= GROWTH;
                attempt += 1;
            }
            result => return result.map_err(|error| error.after(attempt)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use regraft_model::time::Clock;

    use super::*;
    use crate::environment::Task;
    use crate::environment::files::FileSystem;

    /// An environment that does not wait, but records the requested waits in milliseconds.
    #[derive(Default)]
    struct Impatient(Mutex<Vec<u128>>);

    impl Environment for Impatient {
        fn clock(&self) -> Arc<dyn Clock> {
            unimplemented!("no clock")
        }
        fn random(&self) -> u128 {
            0
        }
        fn spawn(&self, _: Task) {}
        fn sleep(&self, duration: Duration) -> Task {
            self.0.lock().expect("lock").push(duration.as_millis());
            Box::pin(std::future::ready(()))
        }
        fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task {
            work();
            Box::pin(std::future::ready(()))
        }
        fn files(&self) -> Arc<dyn FileSystem> {
            unimplemented!("no files")
        }
    }

    fn failing(kind: std::io::ErrorKind) -> StoreError {
        let source = object_store::Error::Generic {
            store: "x",
            source: Box::new(std::io::Error::new(kind, "503 Slow Down")),
        };
        StoreError::from_object_store(source, "write", "s3://bucket/a".into(), 12)
    }

    /// Runs an operation that fails `fails` times; returns the waits and the result.
    async fn run(fails: u32, kind: std::io::ErrorKind) -> (Vec<u128>, Result<u32, String>) {
        let tries = AtomicU32::new(0);
        let operation = || async {
            let before = tries.fetch_add(1, Ordering::Relaxed);
            if before < fails { Err(failing(kind)) } else { Ok(before) }
        };
        let environment = Impatient::default();
        let result = retried(&environment, operation).await;
        (
            environment.0.into_inner().expect("lock"),
            result.map_err(|error| error.to_string()),
        )
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again() {
        use std::io::ErrorKind::{ConnectionReset, NotADirectory, Other, StorageFull};
        assert_eq!(run(0, Other).await, (vec![], Ok(0)));
        assert_eq!(run(4, ConnectionReset).await, (vec![50, 200, 800, 3200], Ok(4)));
        let said = "cannot write s3://bucket/a: 503 Slow Down (tried 5 times)";
        assert_eq!(run(9, Other).await, (vec![50, 200, 800, 3200], Err(said.into())));
        assert_eq!(run(9, StorageFull).await.0, []);
        let said = "cannot write s3://bucket/a: 503 Slow Down";
        assert_eq!(run(9, NotADirectory).await, (vec![], Err(said.into())));
    }
}
