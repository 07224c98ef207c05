//! Why a guest crate did not become a component.

use std::path::PathBuf;

use regraft_guest_runtime::module_error::ModuleError;
use regraft_model::error_kind::ErrorKind;

/// Why a guest crate did not become a component. `uid` is the operator's.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// There is no crate at the path.
    #[error("cannot build operator \"{uid}\": {dir} has no Cargo.toml; expected the directory of a guest crate")]
    NoCrate {
        /// Whose.
        uid: String,
        /// Where it should be.
        dir: PathBuf,
    },
    /// A tool could not be started.
    #[error("cannot run {program}: {source}; install Rust from https://rustup.rs, or set {variable} to its path")]
    NoTool {
        /// Which.
        program: PathBuf,
        /// The variable that names another one.
        variable: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The Rust target is missing, and nothing can add it.
    #[error(
        "the Rust target wasm32-unknown-unknown is missing, and there is no rustup to add it: install Rust from \
         https://rustup.rs, or the target with the package manager that Rust came from"
    )]
    NoRustup,
    /// The Rust target is missing, and adding it failed.
    #[error(
        "cannot add the Rust target wasm32-unknown-unknown:\n{output}\nrun `rustup target add wasm32-unknown-unknown` yourself, then try again"
    )]
    AddTarget {
        /// What rustup said.
        output: String,
    },
    /// The compiler, or cargo, said no.
    #[error("cannot build operator \"{uid}\" from {dir}:\n{output}")]
    Compile {
        /// Whose.
        uid: String,
        /// The crate's directory.
        dir: PathBuf,
        /// Everything it said.
        output: String,
    },
    /// It compiled, and there is no module.
    #[error(
        "cannot build operator \"{uid}\" from {dir}: the crate made no wasm module; expected a library with `operator!(…)` in src/lib.rs"
    )]
    NoModule {
        /// Whose.
        uid: String,
        /// The crate's directory.
        dir: PathBuf,
    },
    /// It compiled, and it is no operator.
    #[error("cannot make a component of operator \"{uid}\" from {dir}: {source}")]
    Component {
        /// Whose.
        uid: String,
        /// The crate's directory.
        dir: PathBuf,
        /// Why.
        source: ModuleError,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl BuildError {
    /// What to do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoCrate { .. } | Self::Compile { .. } | Self::NoModule { .. } | Self::Component { .. } => {
                ErrorKind::Usage
            }
            Self::NoTool { .. } | Self::NoRustup | Self::AddTarget { .. } | Self::Io { .. } => ErrorKind::Failed,
        }
    }

    /// The operator it is about.
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

    /// The file or directory it is about.
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
