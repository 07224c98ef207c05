//! `regraft new` and `regraft sdk`: a job that is ready to run, and the SDK in it, for users who have only this program and
//! rustup.

pub mod sdk;
mod templates;

use std::path::{Path, PathBuf};

use regraft_model::error_kind::ErrorKind;

pub use templates::Template;
use templates::{COMMON, MANIFEST};

/// The SDK's directory within a job.
const SDK_DIR: &str = "sdk";

/// A new job could not be made, or the SDK of a job not be moved.
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
    /// The directory's `Cargo.toml` is not there, or does not name the SDK by a path.
    #[error(
        "{path} does not name the SDK: expected a line `regraft-sdk = {{ path = \"sdk/guest-sdk\" }}`, as `regraft new` writes \
         it; name the job's directory, or add the line"
    )]
    NoJob {
        /// The manifest.
        path: PathBuf,
    },
    /// The SDK of a job is not as any release has written it.
    #[error("{path} has been changed since it was written; keep the changes elsewhere, and remove the directory")]
    Changed {
        /// The SDK's directory.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// `read` or `write`.
        doing: &'static str,
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
            Self::Name { .. } | Self::Exists { .. } | Self::NoJob { .. } => ErrorKind::Usage,
            Self::Changed { .. } | Self::Io { .. } => ErrorKind::Failed,
        }
    }

    /// Returns a function that adds what was being done, and to which file, to an error of the system.
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// A job that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewJob {
    /// Its name.
    pub name: String,
    /// Its directory, as the caller gave it.
    pub dir: PathBuf,
    /// Its files, relative to the directory, without those of the SDK.
    pub files: Vec<PathBuf>,
    /// The directory of the SDK, relative to the directory.
    pub sdk: PathBuf,
}

/// Makes a job in a new or empty directory whose last component becomes the job's name.
///
/// # Errors
/// - [`ScaffoldError::Name`] if the name is not valid for a job.
/// - [`ScaffoldError::Exists`] if `dir` is not empty, is not a directory, or cannot be read.
/// - [`ScaffoldError::Io`] if a file cannot be written.
pub fn new_job(dir: &Path, template: Template) -> Result<NewJob, ScaffoldError> {
    let name = job_name(dir)?;
    let occupied = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_some(),
        // It is a file, or a directory that cannot be read.
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if occupied {
        return Err(ScaffoldError::Exists { path: dir.to_owned() });
    }
    let files = files(&name, template);
    for (file, text) in &files {
        let path = dir.join(file);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(ScaffoldError::io("write", &path))?;
        }
        std::fs::write(&path, text).map_err(ScaffoldError::io("write", &path))?;
    }
    sdk::write(&dir.join(SDK_DIR))?;
    Ok(NewJob {
        name,
        dir: dir.to_owned(),
        files: files.into_iter().map(|(file, _)| file.into()).collect(),
        sdk: SDK_DIR.into(),
    })
}

/// Returns the files of a new job, with their text.
fn files(name: &str, template: Template) -> Vec<(String, String)> {
    let content = template.content();
    let members: Vec<String> = content
        .crates
        .iter()
        .map(|(krate, ..)| format!("\"{krate}\""))
        .collect();
    let members = members.join(", ");
    let common = content.files.iter().chain(&COMMON).map(|(file, text)| {
        let mut text = text.replace("@NAME@", name).replace("@MEMBERS@", &members);
        if *file == "job.toml" {
            text = named(&text, name);
        }
        ((*file).to_owned(), text)
    });
    let crates = content.crates.iter().flat_map(|(krate, source, tested_with)| {
        let mut manifest = MANIFEST.replace("@CRATE@", krate);
        if !tested_with.is_empty() {
            manifest.push_str("\n[dev-dependencies]\n");
        }
        let mut source = (*source).to_owned();
        for other in *tested_with {
            manifest.push_str(&format!("{other} = {{ path = \"../{other}\" }}\n"));
            // In `examples/`, the names of crates begin with those of their jobs.
            source = source.replace(&format!("sessions_{other}::"), &format!("{other}::"));
        }
        [
            (format!("{krate}/Cargo.toml"), manifest),
            (format!("{krate}/src/lib.rs"), source),
        ]
    });
    common.chain(crates).collect()
}

