//! The Rust tools of a build, and the target it compiles for.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::BuildError;
use super::report::BuildReport;

/// The target of guests. It has no operating system, so modules import nothing beyond the operator world.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// The programs that a build runs.
#[derive(Debug, Clone)]
pub struct Tools {
    /// `$CARGO`, else `cargo`.
    pub cargo: PathBuf,
    /// `$RUSTC`, else `rustc`.
    pub rustc: PathBuf,
    /// `rustup`.
    pub rustup: PathBuf,
    /// Directory for what cargo compiles on the way, which all jobs share, so that each dependency of guests is compiled
    /// once. `None`: it is in each crate's target directory. Components are in that one in any case.
    pub build_dir: Option<PathBuf>,
    /// The directory that other jobs may write to: that one, or the one that the environment names.
    pub shared_dir: Option<PathBuf>,
    /// Directory of the notes by which an unchanged crate is known without cargo.
    pub notes: PathBuf,
    /// True if cargo is asked in any case.
    pub always_ask: bool,
}

/// Variables by which users say where cargo is to write. Each of them wins over a shared directory.
const PLACES: [&str; 3] = ["CARGO_BUILD_BUILD_DIR", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET_DIR"];

impl Tools {
    /// Returns the tools that this process's environment names. Builds share a directory under the data directory, unless
    /// the environment says where cargo writes.
    #[must_use]
    pub fn from_env(data_dir: &Path) -> Self {
        let tool = |variable: &str, name: &str| std::env::var_os(variable).map_or_else(|| name.into(), PathBuf::from);
        let build_dir = (PLACES.iter().all(|place| std::env::var_os(place).is_none())).then(|| data_dir.join("build"));
        let named = PLACES.iter().find_map(std::env::var_os).map(PathBuf::from);
        Self {
            cargo: tool("CARGO", "cargo"),
            rustc: tool("RUSTC", "rustc"),
            rustup: "rustup".into(),
            shared_dir: build_dir.clone().or(named),
            build_dir,
            notes: data_dir.join("built"),
            always_ask: false,
        }
    }

    /// Returns the same tools, with which cargo is asked about each crate, also about one that is known to be unchanged.
    #[must_use]
    pub fn always_asking(self) -> Self {
        Self {
            always_ask: true,
            ..self
        }
    }

    /// Adds the wasm target to the toolchain that is used in `dir`, unless it has it, and returns the directory of its
    /// libraries. Reports in one line that it is added.
    ///
    /// # Errors
    /// [`BuildError::NoTool`] without rustc, and [`BuildError::NoRustup`] or [`BuildError::AddTarget`] where the target is
    /// missing and cannot be added.
    pub fn ensure_target(&self, dir: &Path, report: &dyn BuildReport) -> Result<PathBuf, BuildError> {
        if let Some(libraries) = self.libraries(dir)? {
            return Ok(libraries);
        }
        report.line(&format!("adding the Rust target {TARGET} (rustup target add {TARGET})"));
        let output = Command::new(&self.rustup)
            .args(["target", "add", TARGET])
            .current_dir(dir)
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(BuildError::NoRustup),
            Err(error) => {
                return Err(BuildError::AddTarget {
                    output: error.to_string(),
                });
            }
        };
        if output.status.success()
            && let Some(libraries) = self.libraries(dir)?
        {
            return Ok(libraries);
        }
        Err(BuildError::AddTarget {
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Returns the directory of the target's libraries, if it is installed.
    fn libraries(&self, dir: &Path) -> Result<Option<PathBuf>, BuildError> {
        let output = Command::new(&self.rustc)
            .args(["--print", "target-libdir", "--target", TARGET])
            .current_dir(dir)
            .output()
            .map_err(|source| BuildError::NoTool {
                program: self.rustc.clone(),
                variable: "RUSTC",
                source,
            })?;
        let libraries = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
        Ok((output.status.success() && libraries.is_dir()).then_some(libraries))
    }
}
