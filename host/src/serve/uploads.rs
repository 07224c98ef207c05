//! Components that were uploaded for a submission or an upgrade, and that wait for it. Their number, bytes and time are bounded.
//! The time comes from outside.

use std::time::{Duration, Instant};

use regraft_guest_runtime::module::GuestModule;

/// Number of uploaded components that are kept; the oldest is dropped first.
const UPLOADS_MAX: usize = 256;
/// Bytes of uploaded components that are kept, beside the last one.
const UPLOADS_BYTES_MAX: usize = 256 << 20;
/// Time after which an uploaded component is dropped.
pub(super) const UPLOAD_IDLE_MAX: Duration = Duration::from_secs(600);

/// Uploaded components in order of their upload.
#[derive(Debug)]
pub(super) struct Uploads<M = GuestModule> {
    uploads: Vec<Upload<M>>,
}

/// An uploaded component.
#[derive(Debug)]
pub(super) struct Upload<M = GuestModule> {
    /// SHA-256 of the component.
    pub(super) digest: String,
    /// The component.
    pub(super) module: M,
    /// Its size.
    pub(super) bytes: usize,
    /// Time that it took to load.
    pub(super) took: Duration,
    /// Time of the upload.
    pub(super) at: Instant,
}

impl<M> Default for Uploads<M> {
    fn default() -> Self {
        Self { uploads: vec![] }
    }
}

impl<M> Uploads<M> {
    /// Adds a component in place of an earlier upload of the same one, and drops the oldest ones if there are too many.
    pub(super) fn add(&mut self, upload: Upload<M>) {
        self.uploads.retain(|other| other.digest != upload.digest);
        while self.uploads.len() >= UPLOADS_MAX || self.bytes() > UPLOADS_BYTES_MAX {
            self.uploads.remove(0);
        }
        self.uploads.push(upload);
    }

    fn bytes(&self) -> usize {
        self.uploads.iter().map(|upload| upload.bytes).sum()
    }

    /// Returns a component that is still kept.
    pub(super) fn get(&self, digest: &str, now: Instant) -> Option<&Upload<M>> {
        let mut uploads = self.uploads.iter();
        uploads.find(|upload| upload.digest == digest && !upload.is_old(now))
    }

    /// Drops the components whose time is over. Returns the time until that of the next one is; `None` if there is none left.
    pub(super) fn drop_old(&mut self, now: Instant) -> Option<Duration> {
        self.uploads.retain(|upload| !upload.is_old(now));
        let ages = self.uploads.iter().map(|upload| upload.age(now));
        ages.max().map(|age| UPLOAD_IDLE_MAX.saturating_sub(age))
    }
}

impl<M> Upload<M> {
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }

    fn is_old(&self, now: Instant) -> bool {
        self.age(now) >= UPLOAD_IDLE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(digest: usize, bytes: usize, at: Instant) -> Upload<()> {
        Upload {
            digest: digest.to_string(),
            module: (),
            bytes,
            took: Duration::ZERO,
            at,
        }
    }

    #[test]
    fn one_is_dropped_when_its_time_is_over() {
        let (mut uploads, start, second) = (Uploads::default(), Instant::now(), Duration::from_secs(1));
        assert_eq!(uploads.drop_old(start), None);
        uploads.add(upload(1, 1, start));
        uploads.add(upload(2, 1, start + second));
        assert_eq!(uploads.drop_old(start + second), Some(UPLOAD_IDLE_MAX - second));
        let late = start + UPLOAD_IDLE_MAX;
        assert!(uploads.get("1", late - second).is_some());
        assert!(uploads.get("1", late).is_none() && uploads.get("2", late).is_some());
        assert_eq!(uploads.drop_old(late), Some(second));
        assert_eq!(uploads.bytes(), 1);
        assert_eq!(uploads.drop_old(late + second), None);
    }

    #[test]
    fn the_oldest_are_dropped_where_there_are_too_many() {
        let (mut uploads, now) = (Uploads::default(), Instant::now());
        for digest in 0..=UPLOADS_MAX {
            uploads.add(upload(digest, 1, now));
        }
        assert!(uploads.get("0", now).is_none() && uploads.get("1", now).is_some());
        uploads.add(upload(1, 1, now));
        assert_eq!(uploads.uploads.len(), UPLOADS_MAX);
        uploads.add(upload(0, UPLOADS_BYTES_MAX + 1, now));
        assert_eq!(uploads.uploads.len(), UPLOADS_MAX);
        uploads.add(upload(2, 1, now));
        assert_eq!(uploads.bytes(), 1, "the large one is dropped, and all before it");
    }
}
