//! Reasons why a file is not a module that can be deployed.

use std::time::Duration;

use regraft_model::error_kind::ErrorKind;

/// Reason why a module was refused. The texts leave the path to the caller, who knows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModuleError {
    /// Not WebAssembly.
    #[error("not a WebAssembly file: expected it to begin with \\0asm, found {found}")]
    NotWasm {
        /// The first bytes.
        found: String,
    },
    /// A core module.
    #[error("a core WebAssembly module, not a component; build it with `regraft build`")]
    CoreModule,
    /// Damaged, or of a WebAssembly feature that is not supported.
    #[error("not a valid component: {message}")]
    Invalid {
        /// Message of the validator or compiler.
        message: String,
    },
    /// Does not export what an operator must.
    #[error("not an operator of Regraft: expected the export `{expected}`, found {found}")]
    MissingExport {
        /// The interface.
        expected: String,
        /// Interfaces that it exports.
        found: String,
    },
    /// Made for a version of the WIT package that this host does not offer.
    #[error(
        "built for version {found} of the package regraft:operator, this host offers {expected}; build it again with an SDK of this version, which `regraft sdk` puts into a job, and `regraft build`"
    )]
    WitVersion {
        /// The component's.
        found: String,
        /// The host's.
        expected: String,
    },
    /// Imports WASI.
    #[error("it imports {}, and WASI is not granted to a module; build it for wasm32-unknown-unknown with `regraft build`, which needs none of it (granting is not supported yet)", list(.names))]
    WasiImport {
        /// All of them.
        names: Vec<String>,
    },
    /// Imports what no operator is given.
    #[error("it imports {}, which no operator is given: expected only `regraft:operator/host` and `regraft:operator/state`", list(.names))]
    UnknownImport {
        /// All of them.
        names: Vec<String>,
    },
    /// Has the right names with other types.
    #[error("its imports or exports are of other types than the package regraft:operator {expected} has: {message}")]
    WorldMismatch {
        /// The host's version.
        expected: String,
        /// Message of the linker.
        message: String,
    },
    /// `describe` trapped, or took too long.
    #[error("its `describe` failed: {message}")]
    DescribeFailed {
        /// End of the call.
        message: String,
    },
    /// `describe` is not what `docs/formats/describe.md` says.
    #[error("its `describe` returned JSON that is not a description: {message}; found: {found}")]
    DescribeMalformed {
        /// Message of the JSON reader.
        message: String,
        /// The beginning of the text.
        found: String,
    },
    /// Values are in an encoding that this host does not read.
    #[error(
        "its values are encoded as \"{found}\", this host reads \"{expected}\"; build it again with an SDK that writes that"
    )]
    Encoding {
        /// The component's.
        found: String,
        /// The host's.
        expected: String,
    },
    /// `describe` says that a reader must know something that this host does not.
    #[error("its `describe` has what a host must know, and this one does not: {}; run it on a newer host, or build it again with `regraft build`", list(.paths))]
    MustKnow {
        /// The paths of keys.
        paths: Vec<String>,
    },
    /// Declares more than a host takes.
    #[error("it declares {found} {what}; expected at most {most}")]
    TooMuch {
        /// The things that are counted.
        what: String,
        /// Their number.
        found: usize,
        /// The limit.
        most: usize,
    },
    /// Larger than a host compiles.
    #[error("it has {found} {what}, and a host compiles at most {most}; split the operator, or build it smaller")]
    TooLarge {
        /// The things that are counted.
        what: &'static str,
        /// Their number.
        found: u64,
        /// The limit.
        most: u64,
    },
    /// The compilers were busy with other components for too long.
    #[error(
        "this host has been compiling other components for more than {} s; try again later",
        limit.as_secs()
    )]
    Busy {
        /// The longest wait.
        limit: Duration,
    },
    /// Compiling takes too long.
    #[error(
        "compiling it takes more than {} s; split the operator into smaller ones, or build it smaller",
        limit.as_secs()
    )]
    Slow {
        /// The limit.
        limit: Duration,
    },
    /// A state whose values have a fixed width.
    #[error(
        "its state \"{state}\" declares `width`, and this host does not take values of fixed width yet; leave it out"
    )]
    Width {
        /// The state.
        state: String,
    },
    /// Declares what only an interface can serve that it does not export.
    #[error(
        "it declares {declared}, which needs the interface `{expected}`; export it, and list it in `calls` where there is such a list"
    )]
    MissingInterface {
        /// The declaration that needs the interface.
        declared: String,
        /// The interface.
        expected: String,
    },
    /// The custom section is not what `docs/formats/describe.md` says.
    #[error("its section `regraft:describe` is malformed: {message}; build it again with `regraft build`")]
    SectionMalformed {
        /// Message of the reader.
        message: String,
    },
    /// The file was changed after `regraft build` made it.
    #[error(
        "it was changed after it was built: its section `regraft:describe` is of a file with the digest {expected}, found {found}; build it again with `regraft build`"
    )]
    SectionDigest {
        /// In the section.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// The custom section tells something else than the component.
    #[error(
        "its section `regraft:describe` differs from what its `describe` returns: the section has {section}, `describe` returned {live}; build it again with `regraft build`"
    )]
    SectionDiffers {
        /// As canonical JSON.
        section: String,
        /// As canonical JSON.
        live: String,
    },
    /// A core module that cannot be made a component.
    #[error("cannot make a component of it: {message}")]
    Componentize {
        /// Message of the encoder.
        message: String,
    },
    /// The runtime could not be set up.
    #[error("{doing} failed: {message}")]
    Engine {
        /// The step that failed.
        doing: &'static str,
        /// The runtime's words.
        message: String,
    },
}

impl ModuleError {
    /// Returns the class of the error. A module that is refused is an input that its author can fix.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine { .. } | Self::Busy { .. } => ErrorKind::Failed,
            _ => ErrorKind::Usage,
        }
    }
}

/// The most names that a message lists.
const LISTED_MAX: usize = 20;
/// Length of a text of the module's in a message, in bytes. A longer one is cut.
const SHOWN_MAX: usize = 200;
/// Length of a message of the runtime, in bytes. A longer one is cut.
const CHAIN_MAX: usize = 4_000;

/// Lists the first names, each cut.
pub(crate) fn list(names: &[String]) -> String {
    let shown = names
        .iter()
        .take(LISTED_MAX)
        .map(|name| format!("`{}`", shown(name, SHOWN_MAX)));
    let shown = shown.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(LISTED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Returns an error of the runtime with what caused it, cut: it may quote the module.
pub(crate) fn chain(error: &wasmtime::Error) -> String {
    shown(&format!("{error:#}"), CHAIN_MAX)
}

/// Cuts a text that a module wrote.
pub(crate) fn shown(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(most)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_names_are_cut() {
        let names: Vec<String> = (0..25).map(|n| format!("n{n}")).collect();
        assert!(list(&names[..20]).ends_with(", `n19`"));
        assert!(list(&names).ends_with(", `n19` and 5 more"));
        assert_eq!(list(&["é".repeat(150)]), format!("`{}…`", "é".repeat(100)));
    }
}
