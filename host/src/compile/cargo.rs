//! Runs cargo for one guest crate and parses its messages.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use super::error::BuildError;
use super::report::BuildReport;
use super::sources::{Package, SharedDir};
use super::tools::{TARGET, Tools};

/// Turns on vector instructions, which every supported host has: they make splitting text six times faster.
const RUSTFLAGS: &str = "target.wasm32-unknown-unknown.rustflags=[\"-Ctarget-feature=+simd128\"]";

/// Turns on whole-program optimisation. It makes components a third of the size, and every checkpoint and upload
/// carries them.
const LTO: &str = "profile.release.lto=\"fat\"";

/// The core module that cargo made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CoreModule {
    /// The file.
    pub(crate) path: PathBuf,
    /// Cargo's target directory.
    pub(crate) target_dir: PathBuf,
    /// True if it was compiled just now, false if cargo found it unchanged.
    pub(crate) compiled: bool,
}

/// The outcome of cargo for a crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Compiled {
    /// Its module.
    pub(crate) module: CoreModule,
    /// Directories of the path packages that it was compiled from.
    pub(crate) packages: Vec<PathBuf>,
    /// True if one of these has a build script.
    pub(crate) has_build_script: bool,
}

/// A guest crate to build.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crate<'a> {
    /// Uid of the operator that runs it, for messages.
    pub(crate) uid: &'a str,
    /// The directory of its `Cargo.toml`.
    pub(crate) dir: &'a Path,
}

/// Compiles the crate with cargo, which does nothing where nothing has changed.
///
/// Progress goes to `report` as it comes, and the crate's own warnings after a build that compiled it.
pub(crate) fn compile(tools: &Tools, krate: Crate<'_>, report: &dyn BuildReport) -> Result<Compiled, BuildError> {
    let announcement = Announcement::new(krate, report);
    let Some(dir) = &tools.shared_dir else {
        return run(tools, &announcement)?.compiled(krate, report);
    };
    let refused = |source| BuildError::Io {
        doing: "write to",
        path: dir.clone(),
        source,
    };
    let shared = SharedDir::lock(dir, || announcement.waits()).map_err(refused)?;
    let mut said = run(tools, &announcement)?;
    if shared.forget_foreign(&said.packages).map_err(refused)? {
        said = run(tools, &announcement)?;
    }
    shared.record(&said.packages).map_err(refused)?;
    said.compiled(krate, report)
}

/// Runs cargo once.
fn run(tools: &Tools, announcement: &Announcement<'_>) -> Result<Said, BuildError> {
    let krate = announcement.krate;
    let missing = |source| BuildError::NoTool {
        program: tools.cargo.clone(),
        variable: "CARGO",
        source,
    };
    let mut child = command(tools, krate.dir).spawn().map_err(missing)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (said, progress) = std::thread::scope(|scope| {
        let progress = scope.spawn(|| stderr.map(|stderr| follow(stderr, announcement)).unwrap_or_default());
        let said = stdout.map(|stdout| read(stdout, announcement)).unwrap_or_default();
        (said, progress.join().unwrap_or_default())
    });
    let status = child.wait().map_err(missing)?;
    if !status.success() {
        let mut output = if said.errors.is_empty() { progress } else { said.errors };
        if output.is_empty() {
            output.push(format!("cargo ended with {status}"));
        }
        return Err(BuildError::Compile {
            uid: krate.uid.to_owned(),
            dir: krate.dir.to_owned(),
            output: output.join("\n").trim_end().to_owned(),
        });
    }
    Ok(said)
}

/// Tells once that a crate is being compiled, or that its build waits for another one.
struct Announcement<'a> {
    krate: Crate<'a>,
    report: &'a dyn BuildReport,
    compiles: AtomicBool,
    waits: AtomicBool,
}

impl<'a> Announcement<'a> {
    fn new(krate: Crate<'a>, report: &'a dyn BuildReport) -> Self {
        Self {
            krate,
            report,
            compiles: AtomicBool::new(false),
            waits: AtomicBool::new(false),
        }
    }

