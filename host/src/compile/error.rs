//! The errors of building guest crates.

use std::path::PathBuf;

use regraft_guest_runtime::module_error::ModuleError;
use regraft_model::error_kind::ErrorKind;

/// An error of building a guest crate. `uid` is that of the operator that runs it, and `dir` the directory of the crate.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The directory has no `Cargo.toml`.
    #[error("cannot build operator \"{uid}\": {dir} has no Cargo.toml; expected the directory of a guest crate")]
    NoCrate {
        /// The operator.
        uid: String,
        /// The directory that the job file names.
        dir: PathBuf,
    },
    /// A tool could not be started.
    #[error("cannot run {program}: {source}; install Rust from https://rustup.rs, or set {variable} to its path")]
    NoTool {
        /// Path or name of the program.
        program: PathBuf,
        /// The environment variable that names another one.
        variable: &'static str,
        /// The system's error.
        source: std::io::Error,
    },
    /// The Rust target is missing, and there is no rustup to add it.
    #[error(
        "the Rust target wasm32-unknown-unknown is missing, and there is no rustup to add it: install Rust from \
         https://rustup.rs, or the target with the package manager that Rust came from"
    )]
    NoRustup,
    /// The Rust target is missing, and rustup failed to add it.
    #[error(
        "cannot add the Rust target wasm32-unknown-unknown:\n{output}\nrun `rustup target add wasm32-unknown-unknown` yourself, then try again"
    )]
    AddTarget {
        /// The output of rustup.
        output: String,
    },
    /// The compiler or cargo failed.
    #[error("cannot build operator \"{uid}\" from {dir}:\n{output}")]
    Compile {
        /// The operator.
        uid: String,
        /// The crate.
        dir: PathBuf,
        /// Errors of the compiler, or else the output of cargo.
        output: String,
    },
    /// The crate compiled and made no wasm module.
    #[error(
        "cannot build operator \"{uid}\" from {dir}: the crate made no wasm module; expected a library with `#[operator]` in src/lib.rs"
    )]
    NoModule {
        /// The operator.
        uid: String,
        /// The crate.
        dir: PathBuf,
    },
    /// The crate compiled, and its module is not an operator.
    #[error("cannot make a component of operator \"{uid}\" from {dir}: {source}")]
    Component {
        /// The operator.
        uid: String,
        /// The crate.
        dir: PathBuf,
        /// The reason.
        source: ModuleError,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// `read`, `write` or `write to`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl BuildError {
    /// Returns the kind of error, which decides the exit status.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoCrate { .. } | Self::Compile { .. } | Self::NoModule { .. } | Self::Component { .. } => {
                ErrorKind::Usage
            }
            Self::NoTool { .. } | Self::NoRustup | Self::AddTarget { .. } | Self::Io { .. } => ErrorKind::Failed,
        }
    }

    /// Returns the uid of the operator, where the error is about one.
    #[must_use]
    pub fn uid(&self) -> Option<&str> {
        match self {
            Self::NoCrate { uid, .. }
            | Self::Compile { uid, .. }
            | Self::NoModule { uid, .. }
            | Self::Component { uid, .. } => Some(uid),
            Self::NoTool { .. } | Self::NoRustup | Self::AddTarget { .. } | Self::Io { .. } => None,
        }
    }

    /// Returns the file or directory, where the error is about one.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::NoCrate { dir, .. }
            | Self::Compile { dir, .. }
            | Self::NoModule { dir, .. }
            | Self::Component { dir, .. } => Some(dir),
            Self::Io { path, .. } => Some(path),
            Self::NoTool { .. } | Self::NoRustup | Self::AddTarget { .. } => None,
        }
    }
}
