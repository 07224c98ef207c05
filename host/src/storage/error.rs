//! Errors of stored objects. Each variant names the object or the location.

use std::io;

use regraft_model::error_kind::ErrorKind;

/// Reason why an object is not read or removed, as a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not a regular file.
    #[error("is {0}, expected a regular file")]
    NotRegular(&'static str),
    /// It is a link out of its directory, or behind one.
    #[error(
        "is reached over a symbolic link that leads out of its directory. Put the file itself in the link's place."
    )]
    LeadsOut,
    /// It is a link, or behind one.
    #[error("is a symbolic link, or behind one, which is not followed to remove anything. Remove the link yourself.")]
    Link,
    /// It is larger than any object of its kind.
    #[error("has {bytes} bytes, expected at most {most}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        most: u64,
    },
    /// It has another size than is said of it.
    #[error("has {found} bytes, expected {expected}")]
    Size {
        /// The size that is said of it.
        expected: u64,
        /// Its size.
        found: u64,
    },
}

/// An operation on stored objects failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object does not exist.
    #[error("{path} does not exist")]
    NotFound {
        /// URL of the object.
        path: String,
    },
    /// A create-only put found an existing object.
    #[error("{path} already exists")]
    AlreadyExists {
        /// URL of the object.
        path: String,
    },
    /// The device is full, or the quota is used up.
    #[error("no space left writing {path} ({bytes} bytes needed). Free some space, or choose another directory.")]
    NoSpace {
        /// URL of the object.
        path: String,
        /// Size of the object that was to be written; 0 if unknown.
        bytes: u64,
    },
    /// The host lacks the permission, or the file system is read-only.
    #[error("no permission to {operation} {path}. Check its owner and mode, or choose another directory.")]
    Permission {
        /// `read`, `write`, `list` or `delete`.
        operation: &'static str,
        /// URL of the object or location.
        path: String,
    },
    /// The work was cancelled before the object was written or read.
    #[error("the work on {path} was cancelled")]
    Cancelled {
        /// URL of the object.
        path: String,
    },
    /// The scheme of the location is not supported.
    #[error(
        "cannot open {location}: the scheme {scheme:?} is not supported. Supported today: a plain path, or file:///PATH."
    )]
    UnsupportedScheme {
        /// The location as given.
        location: String,
        /// The part before `://`.
        scheme: String,
    },
    /// The text is not a location.
    #[error("{location:?} is not a location: {reason}. Give a plain path, or file:///PATH.")]
    InvalidLocation {
        /// The location as given.
        location: String,
        /// The reason, as a clause.
        reason: String,
    },
    /// The object is not what it has to be.
    #[error("{path} {refusal}")]
    Refused {
        /// URL of the object.
        path: String,
        /// The reason.
        refusal: Refusal,
    },
    /// Any other error of the store.
    #[error("cannot {operation} {path}: {message}")]
    Failed {
        /// `read`, `write`, `list` or `delete`.
        operation: &'static str,
        /// URL of the object or location.
        path: String,
        /// Message of the root cause.
        message: String,
        /// The store's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Returns the kind of this error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::UnsupportedScheme { .. } | Self::InvalidLocation { .. } => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        }
    }

    /// Returns true if the object does not exist.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// Returns the URL of the object, or the location.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::NotFound { path }
            | Self::AlreadyExists { path }
            | Self::NoSpace { path, .. }
            | Self::Permission { path, .. }
            | Self::Cancelled { path }
            | Self::Refused { path, .. }
            | Self::Failed { path, .. } => path,
            Self::UnsupportedScheme { location, .. } | Self::InvalidLocation { location, .. } => location,
        }
    }

    /// Returns true if the same operation may succeed a little later.
    ///
    /// That is so if the store does not answer or reports an error of its own, or if a device fails.
    /// It is not so if the user has to change something first.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        let Self::Failed { source, .. } = self else {
            return false;
        };
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(source.as_ref());
        while let Some(error) = cause {
            if let Some(error) = error.downcast_ref::<object_store::Error>()
                && !matches!(
                    error,
                    object_store::Error::Generic { .. } | object_store::Error::JoinError { .. }
                )
            {
                return false;
            }
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if matches!(
                kind,
                Some(
                    io::ErrorKind::NotADirectory
                        | io::ErrorKind::IsADirectory
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::InvalidFilename
                        | io::ErrorKind::FileTooLarge
                        | io::ErrorKind::Unsupported
                )
            ) {
                return false;
            }
            cause = error.source();
        }
        true
    }

    /// Adds the number of attempts to the message of a [`StoreError::Failed`].
    #[must_use]
    pub(super) fn after(mut self, attempts: u32) -> Self {
        if let Self::Failed { message, .. } = &mut self
            && attempts > 1
        {
            *message = format!("{message} (tried {attempts} times)");
        }
        self
    }

    /// Converts an error of `object_store`; `bytes` is the size of the object that was to be written.
    pub(crate) fn from_object_store(
        source: object_store::Error,
        operation: &'static str,
        path: String,
        bytes: usize,
    ) -> Self {
        match source {
            // When a write reports it, a directory could not be created.
            object_store::Error::NotFound { .. } if operation != "write" => Self::NotFound { path },
            object_store::Error::AlreadyExists { .. } => Self::AlreadyExists { path },
            other => Self::from_cause(Box::new(other), operation, path, bytes),
        }
    }

    /// Converts an error of the file system.
    pub(crate) fn from_io(source: io::Error, operation: &'static str, path: String) -> Self {
        Self::from_cause(Box::new(source), operation, path, 0)
    }

    fn from_cause(
        source: Box<dyn std::error::Error + Send + Sync>,
        operation: &'static str,
        path: String,
        bytes: usize,
    ) -> Self {
        let mut cause: &(dyn std::error::Error + 'static) = source.as_ref();
        let mut io_kind = None;
        loop {
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                io_kind = Some(io.kind());
            }
            match cause.source() {
                Some(next) => cause = next,
                None => break,
            }
        }
        match io_kind {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Self::NoSpace {
                path,
                bytes: bytes as u64,
            },
            Some(io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
                Self::Permission { operation, path }
            }
            Some(io::ErrorKind::NotFound) => Self::NotFound { path },
            _ => Self::Failed {
                operation,
                path,
                message: cause.to_string(),
                source,
            },
        }
    }
}