    /// Tells that the crate, or one that it depends on, is being compiled.
    fn compiles(&self) {
        if !self.compiles.swap(true, Ordering::Relaxed) {
            let Crate { uid, dir } = self.krate;
            self.report.line(&format!("building {uid} ({})", dir.display()));
        }
    }

    /// Tells that another build has the lock of the directory.
    fn waits(&self) {
        if !self.waits.swap(true, Ordering::Relaxed) {
            let uid = self.krate.uid;
            self.report.line(&format!(
                "{uid}: another build is in progress; this one goes on when it is done"
            ));
        }
    }
}

fn command(tools: &Tools, dir: &Path) -> Command {
    let build_dir = tools.build_dir.as_ref().map(|dir| {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
        format!(
            "build.build-dir={}",
            toml::Value::String(dir.to_string_lossy().into_owned())
        )
    });
    let mut command = Command::new(&tools.cargo);
    command
        .args([
            "rustc",
            "--lib",
            "--release",
            "--crate-type",
            "cdylib",
            "--target",
            TARGET,
        ])
        .args(["--message-format", "json", "--config", RUSTFLAGS, "--config", LTO])
        .args(build_dir.iter().flat_map(|config| ["--config", config]))
        .arg("--manifest-path")
        .arg(dir.join("Cargo.toml"))
        // So that a rust-toolchain.toml and .cargo/config.toml beside the crate are found.
        .current_dir(dir)
        // These would replace the flags above, and they are meant for the machine, not for guests.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let ends_with_its_parent = || Ok(rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?);
    // SAFETY: the closure makes one system call, and neither allocates nor takes a lock.
    unsafe { command.pre_exec(ends_with_its_parent) };
    command
}

/// The parts of cargo's JSON messages that matter here.
#[derive(Debug, Default)]
struct Said {
    errors: Vec<String>,
    warnings: Vec<String>,
    module: Option<CoreModule>,
    /// Path packages with an artifact.
    packages: Vec<Package>,
    /// True if a path package has a build script.
    has_build_script: bool,
}

impl Said {
    /// Returns the module and its origins, and reports the crate's warnings if it was compiled.
    fn compiled(self, krate: Crate<'_>, report: &dyn BuildReport) -> Result<Compiled, BuildError> {
        let module = self.module.ok_or_else(|| BuildError::NoModule {
            uid: krate.uid.to_owned(),
            dir: krate.dir.to_owned(),
        })?;
        if module.compiled {
            self.warnings.iter().for_each(|warning| report.line(warning.trim_end()));
        }
        Ok(Compiled {
            module,
            packages: self.packages.into_iter().map(|package| package.dir).collect(),
            has_build_script: self.has_build_script,
        })
    }
}

fn read(stdout: impl Read, announcement: &Announcement<'_>) -> Said {
    let mut said = Said::default();
    let manifest = announcement.krate.dir.join("Cargo.toml");
    let manifest = manifest.canonicalize().unwrap_or(manifest);
    for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
        // Anything else on stdout is a build script's or a macro's.
        let Ok(message) = serde_json::from_slice::<Value>(&line) else {
            continue;
        };
        let fresh = message["fresh"].as_bool().unwrap_or(true);
        if !fresh {
            announcement.compiles();
        }
        if message["reason"] == "compiler-artifact" {
            said.packages.extend(Package::of_message(&message));
        }
        if message["reason"] == "build-script-executed" {
            let package = message["package_id"].as_str().unwrap_or_default();
            said.has_build_script |= package.starts_with("path+");
        }
        take_message(&mut said, &message, &manifest, fresh);
    }
    said
}

fn take_message(said: &mut Said, message: &Value, manifest: &Path, fresh: bool) {
    let ours = || {
        let path = message["manifest_path"].as_str().map(Path::new);
        path.is_some_and(|path| path.canonicalize().unwrap_or_else(|_| path.to_owned()) == manifest)
    };
    match message["reason"].as_str() {
        Some("compiler-message") => {
            let Some(rendered) = message["message"]["rendered"].as_str() else {
                return;
            };
            match message["message"]["level"].as_str() {
                Some("warning") if ours() => said.warnings.push(rendered.to_owned()),
                Some("warning") => {}
                _ => said.errors.push(rendered.to_owned()),
            }
        }
        Some("compiler-artifact") if ours() => {
            let files = message["filenames"].as_array().map(Vec::as_slice).unwrap_or_default();
            let mut paths = files.iter().filter_map(Value::as_str).map(PathBuf::from);
            let path = paths.find(|path| path.extension().is_some_and(|extension| extension == "wasm"));
            // TARGET_DIR/wasm32-unknown-unknown/release/NAME.wasm
            if let Some(path) = path
                && let Some(target_dir) = path.ancestors().nth(3).map(Path::to_owned)
            {
                said.module = Some(CoreModule {
                    path,
                    target_dir,
                    compiled: !fresh,
                });
            }
        }
        _ => {}
    }
}