/// Gives a job file another name.
fn named(text: &str, name: &str) -> String {
    let line = |line: &str| match line.starts_with("name = \"") {
        true => format!("name = \"{name}\"\n"),
        false => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Report of [`move_sdk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedSdk {
    /// The directory of the SDK.
    pub dir: PathBuf,
    /// The version that was there. `None` if there was none.
    pub from: Option<String>,
    /// The version that is there now: that of this program.
    pub to: &'static str,
    /// True if the job's `Cargo.toml` was changed, because it named an SDK elsewhere.
    pub manifest_changed: bool,
}

/// Puts the SDK of this program into the job in a directory, in place of the one that is there.
///
/// # Errors
/// - [`ScaffoldError::NoJob`] if the directory has no `Cargo.toml` that names the SDK by a path.
/// - [`ScaffoldError::Changed`] if the SDK there has been changed by hand.
/// - [`ScaffoldError::Io`] if a file cannot be read or written.
pub fn move_sdk(job: &Path) -> Result<MovedSdk, ScaffoldError> {
    let manifest = job.join("Cargo.toml");
    let text = match std::fs::read_to_string(&manifest) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ScaffoldError::NoJob { path: manifest });
        }
        Err(error) => return Err(ScaffoldError::io("read", &manifest)(error)),
    };
    let wanted = format!("regraft-sdk = {{ path = \"{SDK_DIR}/guest-sdk\" }}");
    let is_named = |line: &str| line.starts_with("regraft-sdk = { path = \"") && line.ends_with("\" }");
    let Some(line) = text.lines().find(|line| is_named(line)) else {
        return Err(ScaffoldError::NoJob { path: manifest });
    };
    let dir = job.join(SDK_DIR);
    let from = sdk::found(&dir)?;
    if from.as_deref() != Some(sdk::version()) {
        sdk::replace(&dir)?;
    }
    let manifest_changed = line != wanted;
    if manifest_changed {
        let mut text = text.replacen(line, &wanted, 1);
        if !text.contains("exclude = ") {
            text = text.replacen("[workspace]\n", &format!("[workspace]\nexclude = [\"{SDK_DIR}\"]\n"), 1);
        }
        std::fs::write(&manifest, text).map_err(ScaffoldError::io("write", &manifest))?;
    }
    Ok(MovedSdk {
        dir,
        from,
        to: sdk::version(),
        manifest_changed,
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
        for template in [Template::WordCount, Template::Sessions, Template::Join, Template::Empty] {
            let dir = root.path().join(format!("hello-{template:?}"));
            let made = new_job(&dir, template).unwrap();
            let (graph, warnings) = load_job(
                &dir.join("job.toml"),
                &Overrides::default(),
                crate::connectors::BUILT_IN,
            )
            .unwrap();
            assert_eq!(warnings, []);
            assert_eq!(graph.name, made.name);
            assert!(graph.savepoint_dir.is_some() && graph.checkpoint.interval.is_some());
            assert!(dir.join("sdk/guest-sdk/Cargo.toml").is_file() && dir.join("sdk/wit/world.wit").is_file());
            for file in made.files {
                let text = std::fs::read_to_string(dir.join(&file)).unwrap();
                let placeholders = ["@NAME@", "@MEMBERS@", "@CRATE@", "sessions_parse"];
                assert!(!placeholders.iter().any(|name| text.contains(name)), "{file:?}");
            }
        }
    }

    #[test]
    fn what_is_there_is_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("there");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("mine"), "").unwrap();
        assert_eq!(
            new_job(&dir, Template::Empty).unwrap_err().to_string(),
            format!(
                "cannot make a job in {}: it already exists; choose another name, or remove it",
                dir.display()
            )
        );
        for name in ["-x", "a b", "..", "ä", "a\"b"] {
            let error = new_job(&root.path().join(name), Template::Empty).unwrap_err();
            assert!(
                error.to_string().contains("expected letters, digits, '.', '_' and '-'"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_sdk_of_a_job_is_moved() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("hello");
        new_job(&dir, Template::Empty).unwrap();
        let moved = move_sdk(&dir).unwrap();
        assert_eq!((moved.from.as_deref(), moved.manifest_changed), (Some(moved.to), false));

        // Another release's, which had a file more, and one less.
        let sdk = dir.join("sdk");
        std::fs::remove_file(sdk.join("guest-sdk/src/lib.rs")).unwrap();
        std::fs::write(sdk.join("guest-sdk/src/old.rs"), "").unwrap();
        let refused = move_sdk(&dir).unwrap_err().to_string();
        assert!(refused.contains("has been changed since it was written"), "{refused}");
        sdk::note_as_release(&sdk, "0.0.9");
        let moved = move_sdk(&dir).unwrap();
        assert!(moved.from.is_some_and(|from| from.starts_with("0.0.9-")));
        assert!(sdk.join("guest-sdk/src/lib.rs").is_file() && !sdk.join("guest-sdk/src/old.rs").exists());

        // A job of an earlier release, which has its SDK elsewhere.
        std::fs::remove_dir_all(&sdk).unwrap();
        let manifest = dir.join("Cargo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let elsewhere = text.replace("\"sdk/guest-sdk\"", "\"/data/sdk/0.1.0-0123/guest-sdk\"");
        std::fs::write(&manifest, elsewhere.replace("exclude = [\"sdk\"]\n", "")).unwrap();
        let moved = move_sdk(&dir).unwrap();
        assert_eq!((moved.from, moved.manifest_changed), (None, true));
        let now = std::fs::read_to_string(&manifest).unwrap();
        assert!(
            now.contains("exclude = [\"sdk\"]\n") && now.contains("\"sdk/guest-sdk\""),
            "{now}"
        );

        let none = root.path().join("none");
        assert!(matches!(move_sdk(&none), Err(ScaffoldError::NoJob { .. })));
    }
}
