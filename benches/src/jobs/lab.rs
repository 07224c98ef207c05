//! A directory for jobs, and the program that runs them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use regraft::api::client::{Client, FoundJob};
use regraft::api::types::JobView;
use serde_json::Value;

use super::process::{self, Used};
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
    /// Processor time and memory of the process.
    pub(super) used: Used,
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

    /// Builds the guests of a job. Returns the arguments of `run` that name the components.
    pub(super) fn build(&self, job: &str) -> Result<Vec<String>, Failure> {
        let built: Value = serde_json::from_str(&self.done(&["build", job, "--json"])?)?;
        let mut arguments = vec![];
        for component in built["components"].as_array().into_iter().flatten() {
            if let (Some(uid), Some(path)) = (component["uid"].as_str(), component["component"].as_str()) {
                arguments.extend(["--module".to_owned(), format!("{uid}={path}")]);
            }
        }
        Ok(arguments)
    }

    /// Runs a job to its end. With `watch`, it is polled meanwhile.
    pub(super) fn run(&self, job: &Path, name: &str, sets: &[&str], watch: bool) -> Result<Ended, Failure> {
        self.run_with(&[], job, name, sets, watch)
    }

    /// Runs a job to its end, with components as [`build`](Self::build) names them.
    pub(super) fn run_with(
        &self,
        modules: &[String],
        job: &Path,
        name: &str,
        sets: &[&str],
        watch: bool,
    ) -> Result<Ended, Failure> {
        let file = job.display().to_string();
        let mut arguments = vec!["run", &file, "--json"];
        arguments.extend(modules.iter().map(String::as_str));
        for set in sets {
            arguments.extend(["--set", set]);
        }
        let is_over = AtomicBool::new(false);
        let (ran, view) = std::thread::scope(|scope| {
            let watching = watch.then(|| scope.spawn(|| self.watch(name, &is_over)));
            let ran = process::run(&mut self.command(&arguments));
            is_over.store(true, Ordering::Relaxed);
            (ran, watching.and_then(|watching| watching.join().ok().flatten()))
        });
        let (out, used) = ran?;
        let result = serde_json::from_str(&out)?;
        Ok(Ended { result, view, used })
    }

    /// Polls a job until it is over. Returns the last view of it.
    fn watch(&self, name: &str, is_over: &AtomicBool) -> Option<JobView> {
        let mut view = None;
        while !is_over.load(Ordering::Relaxed) {
            if let Ok(found) = self.client().find(name) {
                view = self.client().info(&found).ok().or(view);
            }
            std::thread::sleep(ASK_EVERY);
        }
        view
    }
}