/// Reports cargo's stderr as it comes, and returns its lines for the message of an error that is not the compiler's.
fn follow(stderr: impl Read, announcement: &Announcement<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let trimmed = line.trim();
        if !trimmed.is_empty() {
            if trimmed.starts_with("Compiling ") {
                announcement.compiles();
            } else if trimmed.starts_with("Blocking waiting for file lock on ") && trimmed.ends_with(" directory") {
                announcement.waits();
            }
            announcement
                .report
                .doing(&format!("{}: {trimmed}", announcement.krate.uid));
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    impl BuildReport for Silent {
        fn line(&self, _: &str) {}
        fn doing(&self, _: &str) {}
    }

    #[test]
    fn what_takes_time_is_told_once() {
        #[derive(Default)]
        struct Lines(std::sync::Mutex<Vec<String>>);
        impl BuildReport for Lines {
            fn line(&self, text: &str) {
                self.0.lock().unwrap().push(text.to_owned());
            }
            fn doing(&self, _: &str) {}
        }
        let (lines, dir) = (Lines::default(), Path::new("/job/count"));
        let announcement = Announcement::new(Crate { uid: "count", dir }, &lines);
        let text = "    Blocking waiting for file lock on build directory\n    Blocking waiting for file lock on package cache\n   Compiling serde v1.0.0\n   Compiling count v0.1.0 (/job/count)\n    Finished\n";
        assert_eq!(follow(text.as_bytes(), &announcement).len(), 5);
        let told = lines.0.into_inner().unwrap();
        let waits = "count: another build is in progress; this one goes on when it is done";
        assert_eq!(told, [waits, "building count (/job/count)"]);
    }

    #[test]
    fn cargos_messages_are_understood() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::write(dir.join("Cargo.toml"), "").unwrap();
        let manifest = dir.join("Cargo.toml");
        let manifest = manifest.display();
        let text = format!(
            r#"not JSON
{{"reason":"compiler-artifact","manifest_path":"/elsewhere/Cargo.toml","filenames":["/t/x/y/other.wasm"],"fresh":false}}
{{"reason":"compiler-message","manifest_path":"{manifest}","message":{{"level":"warning","rendered":"warning: w\n"}}}}
{{"reason":"compiler-message","manifest_path":"/elsewhere/Cargo.toml","message":{{"level":"warning","rendered":"theirs"}}}}
{{"reason":"compiler-message","manifest_path":"{manifest}","message":{{"level":"error","rendered":"error: e\n"}}}}
{{"reason":"compiler-artifact","manifest_path":"{manifest}","filenames":["/t/wasm32-unknown-unknown/release/a.d","/t/wasm32-unknown-unknown/release/a.wasm"],"fresh":false}}
{{"reason":"build-script-executed","package_id":"registry+https://index#serde@1.0.0"}}
{{"reason":"build-script-executed","package_id":"path+file:///job/count#0.1.0"}}
{{"reason":"build-finished","success":true}}
"#
        );
        let krate = Crate { uid: "a", dir: &dir };
        let said = read(text.as_bytes(), &Announcement::new(krate, &Silent));
        assert_eq!(said.warnings, ["warning: w\n"]);
        assert_eq!(said.errors, ["error: e\n"]);
        assert!(said.has_build_script);
        assert_eq!(
            said.module,
            Some(CoreModule {
                path: "/t/wasm32-unknown-unknown/release/a.wasm".into(),
                target_dir: "/t".into(),
                compiled: true
            })
        );
    }
}
