//! Reading and removing objects whose content may come from anyone: nothing is allocated by a size that is not that of the
//! object.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStoreExt as _;

use super::StoreError;
use super::below::{self, BelowError};
use super::error::Refusal;
use super::object::Storage;

/// Size of the blocks in which [`Storage::read_blocks`] reads, in bytes.
const BLOCK: u64 = 4 << 20;

impl Storage {
    /// Reads a whole object of at most `most` bytes.
    ///
    /// # Errors
    /// As [`Storage::read_parts`], and [`Refusal::TooLarge`].
    pub async fn read_at_most(&self, name: &str, most: u64) -> Result<Bytes, StoreError> {
        let Some(dir) = self.local_dir() else {
            let failed = |error| StoreError::from_object_store(error, "read", self.url_of(name), 0);
            let found = self.store.get(&self.path(name)?).await.map_err(failed)?;
            self.check_size(name, found.meta.size, most)?;
            return found.bytes().await.map_err(failed);
        };
        let (file, bytes) = self.open_below(dir, name).await?;
        self.check_size(name, bytes, most)?;
        self.read_range(&file, name, 0..bytes).await
    }

    /// Reads ranges of an object that must have `bytes` bytes.
    ///
    /// # Errors
    /// - [`StoreError::NotFound`] if it does not exist.
    /// - [`StoreError::Refused`] if it has another size, is no regular file, or is reached over a link that leads out of
    ///   the location.
    /// - Another error of the store.
    pub async fn read_parts(&self, name: &str, bytes: u64, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let outside = |range: &&Range<u64>| range.start > range.end || range.end > bytes;
        if let Some(range) = ranges.iter().find(outside) {
            let (expected, found) = (range.end, bytes);
            return Err(self.refused(name, Refusal::Size { expected, found }));
        }
        let Some(dir) = self.local_dir() else {
            self.check_remote_size(name, bytes).await?;
            return self.read_ranges(name, ranges).await;
        };
        let file = self.open_sized(dir, name, bytes).await?;
        let mut read = vec![];
        for range in ranges {
            read.push(self.read_range(&file, name, range.clone()).await?);
        }
        Ok(read)
    }

    /// Passes all of an object that must have `bytes` bytes to a function, a few megabytes at a time.
    ///
    /// # Errors
    /// As [`Storage::read_parts`].
    pub async fn read_blocks(
        &self,
        name: &str,
        bytes: u64,
        mut each: impl FnMut(&[u8]) + Send,
    ) -> Result<(), StoreError> {
        let file = match self.local_dir() {
            Some(dir) => Some(self.open_sized(dir, name, bytes).await?),
            None => None,
        };
        if file.is_none() {
            self.check_remote_size(name, bytes).await?;
        }
        let mut at = 0;
        while at < bytes {
            let end = bytes.min(at + BLOCK);
            let block = match &file {
                Some(file) => self.read_range(file, name, at..end).await?,
                None => self.read_remote_range(name, at..end).await?,
            };
            // An object that was replaced meanwhile may be shorter.
            let found = at + block.len() as u64;
            self.check_same_size(name, end, found)?;
            each(&block);
            at = end;
        }
        Ok(())
    }

    /// Reads a range of an object that is not on this machine.
    async fn read_remote_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let failed = |error| StoreError::from_object_store(error, "read", self.url_of(name), 0);
        self.store.get_range(&self.path(name)?, range).await.map_err(failed)
    }

    /// Checks that an object that is not on this machine exists and has `bytes` bytes, without reading it.
    async fn check_remote_size(&self, name: &str, bytes: u64) -> Result<(), StoreError> {
        let path = || self.url_of(name);
        let found = self.size(name).await?;
        let found = found.ok_or_else(|| StoreError::NotFound { path: path() })?;
        self.check_same_size(name, bytes, found)
    }

    fn check_same_size(&self, name: &str, expected: u64, found: u64) -> Result<(), StoreError> {
        if found != expected {
            return Err(self.refused(name, Refusal::Size { expected, found }));
        }
        Ok(())
    }

    /// Returns true if an object exists, and false if not.
    ///
    /// # Errors
    /// Returns [`StoreError::Refused`] if it is not a regular file, or reached over a link; otherwise the store's error.
    pub async fn is_plain_file(&self, name: &str) -> Result<bool, StoreError> {
        let Some(dir) = self.local_dir() else {
            return self.exists(name).await;
        };
        let at = name.to_owned();
        self.below(name, "read", move || below::is_plain_file(&dir, &at)).await
    }

    /// Removes an object, following no link. A missing one is no error.
    ///
    /// # Errors
    /// Returns [`StoreError::Refused`] if it is reached over a link; otherwise the store's error.
    pub async fn remove(&self, name: &str) -> Result<(), StoreError> {
        let Some(dir) = self.local_dir() else {
            return self.delete(name).await;
        };
        let at = name.to_owned();
        self.below(name, "delete", move || below::remove(&dir, &at)).await
    }

    /// Returns the names of all objects at the location, at most `most` of them. A link is one, and is not followed.
    ///
    /// # Errors
    /// Returns the store's error.
    pub async fn names(&self, most: usize) -> Result<Vec<String>, StoreError> {
        let Some(dir) = self.local_dir() else {
            let found = self.list("").await?.into_iter().map(|object| object.name);
            return Ok(found.take(most).collect());
        };
        self.below("", "list", move || Ok(below::names(&dir, most)?)).await
    }

    async fn open_sized(&self, dir: PathBuf, name: &str, bytes: u64) -> Result<Arc<File>, StoreError> {
        let (file, found) = self.open_below(dir, name).await?;
        self.check_same_size(name, bytes, found)?;
        Ok(file)
    }

    async fn open_below(&self, dir: PathBuf, name: &str) -> Result<(Arc<File>, u64), StoreError> {
        let at = name.to_owned();
        let open = move || below::open(&dir, &at).map(|(file, bytes)| (Arc::new(file), bytes));
        self.below(name, "read", open).await
    }

    async fn read_range(&self, file: &Arc<File>, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let file = file.clone();
        let read = move || {
            let len = usize::try_from(range.end - range.start).map_err(std::io::Error::other)?;
            let mut bytes = vec![0; len];
            file.read_exact_at(&mut bytes, range.start)?;
            Ok(bytes.into())
        };
        self.below(name, "read", read).await
    }

    /// Runs work that blocks, on an object whose name leads below the location.
    async fn below<T: Send + 'static>(
        &self,
        name: &str,
        operation: &'static str,
        work: impl FnOnce() -> Result<T, BelowError> + Send + 'static,
    ) -> Result<T, StoreError> {
        // A name with empty parts, or one of `.` and `..`, is refused.
        self.path(name)?;
        let done = tokio::task::spawn_blocking(work).await;
        let done = done.unwrap_or_else(|panicked| Err(BelowError::Io(panicked.into())));
        done.map_err(|error| match error {
            BelowError::Io(error) => StoreError::from_io(error, operation, self.url_of(name)),
            BelowError::Refused(refusal) => self.refused(name, refusal),
        })
    }

    fn check_size(&self, name: &str, bytes: u64, most: u64) -> Result<(), StoreError> {
        if bytes > most {
            return Err(self.refused(name, Refusal::TooLarge { bytes, most }));
        }
        Ok(())
    }

    fn refused(&self, name: &str, refusal: Refusal) -> StoreError {
        let path = self.url_of(name);
        StoreError::Refused { path, refusal }
    }
}
