//! The Rust tools that a build needs, and the target it compiles for.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::BuildError;
use super::report::BuildReport;

/// What guests are compiled for: no system under them, so no import that the operator world does not have.
pub(crate) const TARGET: &str = "wasm32-unknown-unknown";

/// Which programs are run.
#[derive(Debug, Clone)]
pub struct Tools {
    /// `$CARGO`, else `cargo`.
    pub cargo: PathBuf,
    /// `$RUSTC`, else `rustc`.
    pub rustc: PathBuf,
    /// `rustup`.
    pub rustup: PathBuf,
}

impl Tools {
    /// Those of this process's environment.
    #[must_use]
    pub fn from_env() -> Self {
        let tool = |variable: &str, name: &str| std::env::var_os(variable).map_or_else(|| name.into(), PathBuf::from);
        Self {
            cargo: tool("CARGO", "cargo"),
            rustc: tool("RUSTC", "rustc"),
            rustup: "rustup".into(),
        }
    }

    /// Sees to it that the toolchain which is used in `dir` has the wasm target. Adds it where it is missing, and says so
    /// in one line.
    ///
    /// # Errors
    /// There is no rustc; or the target is missing and rustup is, too, or fails.
    pub fn ensure_target(&self, dir: &Path, report: &dyn BuildReport) -> Result<(), BuildError> {
        if self.has_target(dir)? {
            return Ok(());
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
        if output.status.success() && self.has_target(dir)? {
            return Ok(());
        }
        Err(BuildError::AddTarget {
            output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    fn has_target(&self, dir: &Path) -> Result<bool, BuildError> {
        let output = Command::new(&self.rustc)
            .args(["--print", "target-libdir", "--target", TARGET])
            .current_dir(dir)
            .output()
            .map_err(|source| BuildError::NoTool {
                program: self.rustc.clone(),
                variable: "RUSTC",
                source,
            })?;
        let libdir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success() && Path::new(&libdir).is_dir())
    }
}
