//! A directory for jobs, and the program that runs them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use regraft::api::client::{Client, FoundJob};
use regraft::api::types::JobView;
use serde_json::Value;

use crate::Failure;
use crate::settings::Settings;

/// Interval at which a running job is polled.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(500);
/// Limit of every wait.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory for jobs, and the program.
pub(super) struct Lab {
    dir: tempfile::TempDir,
    program: PathBuf,
}

/// A finished run of a job, as `run --json` reports it.
pub(super) struct Ended {
    pub(super) result: Value,
    /// The last view of the job while it ran.
    pub(super) view: Option<JobView>,
}

impl Ended {
    pub(super) fn number(&self, key: &str) -> f64 {
        self.result[key].as_f64().unwrap_or(f64::NAN)
    }
}

/// A process that is killed when this value is dropped.
pub(super) struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Lab {
    pub(super) fn new() -> Result<Self, Failure> {
        let program = std::env::current_exe()?.with_file_name("regraft");
        if !program.exists() {
            let shown = program.display();
            return Err(format!("{shown} is not there: build it with cargo build --release").into());
        }
        let dir = tempfile::tempdir()?;
        Ok(Self { dir, program })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(self.dir.path())
            .env("REGRAFT_DATA", self.data());
        command
    }

    /// Writes a job file, replacing `ROWS`, `LAST_KEY`, `KEYS` and `ROOT` by the settings.
    pub(super) fn write(&self, name: &str, text: &str, settings: &Settings) -> Result<PathBuf, Failure> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"));
        let text = text
            .replace("ROWS", &settings.job_records.to_string())
            .replace("LAST_KEY", &(settings.keys - 1).to_string())
            .replace("KEYS", &settings.keys.to_string())
            .replace("ROOT", &root.display().to_string());
        let path = self.dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    fn client(&self) -> Client {
        Client::new(None, None, &self.data())
    }

    /// Waits until a running host has the job, and returns it.
    pub(super) fn find(&self, name: &str) -> Result<(Client, FoundJob), Failure> {
        let start = Instant::now();
        loop {
            let client = self.client();
            match client.find(name) {
                Ok(found) => return Ok((client, found)),
                Err(error) if start.elapsed() > PATIENCE => return Err(error.to_string().into()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Starts the program with its output discarded.
    pub(super) fn start(&self, arguments: &[&str]) -> Result<Running, Failure> {
        let mut command = self.command(arguments);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Running(child))
    }

    /// Runs the program to its end, and returns its stdout. The error is the program's own message.
    pub(super) fn done(&self, arguments: &[&str]) -> Result<String, Failure> {
        let output = self.command(arguments).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }

    /// Runs a job to its end. With `watch`, it is polled meanwhile.
    pub(super) fn run(&self, job: &Path, name: &str, sets: &[&str], watch: bool) -> Result<Ended, Failure> {
        let file = job.display().to_string();
        let mut arguments = vec!["run", &file, "--json"];
        for set in sets {
            arguments.extend(["--set", set]);
        }
        let mut command = self.command(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut view = None;
        while child.try_wait()?.is_none() {
            if watch && let Ok(found) = self.client().find(name) {
                view = self.client().info(&found).ok().or(view);
            }
            std::thread::sleep(if watch { ASK_EVERY } else { ASK_EVERY / 10 });
        }
        let output = child.wait_with_output()?;
        let result: Value = serde_json::from_slice(&output.stdout)?;
        if !output.status.success() {
            return Err(format!("{name} with {sets:?}: {result}").into());
        }
        Ok(Ended { result, view })
    }
}
