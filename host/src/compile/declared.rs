//! Reads what the operators of a job declare from components that exist already. Builds nothing.

use std::path::{Path, PathBuf};

use regraft_guest_runtime::describe;
use regraft_guest_runtime::engine::{COMPONENT_BYTES_MAX, GuestEngine};
use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;

use super::error::BuildError;
use crate::environment::files::read_regular;
use crate::graph::job_graph::{Artifact, JobGraph, NodeKind};

/// The declaration of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredOperator {
    /// Its uid.
    pub uid: OperatorUid,
    /// Its component's declaration, or the reason that there is none.
    pub description: Result<Description, Undeclared>,
    /// True if the crate has changed since its component was built, so that the declaration may be another one by now.
    pub stale: bool,
}

/// The reason why the declaration of an operator is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undeclared {
    /// The crate has no component yet.
    #[error("not built yet; `regraft build` builds it")]
    NotBuilt,
    /// There is no such file or crate, or it is no component: the job does not start with it.
    #[error("{message}")]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// Message with the expected and the found value, and the remedy.
        message: String,
    },
}

/// Returns the declarations of all operators of a job, in the job's order.
///
/// For a guest crate the component of its last build counts. A component without a `regraft:describe` section is loaded
/// into the engine and asked.
#[must_use]
pub fn declared(graph: &JobGraph, engine: &GuestEngine) -> Vec<DeclaredOperator> {
    let operators = graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Operator(operator) => {
            let found = component(&node.uid, &operator.artifact);
            Some(DeclaredOperator {
                uid: node.uid.clone(),
                stale: found.as_ref().is_ok_and(|path| is_stale(&operator.artifact, path)),
                description: found.and_then(|path| read(&node.uid, &path, engine)),
            })
        }
        NodeKind::Source(_) | NodeKind::Sink(_) => None,
    });
    operators.collect()
}

fn component(uid: &OperatorUid, artifact: &Artifact) -> Result<PathBuf, Undeclared> {
    match artifact {
        Artifact::Module(path) => Ok(path.clone()),
        Artifact::Crate(dir) => {
            let missing = || {
                let (uid, dir) = (uid.to_string(), dir.clone());
                let message = BuildError::NoCrate { uid, dir: dir.clone() }.to_string();
                Undeclared::Unusable { path: dir, message }
            };
            let text = std::fs::read_to_string(dir.join("Cargo.toml")).map_err(|_| missing())?;
            let found = library(&text).and_then(|name| built(dir, &name));
            found.ok_or(Undeclared::NotBuilt)
        }
    }
}

/// Returns true if a source file of the crate is younger than its component.
fn is_stale(artifact: &Artifact, component: &Path) -> bool {
    let Artifact::Crate(dir) = artifact else { return false };
    let modified = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let sources = [dir.join("src/**/*.rs"), dir.join("Cargo.toml")];
    let files = sources
        .iter()
        .filter_map(|pattern| glob::glob(&pattern.to_string_lossy()).ok());
    let built = modified(component);
    files.flatten().flatten().any(|file| modified(&file) > built)
}

/// Returns the name of a crate's library from its manifest, as file names have it.
fn library(manifest: &str) -> Option<String> {
    let manifest: toml::Table = manifest.parse().ok()?;
    let name = |table: &str| manifest.get(table)?.get("name")?.as_str();
    Some(name("lib").or_else(|| name("package"))?.replace('-', "_"))
}

/// Finds `TARGET_DIR/regraft/NAME.wasm` in the crate's own target directory or that of its workspace.
fn built(dir: &Path, name: &str) -> Option<PathBuf> {
    let file = format!("regraft/{name}.wasm");
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let own = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let targets = own
        .into_iter()
        .chain(dir.ancestors().map(|ancestor| ancestor.join("target")));
    targets.map(|target| target.join(&file)).find(|path| path.is_file())
}

fn read(uid: &OperatorUid, path: &Path, engine: &GuestEngine) -> Result<Description, Undeclared> {
    let unusable = |message: String| Undeclared::Unusable {
        path: path.to_owned(),
        message: format!("operator \"{uid}\": {message}"),
    };
    let shown = path.display();
    let bytes = read_regular(path, COMPONENT_BYTES_MAX).map_err(|error| {
        unusable(format!(
            "cannot read the module {shown}: {error}; expected a component file, as `regraft build` makes it"
        ))
    })?;
    match describe::read(&bytes) {
        Ok(Some(section)) => Ok(section.description),
        Ok(None) => {
            let loaded = engine
                .load(bytes)
                .map_err(|error| unusable(format!("{shown}: {error}")))?;
            Ok(loaded.module.description().clone())
        }
        Err(error) => Err(unusable(format!("{shown}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crates_component_is_found_where_its_workspace_builds() {
        let dir = tempfile::tempdir().expect("temp dir");
        let krate = dir.path().join("job/count");
        std::fs::create_dir_all(&krate).expect("made");
        let artifact = Artifact::Crate(krate.clone());
        let uid = OperatorUid::new("count").expect("a uid");
        let missing = component(&uid, &artifact).expect_err("no manifest");
        assert!(
            matches!(&missing, Undeclared::Unusable { path, .. } if *path == krate),
            "{missing:?}"
        );
        std::fs::write(krate.join("Cargo.toml"), "[package]\nname = \"my-count\"\n").expect("written");
        assert_eq!(
            library("[package]\nname = \"a-b\"\n[lib]\nname = \"c\"\n").as_deref(),
            Some("c")
        );
        assert_eq!(component(&uid, &artifact), Err(Undeclared::NotBuilt));
        let there = dir.path().canonicalize().expect("there").join("job/target/regraft");
        std::fs::create_dir_all(&there).expect("made");
        std::fs::write(there.join("my_count.wasm"), "").expect("written");
        let built = there.join("my_count.wasm");
        assert_eq!(component(&uid, &artifact), Ok(built.clone()));
        let at = |path: &Path, seconds| {
            let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = std::fs::File::options().write(true).open(path).expect("opened");
            file.set_modified(time).expect("set");
        };
        at(&built, 1000);
        at(&krate.join("Cargo.toml"), 999);
        assert!(!is_stale(&artifact, &built));
        at(&krate.join("Cargo.toml"), 1001);
        assert!(is_stale(&artifact, &built));
    }
}
