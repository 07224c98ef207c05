//! What can go wrong with stored objects, in plain words. Every variant names the object or the location.

use std::io;

use regraft_model::error_kind::ErrorKind;

/// An operation on stored objects that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such object.
    #[error("{path} does not exist")]
    NotFound {
        /// As a URL.
        path: String,
    },
    /// A create-only put found the object there.
    #[error("{path} already exists")]
    AlreadyExists {
        /// As a URL.
        path: String,
    },
    /// The disk is full.
    #[error("no space left writing {path} ({bytes} bytes needed). Free some space, or choose another directory.")]
    NoSpace {
        /// As a URL.
        path: String,
        /// What was to be written.
        bytes: u64,
    },
    /// The host may not do this there.
    #[error("no permission to {operation} {path}. Check its owner and mode, or choose another directory.")]
    Permission {
        /// `read`, `write`, `list` or `delete`.
        operation: &'static str,
        /// As a URL.
        path: String,
    },
    /// The location's scheme is not one of those that this host knows.
    #[error(
        "cannot open {location}: the scheme {scheme:?} is not supported. Supported today: a plain path, or file:///PATH."
    )]
    UnsupportedScheme {
        /// As given.
        location: String,
        /// What stands before `://`.
        scheme: String,
    },
    /// The text is no location.
    #[error("{location:?} is not a location: {reason}. Give a plain path, or file:///PATH.")]
    InvalidLocation {
        /// As given.
        location: String,
        /// Why not.
        reason: String,
    },
    /// Anything else that the store said.
    #[error("cannot {operation} {path}: {message}")]
    Failed {
        /// `read`, `write`, `list` or `delete`.
        operation: &'static str,
        /// As a URL.
        path: String,
        /// The root cause.
        message: String,
        /// What the store said, in full.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::UnsupportedScheme { .. } | Self::InvalidLocation { .. } => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        }
    }

    /// Whether the object is just not there.
    #[must_use]
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// The object or location.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::NotFound { path }
            | Self::AlreadyExists { path }
            | Self::NoSpace { path, .. }
            | Self::Permission { path, .. }
            | Self::Failed { path, .. } => path,
            Self::UnsupportedScheme { location, .. } | Self::InvalidLocation { location, .. } => location,
        }
    }

    /// Whether the same operation may go well a little later: a store that does not answer, answers with an error of its own,
    /// or a device that fails. What has to be changed by somebody first is not.
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

    /// The same error, saying how often the operation was tried.
    #[must_use]
    pub(super) fn after(mut self, attempts: u32) -> Self {
        if let Self::Failed { message, .. } = &mut self
            && attempts > 1
        {
            *message = format!("{message} (tried {attempts} times)");
        }
        self
    }

    /// From what `object_store` said; `bytes` is what was to be written.
    pub(crate) fn from_object_store(
        source: object_store::Error,
        operation: &'static str,
        path: String,
        bytes: usize,
    ) -> Self {
        match source {
            // Of a write it is the directory that could not be made.
            object_store::Error::NotFound { .. } if operation != "write" => Self::NotFound { path },
            object_store::Error::AlreadyExists { .. } => Self::AlreadyExists { path },
            other => Self::from_cause(Box::new(other), operation, path, bytes),
        }
    }

    /// From an error of the file system.
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
