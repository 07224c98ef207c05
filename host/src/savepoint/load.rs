//! Opens the savepoint that a user names, and reads its files.
//!
//! A savepoint is input: it may come from anyone, with checksums that fit. Nothing is opened outside of its directory, no
//! memory is allocated by a number that was not compared with the real file, and what is unpacked is counted.
//! All data that is read is checked: size and checksum of the file, or of the parts that are needed, and the order of the
//! rows.

use bytes::Bytes;
use regraft_model::key_group::KeyGroupRange;
use regraft_model::schema::Field;

use crate::savepoint::budget::{Budget, Loan, OverBudget};
use crate::savepoint::metadata::{METADATA_BYTES_MAX, Metadata, MetadataError, StateEntry, StateFile, checksum};
use crate::savepoint::permit::CommitPermit;
use crate::savepoint::row_check::RowCheck;
use crate::savepoint::rows::{
    FileParts, GroupExtent, Place, ROW_GROUP_PACKED_MAX, RowsError, StateFileSpec, StateRows, column_count,
    read_row_group, read_state_file,
};
use crate::storage::{Storage, StoreError, Stores, paths};

/// Bytes in the file of a row group with one row, at most.
const ROW_PACKED_MAX: u64 = 4 << 30;
/// Bytes of a file behind its row groups, at most: for the file, and for each column of each row group.
const FOOTER_BYTES_MAX: u64 = 2 << 20;
const FOOTER_BYTES_OF_COLUMN: u64 = 1 << 10;
/// Bytes of memory that a byte of it takes when it is parsed, at most.
const FOOTER_FACTOR: u64 = 24;

/// A complete savepoint or checkpoint at its present location.
#[derive(Debug, Clone)]
pub struct Savepoint {
    /// Its location, to which all paths are relative.
    pub storage: Storage,
    /// Its content.
    pub metadata: Metadata,
}

/// Returns the directory of a savepoint from a path or URL of the directory or of its `_metadata` file.
///
/// # Errors
/// [`StoreError::InvalidLocation`].
pub fn directory(stores: &dyn Stores, location: &str) -> Result<Storage, StoreError> {
    let storage = stores.open(location)?;
    Ok(match storage.parent() {
        Some(directory) if storage.name() == paths::METADATA => directory,
        _ => storage,
    })
}

impl Savepoint {
    /// Opens a savepoint, given its directory or its `_metadata` file as a path or URL.
    ///
    /// # Errors
    /// - [`MetadataError::Missing`] if there is none.
    /// - [`MetadataError::Store`] if the location is not valid or cannot be read.
    /// - Those of [`Metadata::from_text`].
    pub async fn open(stores: &dyn Stores, location: &str) -> Result<Self, MetadataError> {
        Self::load(directory(stores, location)?).await
    }

    /// Reads the `_metadata` of a directory.
    ///
    /// # Errors
    /// - [`MetadataError::Missing`] if there is none.
    /// - [`MetadataError::Refused`] if it is no regular file, leads out of the directory, or is too large.
    /// - [`MetadataError::Store`] if it cannot be read.
    /// - Those of [`Metadata::from_text`].
    pub async fn load(storage: Storage) -> Result<Self, MetadataError> {
        let path = storage.url_of(paths::METADATA);
        let text = match storage.read_at_most(paths::METADATA, METADATA_BYTES_MAX).await {
            Ok(text) => text,
            Err(StoreError::NotFound { path }) => return Err(MetadataError::Missing { path }),
            Err(error) => return Err(error.into()),
        };
        let metadata = Metadata::from_text(&text, &path)?;
        Ok(Self { storage, metadata })
    }

    /// Permission to commit the output that it names.
    #[must_use]
    pub fn permit(&self) -> CommitPermit {
        CommitPermit::of(&self.metadata)
    }

    /// Its location as a URL.
    #[must_use]
    pub fn url(&self) -> String {
        self.storage.url()
    }

    /// Returns the URL of a file that `_metadata` lists.
    #[must_use]
    pub fn url_of(&self, path: &str) -> String {
        match self.locate(path) {
            Ok((storage, name)) => storage.url_of(&name),
            Err(_) => self.storage.url_of(path),
        }
    }

    /// Resolves a path in `_metadata` to a location and a name: in the savepoint's directory, or in that of its job for a file
    /// that the checkpoints of the job share.
    fn locate(&self, path: &str) -> Result<(Storage, String), StoreError> {
        let Some(name) = paths::in_shared(path) else {
            return Ok((self.storage.clone(), path.to_owned()));
        };
        let job = self.storage.parent().ok_or_else(|| StoreError::InvalidLocation {
            location: self.storage.url(),
            reason: format!("its _metadata refers to {path}"),
        })?;
        Ok((job, format!("{}/{name}", paths::SHARED_DIR)))
    }

