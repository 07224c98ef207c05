//! Decides by names alone if a file is a component of the world `operator`, before anything is compiled.
//!
//! Types are checked later, by the linker. Pure.

use regraft_model::describe::WIT_VERSION;
use wasmparser::{Parser, Payload};

use crate::module_error::{ModuleError, list, shown};

/// Length of a version in a message, in bytes. A longer one is cut.
const VERSION_SHOWN_MAX: usize = 100;

/// The package that a component imports from and exports to.
pub(crate) const PACKAGE: &str = "regraft:operator/";
/// The interface that an operator exports.
const GUEST: &str = "regraft:operator/guest";
/// Interfaces that an operator may import.
const GIVEN: [&str; 3] = [
    "regraft:operator/host",
    "regraft:operator/state",
    "regraft:operator/types",
];

/// Checks what the file is, what it exports and what it imports.
///
/// # Errors
/// The first of: not wasm, a core module, damaged, another version of the package, no operator, WASI, other imports.
pub fn check(bytes: &[u8]) -> Result<(), ModuleError> {
    if !bytes.starts_with(b"\0asm") {
        let found = bytes.get(..bytes.len().min(8)).unwrap_or_default();
        let found = if found.is_empty() {
            "an empty file".to_owned()
        } else {
            found.escape_ascii().to_string()
        };
        return Err(ModuleError::NotWasm { found });
    }
    if Parser::is_core_wasm(bytes) {
        return Err(ModuleError::CoreModule);
    }
    let (imports, exports) = names(bytes).map_err(|error| ModuleError::Invalid {
        message: error.to_string(),
    })?;
    for name in imports.iter().chain(&exports) {
        check_version(name)?;
    }
    if !exports.iter().any(|name| interface(name) == GUEST) {
        let found = match exports.len() {
            0 => "no export".to_owned(),
            _ => list(&exports),
        };
        return Err(ModuleError::MissingExport {
            expected: format!("{GUEST}@{WIT_VERSION}"),
            found,
        });
    }
    let (wasi, others): (Vec<_>, Vec<_>) = imports
        .into_iter()
        .filter(|name| !GIVEN.contains(&interface(name)))
        .partition(|name| name.starts_with("wasi:"));
    if !others.is_empty() {
        return Err(ModuleError::UnknownImport { names: others });
    }
    if !wasi.is_empty() {
        return Err(ModuleError::WasiImport { names: wasi });
    }
    Ok(())
}

/// Returns true if something built for a version runs on this host: the same `0.N`, as in semver.
///
/// # Errors
/// [`ModuleError::WitVersion`].
pub fn check_wit_version(found: &str) -> Result<(), ModuleError> {
    let minor = |version: &str| version.rsplit_once('.').map(|(minor, _)| minor.to_owned());
    if minor(found).is_some() && minor(found) == minor(WIT_VERSION) {
        return Ok(());
    }
    Err(ModuleError::WitVersion {
        found: shown(found, VERSION_SHOWN_MAX),
        expected: WIT_VERSION.to_owned(),
    })
}

fn check_version(name: &str) -> Result<(), ModuleError> {
    match name.split_once('@') {
        Some((interface, version)) if interface.starts_with(PACKAGE) => check_wit_version(version),
        _ => Ok(()),
    }
}

/// A name without its version.
fn interface(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}

/// The names of the component's own imports and exports, without those of components in it.
fn names(bytes: &[u8]) -> wasmparser::Result<(Vec<String>, Vec<String>)> {
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    imports.push(import?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    exports.push(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}
