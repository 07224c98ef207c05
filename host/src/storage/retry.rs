//! Retries of storage operations, for stores that fail for a moment.

use std::time::Duration;

use super::StoreError;
use crate::backoff::Backoff;
use crate::environment::Environment;
use crate::environment::cancel::Cancellation;

/// Five tries with 50, 200, 800 and 3,200 ms between them.
const WAITS: Backoff = Backoff::new(Duration::from_millis(50), 4, Duration::from_secs(10)).tries(5);

/// Runs an operation until it succeeds or fails with an error that [does not pass](StoreError::may_pass), at most five times
/// within about four seconds.
///
/// # Errors
/// The last try's error. After more than one try its message has their number.
pub async fn retried<T, F>(environment: &dyn Environment, operation: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    retried_until(environment, &Cancellation::default(), operation).await
}

/// Like [`retried`], without another try once the work is cancelled.
///
/// # Errors
/// Those of [`retried`].
pub async fn retried_until<T, F>(
    environment: &dyn Environment,
    cancellation: &Cancellation,
    operation: impl Fn() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut waits = WAITS;
    let mut tries = 1;
    loop {
        let error = match operation().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(wait) = waits.next().filter(|_| error.may_pass()) else {
            return Err(error.after(tries));
        };
        tracing::debug!("{error}; trying again in {} ms", wait.as_millis());
        tokio::select! {
            () = environment.sleep(wait) => tries += 1,
            () = cancellation.cancelled() => return Err(error.after(tries)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::environment::immediate::Immediate;

    fn failing(kind: std::io::ErrorKind) -> StoreError {
        let source = object_store::Error::Generic {
            store: "x",
            source: Box::new(std::io::Error::new(kind, "503 Slow Down")),
        };
        StoreError::from_object_store(source, "write", "s3://bucket/a".into(), 12)
    }

    /// Returns the waits in milliseconds of an operation that fails `fails` times, and its result.
    async fn run(fails: u32, kind: std::io::ErrorKind) -> (Vec<u128>, Result<u32, String>) {
        let tries = AtomicU32::new(0);
        let operation = || async {
            let before = tries.fetch_add(1, Ordering::Relaxed);
            if before < fails { Err(failing(kind)) } else { Ok(before) }
        };
        let environment = Immediate::default();
        let result = retried(&environment, operation).await;
        let waits = environment.waits.into_inner().expect("lock");
        (
            waits.iter().map(std::time::Duration::as_millis).collect(),
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
