//! Compiles guest crates into components: cargo compiles them, `wit-component` wraps them, and an unchanged crate costs
//! nothing.
//!
//! Knows nothing of jobs that run. Two processes may build at once: cargo locks its directory, and components are
//! renamed into place.
//!
//! - [`error`]: the errors of a build.
//! - [`report`]: its progress, on stderr.
//! - [`tools`]: cargo, rustc, rustup, and the wasm target.
//! - [`declared`]: the declarations of operators, without a build.
//! - `sources`: the sources of what is in a build directory that jobs share.
//! - `cargo`, `component`: the two steps.
//! - `unchanged`: finds without cargo that neither has anything to do.

pub mod error;
pub mod report;
pub mod tools;
pub mod declared;
mod sources;
mod cargo;
mod component;
mod unchanged;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use regraft_guest_runtime::engine::GuestEngine;
use regraft_model::id::OperatorUid;

use crate::graph::job_graph::{Artifact, JobGraph, NodeKind};
use cargo::Crate;
use unchanged::{Inputs, Notes};

pub use error::BuildError;
pub use report::{BuildReport, StderrReport};
pub use tools::Tools;

/// A guest crate of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestCrate {
    /// The operator that runs it.
    pub uid: OperatorUid,
    /// The directory of its `Cargo.toml`.
    pub dir: PathBuf,
}

/// A guest crate's component.
#[derive(Debug, Clone)]
pub struct Built {
    /// The operator that runs it.
    pub uid: OperatorUid,
    /// The component.
    pub component: PathBuf,
    /// True if it was made just now, false if nothing had changed.
    pub made: bool,
    /// The component's size in bytes.
    pub bytes: u64,
    /// Time from the call of cargo until the component was there.
    pub took: Duration,
}

/// Returns the guest crates that a job names, in the job's order.
#[must_use]
pub fn guest_crates(graph: &JobGraph) -> Vec<GuestCrate> {
    let crates = graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Operator(operator) => match &operator.artifact {
            Artifact::Crate(dir) => Some(GuestCrate {
                uid: node.uid.clone(),
                dir: dir.clone(),
            }),
            Artifact::Module(_) => None,
        },
        NodeKind::Source(_) | NodeKind::Sink(_) => None,
    });
    crates.collect()
}

/// Builds guest crates, each directory once, and returns their components in the given order.
///
/// Cargo is asked only about crates that are not known to be unchanged since their last build, unless
/// [`Tools::always_ask`] is set.
///
/// Adds the wasm target to the Rust toolchain where it is missing. Blocks; progress goes to `report`.
///
/// # Errors
/// [`BuildError`] of the first crate that cannot be built.
pub fn build_guests(
    crates: &[GuestCrate],
    tools: &Tools,
    engine: &GuestEngine,
    report: &dyn BuildReport,
) -> Result<Vec<Built>, BuildError> {
    for GuestCrate { uid, dir } in crates {
        if !dir.join("Cargo.toml").is_file() {
            return Err(BuildError::NoCrate {
                uid: uid.to_string(),
                dir: dir.clone(),
            });
        }
    }
    let notes = Notes::new(&tools.notes, &[&tools.cargo, &tools.rustc], std::env::vars_os());
    let mut libraries: Option<PathBuf> = None;
    let mut by_dir: BTreeMap<PathBuf, Built> = BTreeMap::new();
    let mut all = Vec::with_capacity(crates.len());
    for guest in crates {
        let dir = guest.dir.canonicalize().unwrap_or_else(|_| guest.dir.clone());
        let built = match by_dir.get(&dir) {
            Some(built) => Built {
                uid: guest.uid.clone(),
                ..built.clone()
            },
            None => match unchanged(guest, &dir, tools, &notes) {
                Some(built) => built,
                None => build_one((guest, &dir), (tools, &notes), &mut libraries, engine, report)?,
            },
        };
        by_dir.insert(dir, built.clone());
        all.push(built);
    }
    Ok(all)
}

/// Returns the component of a crate that is known to be unchanged without cargo.
fn unchanged(guest: &GuestCrate, dir: &Path, tools: &Tools, notes: &Notes<'_>) -> Option<Built> {
    let start = Instant::now();
    let component = (!tools.always_ask).then(|| notes.component(dir)).flatten()?;
    Some(Built {
        uid: guest.uid.clone(),
        component: component.path,
        made: false,
        bytes: component.bytes,
        took: start.elapsed(),
    })
}

/// Builds a crate, whose canonical directory is given too. `libraries` is the directory of the target's libraries once the
/// toolchain is known to have it.
fn build_one(
    (guest, dir): (&GuestCrate, &Path),
    (tools, notes): (&Tools, &Notes<'_>),
    libraries: &mut Option<PathBuf>,
    engine: &GuestEngine,
    report: &dyn BuildReport,
) -> Result<Built, BuildError> {
    let (start, began) = (Instant::now(), SystemTime::now());
    let libraries = match libraries {
        Some(libraries) => libraries,
        None => libraries.insert(tools.ensure_target(&guest.dir, report)?),
    };
    let krate = Crate {
        uid: guest.uid.as_str(),
        dir: &guest.dir,
    };
    let compiled = cargo::compile(tools, krate, report)?;
    report.doing(&format!("{}: making the component", guest.uid));
    let component = component::make(krate, &compiled.module, engine)?;
    let inputs = Inputs {
        module: compiled.module.path.clone(),
        packages: compiled.packages,
        has_build_script: compiled.has_build_script,
        libraries: libraries.clone(),
    };
    notes.note(dir, &inputs, &component, began);
    let took = start.elapsed();
    if component.made {
        let kilobytes = component.bytes.div_ceil(1000);
        let path = shown(&component.path);
        report.line(&format!(
            "built {} in {:.1} s: {path} ({kilobytes} kB)",
            guest.uid,
            took.as_secs_f64()
        ));
    } else if compiled.module.compiled {
        report.line(&format!(
            "built {} in {:.1} s: the component is the same",
            guest.uid,
            took.as_secs_f64()
        ));
    }
    Ok(Built {
        uid: guest.uid.clone(),
        component: component.path,
        made: component.made,
        bytes: component.bytes,
        took,
    })
}

/// Formats a path relative to the current directory, where it is below that.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let short = here.and_then(|here| path.strip_prefix(here).ok());
    short.unwrap_or(path).display().to_string()
}

/// Returns the component of every operator: the one in `built`, or the file that the job names. An operator whose crate
/// is not in `built` is left out.
#[must_use]
pub fn component_paths(graph: &JobGraph, built: &[Built]) -> BTreeMap<OperatorUid, PathBuf> {
    let operators = graph.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Operator(operator) => Some((&node.uid, &operator.artifact)),
        NodeKind::Source(_) | NodeKind::Sink(_) => None,
    });
    let paths = operators.filter_map(|(uid, artifact)| match artifact {
        Artifact::Module(path) => Some((uid.clone(), path.clone())),
        Artifact::Crate(_) => built
            .iter()
            .find(|built| built.uid == *uid)
            .map(|built| (uid.clone(), built.component.clone())),
    });
    paths.collect()
}

#[cfg(test)]
mod tests;
