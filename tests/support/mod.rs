//! Support for black-box tests: the real program in a directory of its own, and jobs attached to it.

#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Limit of every wait. It is far more than needed, since machines that run tests are busy.
const PATIENCE: Duration = Duration::from_secs(120);
/// Limit for commands that build guests, maybe with all their dependencies.
const RUN_PATIENCE: Duration = Duration::from_secs(600);

/// Returns the root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("host/ has a parent")
        .to_owned()
}

/// A working directory with a data directory of its own.
pub struct World {
    dir: TempDir,
}

/// Status and output of a finished command.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit status, and prints all output if it is another one.
    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(
            self.status, status,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Parses the single JSON object on stdout.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.stdout.trim_end().lines().count(), 1, "one object: {}", self.stdout);
        serde_json::from_str(&self.stdout).expect("JSON on stdout")
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("temp dir"),
        }
    }

    /// Returns the working directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file, creating its directories.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("in a directory")).expect("directory");
        if name.starts_with("data/") {
            // As the program makes it, so that it has nothing to say about it.
            let private = std::fs::Permissions::from_mode(0o700);
            std::fs::set_permissions(self.path().join("data"), private).expect("set");
        }
        let old = std::fs::read(&path).unwrap_or_default();
        match text.as_bytes().strip_prefix(old.as_slice()) {
            // A job that follows the file must never see it shorter than it was.
            Some(more) if !old.is_empty() => {
                let file = std::fs::OpenOptions::new().append(true).open(&path);
                file.and_then(|mut file| file.write_all(more)).expect("appended");
            }
            _ => std::fs::write(&path, text).expect("written"),
        }
        path
    }

    /// Returns a command of the program that runs in the working directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_regraft"));
        command.args(args).current_dir(self.path());
        command
            .env("REGRAFT_DATA", self.path().join("data"))
            // Not in the data directory, where the dependencies of guests would be compiled for each test.
            .env("CARGO_BUILD_BUILD_DIR", root().join("target"))
            .env_remove("REGRAFT_HOST")
            .env_remove("REGRAFT_TOKEN")
            .env_remove("REGRAFT_LOG");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end. One that does not end, such as a job that should have been refused, is killed after a
    /// time.
    pub fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let pid = child.id().to_string();
        let (done, ended) = mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if ended.recv_timeout(RUN_PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                let _ = Command::new("kill").args(["-s", "KILL", &pid]).status();
            }
        });
        let output = child.wait_with_output().expect("it ends");
        drop(done);
        watch.join().expect("no panic");
        Ran::from(output)
    }

    /// Starts a command in the background.
    fn spawn(&self, mut command: Command) -> Attached {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawned");
        let (stdout, stderr) = (Arc::default(), Arc::default());
        collect(child.stdout.take().expect("piped"), &stdout);
        collect(child.stderr.take().expect("piped"), &stderr);
        Attached {
            child,
            stdout,
            stderr,
            job_id: String::new(),
        }
    }

    /// Starts a serving host on any free port, unless `args` name one, without waiting for it.
    pub fn serve_soon(&self, args: &[&str]) -> Attached {
        let mut command = self.command(&["serve"]);
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(args);
        self.spawn(command)
    }

    /// Starts a serving host, and waits until it listens.
    pub fn serve(&self, args: &[&str]) -> Attached {
        let mut host = self.serve_soon(args);
        host.wait_for_log("Serving on http://");
        host
    }

    /// Starts a serving host of another data directory, and waits until it listens.
    pub fn serve_in(&self, data: &Path) -> Attached {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("REGRAFT_DATA", data);
        let mut host = self.spawn(command);
        host.wait_for_log("Serving on http://");
        host
    }

    /// Starts an attached job, and waits until its host listens.
    pub fn start(&self, args: &[&str]) -> Attached {
        let mut all = vec!["run"];
        all.extend_from_slice(args);
        let mut job = self.spawn(self.command(&all));
        let line = job.wait_for_log(" listens on http://");
        job.job_id = line
            .split('(')
            .nth(1)
            .and_then(|rest| rest.split(')').next())
            .expect("a JobID")
            .to_owned();
        job
    }

    /// Returns the committed lines of a file sink's directory, sorted.
    pub fn committed(&self, dir: &str) -> Vec<String> {
        committed(&self.path().join(dir))
    }
}

/// Returns the committed lines of a file sink's directory, sorted.
pub fn committed(dir: &Path) -> Vec<String> {
    let mut lines = vec![];
    let Ok(entries) = std::fs::read_dir(dir) else {
        return lines;
    };
    for path in entries
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_file())
    {
        lines.extend(std::fs::read_to_string(&path).expect("text").lines().map(str::to_owned));
    }
    lines.sort();
    lines
}

fn collect(stream: impl std::io::Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = into.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut text = into.lock().expect("not poisoned");
            text.push_str(&line);
            text.push('\n');
        }
    });
}

/// An attached `run` in the background. Killed when dropped.
pub struct Attached {
    child: Child,
    stdout: Arc<Mutex<String>>,
    stderr: Arc<Mutex<String>>,
    pub job_id: String,
}

impl Attached {
    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("not poisoned").clone()
    }

    pub fn stderr(&self) -> String {
        self.stderr.lock().expect("not poisoned").clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of stderr that contains `text`, and returns it.
    #[track_caller]
    pub fn wait_for_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.stderr();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().expect("waitable");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "no {text:?} ({ended:?}) in:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the process, which cannot do anything more.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("waitable");
    }

    /// Returns true if it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("waitable").is_none()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let status = Command::new("kill")
            .args(["-s", "TERM", &self.pid().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("waitable") {
                break status;
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.stderr());
            std::thread::sleep(Duration::from_millis(10));
        };
        // The readers see the end of the pipes a moment after the process has gone.
        std::thread::sleep(Duration::from_millis(100));
        Ran {
            status: status.code().unwrap_or(-1),
            stdout: self.stdout(),
            stderr: self.stderr(),
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a condition holds.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
