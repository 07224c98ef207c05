//! Reads what the operators of a job declare from components that exist already. Builds nothing.

use std::path::{Path, PathBuf};

use regraft_guest_runtime::describe;
use regraft_guest_runtime::engine::GuestEngine;
use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;

use crate::graph::job_graph::{Artifact, JobGraph, NodeKind};

/// The declaration of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredOperator {
    /// Its uid.
    pub uid: OperatorUid,
    /// Its component's declaration, or the reason that there is none, for people.
    pub description: Result<Description, String>,
}

/// Returns the declarations of all operators of a job, in the job's order.
///
/// For a guest crate the component of its last build counts. A component without a `regraft:describe` section is loaded
/// into the engine and asked.
#[must_use]
pub fn declared(graph: &JobGraph, engine: &GuestEngine) -> Vec<DeclaredOperator> {
    let operators = graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Operator(operator) => Some(DeclaredOperator {
            uid: node.uid.clone(),
            description: component(&operator.artifact).and_then(|path| read(&path, engine)),
        }),
        NodeKind::Source(_) | NodeKind::Sink(_) => None,
    });
    operators.collect()
}

fn component(artifact: &Artifact) -> Result<PathBuf, String> {
    match artifact {
        Artifact::Module(path) => Ok(path.clone()),
        Artifact::Crate(dir) => {
            let manifest = dir.join("Cargo.toml");
            let text = std::fs::read_to_string(&manifest)
                .map_err(|error| format!("cannot read {}: {error}", manifest.display()))?;
            let found = library(&text).and_then(|name| built(dir, &name));
            found.ok_or_else(|| "not built yet; `regraft build` builds it".to_owned())
        }
    }
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

fn read(path: &Path, engine: &GuestEngine) -> Result<Description, String> {
    let shown = path.display();
    let bytes = std::fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    match describe::read(&bytes) {
        Ok(Some(section)) => Ok(section.description),
        Ok(None) => {
            let loaded = engine.load(bytes).map_err(|error| format!("{shown}: {error}"))?;
            Ok(loaded.module.description().clone())
        }
        Err(error) => Err(format!("{shown}: {error}")),
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
        assert!(
            component(&artifact)
                .expect_err("no manifest")
                .starts_with("cannot read ")
        );
        std::fs::write(krate.join("Cargo.toml"), "[package]\nname = \"my-count\"\n").expect("written");
        assert_eq!(
            library("[package]\nname = \"a-b\"\n[lib]\nname = \"c\"\n").as_deref(),
            Some("c")
        );
        assert_eq!(
            component(&artifact),
            Err("not built yet; `regraft build` builds it".to_owned())
        );
        let there = dir.path().canonicalize().expect("there").join("job/target/regraft");
        std::fs::create_dir_all(&there).expect("made");
        std::fs::write(there.join("my_count.wasm"), "").expect("written");
        assert_eq!(component(&artifact), Ok(there.join("my_count.wasm")));
    }
}
