//! Makes a component from cargo's core module, and keeps it beside cargo's output until that changes.

use std::path::{Path, PathBuf};

use regraft_guest_runtime::componentize::componentize;
use regraft_guest_runtime::describe::ModuleDigest;
use regraft_guest_runtime::engine::GuestEngine;

use super::cargo::{CoreModule, Crate};
use super::error::BuildError;
use crate::environment::files::write_whole;

/// This program's name and version. They are noted beside each component, so that another version makes it again.
pub(super) const MADE_BY: &str = concat!("regraft ", env!("CARGO_PKG_VERSION"));

/// A component's file.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) path: PathBuf,
    /// True if it was made just now, false if it was there already.
    pub(crate) made: bool,
    /// Size of the file.
    pub(crate) bytes: u64,
}

/// Makes `TARGET_DIR/regraft/NAME.wasm`, unless it is there and was made from this core module by this version.
///
/// `NAME.from` beside it has the digests of both, and the version.
pub(crate) fn make(krate: Crate<'_>, core: &CoreModule, engine: &GuestEngine) -> Result<Component, BuildError> {
    let dir = core.target_dir.join("regraft");
    let name = core.path.file_name().unwrap_or_default();
    let path = dir.join(name);
    let note = path.with_extension("from");
    let module = std::fs::read(&core.path).map_err(io("read", &core.path))?;
    let from = format!("{MADE_BY} from {}", ModuleDigest::of(&module));
    if let (Ok(said), Ok(component)) = (std::fs::read_to_string(&note), std::fs::read(&path))
        && said == noted(&from, &component)
    {
        return Ok(Component {
            path,
            made: false,
            bytes: component.len() as u64,
        });
    }
    let component = componentize(engine, &module).map_err(|source| BuildError::Component {
        uid: krate.uid.to_owned(),
        dir: krate.dir.to_owned(),
        source,
    })?;
    std::fs::create_dir_all(&dir).map_err(io("write", &dir))?;
    write_whole(&path, &component).map_err(io("write", &path))?;
    write_whole(&note, noted(&from, &component).as_bytes()).map_err(io("write", &note))?;
    Ok(Component {
        path,
        made: true,
        bytes: component.len() as u64,
    })
}

fn noted(from: &str, component: &[u8]) -> String {
    format!("{from} is {}\n", ModuleDigest::of(component))
}

fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BuildError {
    let path = path.to_owned();
    move |source| BuildError::Io { doing, path, source }
}
