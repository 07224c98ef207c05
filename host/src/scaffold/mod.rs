//! `regraft new`: makes a job that is ready to run for users who have only this program and rustup.
//!
//! The count operator is that of `examples/word-count`, so the code that users start from is tested.

pub mod sdk;

use std::path::{Path, PathBuf};

use regraft_model::error_kind::ErrorKind;

/// A new job could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The directory's name is not a valid job name.
    #[error(
        "cannot make a job called {name:?}: expected letters, digits, '.', '_' and '-', beginning with a letter or digit"
    )]
    Name {
        /// The requested name.
        name: String,
    },
    /// The directory is not empty, or the path is not a directory.
    #[error("cannot make a job in {path}: it already exists; choose another name, or remove it")]
    Exists {
        /// The requested directory.
        path: PathBuf,
    },
    /// A file could not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

impl ScaffoldError {
    /// Returns the kind of this error.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } | Self::Exists { .. } => ErrorKind::Usage,
            Self::Write { .. } => ErrorKind::Failed,
        }
    }
}

/// A job that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub name: String,
    /// Its directory, as the caller gave it.
    pub dir: PathBuf,
    /// Its files, relative to the directory.
    pub files: Vec<PathBuf>,
}

/// The files of a new job, with the templates of their text.
const FILES: [(&str, &str); 9] = [
    ("job.toml", include_str!("template/job.toml")),
    ("README.md", include_str!("template/README.md")),
    (".gitignore", include_str!("template/gitignore")),
    ("Cargo.toml", include_str!("template/workspace.toml")),
    ("split/Cargo.toml", include_str!("template/crate.toml")),
    ("split/src/lib.rs", include_str!("template/split.rs")),
    ("count/Cargo.toml", include_str!("template/crate.toml")),
    (
        "count/src/lib.rs",
        include_str!("../../../examples/word-count/count/src/lib.rs"),
    ),
    ("input/sample.txt", include_str!("template/sample.txt")),
];

/// Makes a job in a new or empty directory whose last component becomes the job's name.
///
/// Also unpacks the SDK under the data directory.
///
/// # Errors
/// - [`ScaffoldError::Name`] if the name is not valid for a job.
/// - [`ScaffoldError::Exists`] if `dir` is not empty, is not a directory, or cannot be read.
/// - [`ScaffoldError::Write`] if a file of the job or of the SDK cannot be written.
pub fn new_job(dir: &Path, data_dir: &Path) -> Result<NewJob, ScaffoldError> {
    let name = job_name(dir)?;
    let occupied = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        // It is a file, or a directory that cannot be read.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if occupied {
        return Err(ScaffoldError::Exists { path: dir.to_owned() });
    }
    let sdk = sdk::unpack(data_dir)?;
    let sdk = toml::Value::String(sdk.to_string_lossy().into_owned()).to_string();
    for (file, text) in FILES {
        let path = dir.join(file);
        let failed = |source| ScaffoldError::Write {
            path: path.clone(),
            source,
        };
        let krate = file.split('/').next().unwrap_or_default();
        // Rust sources have no placeholders.
        let text = if file.ends_with(".rs") {
            text.to_owned()
        } else {
            text.replace("@NAME@", &name)
                .replace("@SDK@", &sdk)
                .replace("@CRATE@", krate)
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&path, text).map_err(failed)?;
    }
    Ok(NewJob {
        name,
        dir: dir.to_owned(),
        files: FILES.iter().map(|(file, _)| PathBuf::from(file)).collect(),
    })
}

fn job_name(dir: &Path) -> Result<String, ScaffoldError> {
    let name = dir
        .file_name()
        .unwrap_or(dir.as_os_str())
        .to_string_lossy()
        .into_owned();
    let head_ok = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest_ok = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if head_ok && rest_ok && name.len() <= 100 {
        Ok(name)
    } else {
        Err(ScaffoldError::Name { name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Overrides, load_job};

    #[test]
    fn a_new_job_is_a_good_job() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("hello");
        let made = new_job(&dir, &root.path().join("data")).unwrap();
        assert_eq!((made.name.as_str(), made.files.len()), ("hello", 9));
        let (graph, warnings) = load_job(
            &dir.join("job.toml"),
            &Overrides::default(),
            crate::connectors::BUILT_IN,
        )
        .unwrap();
        assert_eq!(warnings, []);
        assert_eq!(graph.name, "hello");
        assert!(graph.savepoint_dir.is_some() && graph.checkpoint.interval.is_some());
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml")).unwrap();
        assert!(manifest.contains(&sdk::directory(&root.path().join("data")).to_string_lossy().into_owned()));
        for file in made.files {
            let text = std::fs::read_to_string(dir.join(&file)).unwrap();
            assert!(
                !text.contains("@NAME@") && !text.contains("@SDK@") && !text.contains("@CRATE@"),
                "{file:?}"
            );
        }
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("there");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("mine"), "").unwrap();
        assert_eq!(
            new_job(&dir, root.path()).unwrap_err().to_string(),
            format!(
                "cannot make a job in {}: it already exists; choose another name, or remove it",
                dir.display()
            )
        );
        for name in ["-x", "a b", "..", "ä", "a\"b"] {
            let error = new_job(&root.path().join(name), root.path()).unwrap_err();
            assert!(
                error.to_string().contains("expected letters, digits, '.', '_' and '-'"),
                "{error}"
            );
        }
    }
}