    /// Reads the parts of a state file that `range` needs, or all of it if `_metadata` does not list its parts. The memory
    /// that they take is lent until the loan is dropped.
    ///
    /// # Errors
    /// - [`MetadataError::FileMissing`], [`MetadataError::SharedMissing`] if the file does not exist.
    /// - [`MetadataError::FileSize`] if it has another size.
    /// - [`MetadataError::Refused`] if it is no regular file, or leads out of the directory.
    /// - [`MetadataError::Rows`] if a part is larger than any that is written, or the budget is used up.
    /// - [`MetadataError::Damaged`] if a checksum is wrong.
    /// - [`MetadataError::Store`] if it cannot be read.
    pub async fn read_parts(
        &self,
        state: &StateEntry,
        file: &StateFile,
        range: KeyGroupRange,
        budget: &Budget,
    ) -> Result<(FileParts, Loan), MetadataError> {
        let is_wanted = |extent: &&GroupExtent| extent.range().intersect(range).is_some();
        self.read_wanted(state, file, is_wanted, budget).await
    }

    async fn read_wanted(
        &self,
        state: &StateEntry,
        file: &StateFile,
        is_wanted: impl Fn(&&GroupExtent) -> bool,
        budget: &Budget,
    ) -> Result<(FileParts, Loan), MetadataError> {
        self.check_claims(state, file)?;
        let whole = Place {
            offset: 0,
            bytes: file.bytes,
            checksum: file.checksum.clone(),
        };
        let mut places: Vec<&Place> = vec![];
        if let Some(footer) = &file.footer {
            let wanted = file.groups.iter().filter(is_wanted);
            places.extend(wanted.filter_map(|extent| extent.place.as_ref()));
            places.push(footer);
        } else {
            places.push(&whole);
        }
        let footer = file.footer.as_ref().map_or(0, |footer| footer.bytes);
        let sum = places.iter().map(|place| place.bytes).fold(0, u64::saturating_add);
        let sum = sum.saturating_add(footer.saturating_mul(FOOTER_FACTOR));
        // A file of another size is said to be that, whatever is claimed of it.
        let loan = match budget.lend(sum) {
            Ok(loan) => loan,
            Err(over) => {
                self.check_size(file).await?;
                return Err(self.over_budget(state, file, over));
            }
        };
        let ranges: Vec<_> = places.iter().map(|place| place.range()).collect();
        let (storage, name) = self.locate(&file.path)?;
        let read = match storage.read_parts(&name, file.bytes, &ranges).await {
            Ok(read) => read,
            Err(error) => return Err(self.read_error(&file.path, file.bytes, error).await),
        };
        let path = storage.url_of(&name);
        let mut parts = vec![];
        for (place, bytes) in places.into_iter().zip(read) {
            check_bytes(&path, &bytes, place.bytes, &place.checksum)?;
            parts.push((place.offset, bytes));
        }
        Ok((FileParts::new(file.bytes, parts), loan))
    }

    /// Checks that no part of a file is said to be larger than any that is written.
    ///
    /// # Errors
    /// Returns [`MetadataError::Rows`] if one is.
    pub(super) fn check_claims(&self, state: &StateEntry, file: &StateFile) -> Result<(), MetadataError> {
        let most_of = |extent: &GroupExtent| match extent.rows {
            0 | 1 => ROW_PACKED_MAX,
            _ => ROW_GROUP_PACKED_MAX,
        };
        let mut parts = file.groups.iter().filter_map(|extent| {
            let bytes = extent.place.as_ref()?.bytes;
            (bytes > most_of(extent)).then_some((extent, bytes))
        });
        let too_large = |what: &str, bytes: u64, most: u64| {
            let reason = format!("{what} has {bytes} bytes, expected at most {most}");
            Err(self.too_large(state, file, reason))
        };
        if let Some((extent, bytes)) = parts.next() {
            return too_large(&format!("row group {}", extent.row_group), bytes, most_of(extent));
        }
        let key = state.key_field();
        let columns = column_count(&self.spec(state, file, &key)) as u64;
        let of_columns = columns
            .saturating_mul(file.groups.len() as u64)
            .saturating_mul(FOOTER_BYTES_OF_COLUMN);
        let most = FOOTER_BYTES_MAX.saturating_add(of_columns);
        match file.footer.as_ref().filter(|footer| footer.bytes > most) {
            Some(footer) => too_large("what follows its row groups", footer.bytes, most),
            None => Ok(()),
        }
    }

    /// Checks that a state file exists, is a regular file, and has its size.
    async fn check_size(&self, file: &StateFile) -> Result<(), MetadataError> {
        let (storage, name) = self.locate(&file.path)?;
        match storage.read_parts(&name, file.bytes, &[]).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.read_error(&file.path, file.bytes, error).await),
        }
    }

    fn too_large(&self, state: &StateEntry, file: &StateFile, reason: String) -> MetadataError {
        MetadataError::Rows {
            path: self.url_of(&file.path),
            source: Box::new(RowsError::TooLarge {
                state: state.name.clone(),
                reason,
            }),
        }
    }

    /// Returns the error of state for which there is not enough memory.
    pub(super) fn over_budget(&self, state: &StateEntry, file: &StateFile, over: OverBudget) -> MetadataError {
        self.too_large(state, file, over.to_string())
    }

    /// Passes a whole file to a function, a few megabytes at a time.
    ///
    /// # Errors
    /// As [`Savepoint::read_parts`].
    pub(super) async fn read_blocks(
        &self,
        path: &str,
        bytes: u64,
        each: impl FnMut(&[u8]) + Send,
    ) -> Result<(), MetadataError> {
        let (storage, name) = self.locate(path)?;
        match storage.read_blocks(&name, bytes, each).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.read_error(path, bytes, error).await),
        }
    }

    /// Finds the error to report for a file that could not be read.
    async fn read_error(&self, path: &str, size: u64, error: StoreError) -> MetadataError {
        if let StoreError::NotFound { path: url } = error {
            return match paths::in_shared(path) {
                Some(_) => MetadataError::SharedMissing { path: url },
                None => MetadataError::FileMissing { path: url },
            };
        }
        let is_refused = matches!(error, StoreError::Refused { .. });
        let found = match self.locate(path) {
            Ok((storage, name)) if !is_refused => storage.size(&name).await.ok().flatten(),
            _ => None,
        };
        match found.filter(|found| *found != size) {
            Some(found) => MetadataError::FileSize {
                path: self.url_of(path),
                expected: size,
                found,
            },
            None => error.into(),
        }
    }

    /// Reads the rows of the key groups in `range`. Decodes them on the calling thread, a few million per second.
    ///
    /// # Errors
    /// As [`Savepoint::read_parts`] and [`Savepoint::decode_rows`].
    pub async fn read_rows(
        &self,
        state: &StateEntry,
        file: &StateFile,
        range: KeyGroupRange,
        budget: &Budget,
    ) -> Result<Vec<StateRows>, MetadataError> {
        let (parts, _loan) = self.read_parts(state, file, range, budget).await?;
        self.decode_rows(state, file, range, parts, budget)
    }

    /// Decodes the rows of the key groups in `range` from parts of a state file, and checks their order.
    ///
    /// # Errors
    /// Returns [`MetadataError::Rows`] if the rows cannot be decoded or are not in order, or the budget is used up.
    pub fn decode_rows(
        &self,
        state: &StateEntry,
        file: &StateFile,
        range: KeyGroupRange,
        parts: impl Into<FileParts>,
        budget: &Budget,
    ) -> Result<Vec<StateRows>, MetadataError> {
        let key = state.key_field();
        let read = read_state_file(parts, &self.spec(state, file, &key), range, &file.groups, budget);
        let rows = read.map_err(|source| self.rows_error(file, source))?;
        let mut check = RowCheck::new(state, file, self.metadata.max_parallelism);
        match rows.iter().find_map(|rows| check.next(rows)) {
            None => Ok(rows),
            Some(reason) => Err(self.wrong_rows(state, file, reason)),
        }
    }

    /// Returns the error of rows that are not as they have to be, for a reason that is a clause.
    #[must_use]
    pub fn wrong_rows(&self, state: &StateEntry, file: &StateFile, reason: String) -> MetadataError {
        let state = state.name.clone();
        self.rows_error(file, RowsError::Order { state, reason })
    }

    /// Reads the rows of one row group, whose order is not checked; of the whole file if `_metadata` does not list its
    /// parts.
    ///
    /// # Errors
    /// As [`Savepoint::read_rows`].
    pub(super) async fn read_row_group(
        &self,
        state: &StateEntry,
        file: &StateFile,
        extent: &GroupExtent,
        budget: &Budget,
    ) -> Result<Vec<StateRows>, MetadataError> {
        let is_it = |other: &&GroupExtent| other.row_group == extent.row_group;
        let (parts, _loan) = self.read_wanted(state, file, is_it, budget).await?;
        let key = state.key_field();
        let spec = self.spec(state, file, &key);
        let read = read_row_group(parts, &spec, &file.groups, extent.row_group, budget);
        read.map_err(|source| self.rows_error(file, source))
    }

    fn spec<'a>(&self, state: &'a StateEntry, file: &StateFile, key: &'a Field) -> StateFileSpec<'a> {
        StateFileSpec {
            layout: self.metadata.format,
            state: &state.name,
            key,
            entries: state.entries_of_key(),
            value: state.schema_of(file),
            schema: file.schema,
            expires: true,
        }
    }

    fn rows_error(&self, file: &StateFile, source: RowsError) -> MetadataError {
        MetadataError::Rows {
            path: self.url_of(&file.path),
            source: Box::new(source),
        }
    }
}

fn check_bytes(path: &str, bytes: &Bytes, size: u64, expected: &str) -> Result<(), MetadataError> {
    if bytes.len() as u64 != size {
        return Err(MetadataError::FileSize {
            path: path.to_owned(),
            expected: size,
            found: bytes.len() as u64,
        });
    }
    let found = checksum(bytes);
    if found != expected {
        return Err(MetadataError::Damaged {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        });
    }
    Ok(())
}
