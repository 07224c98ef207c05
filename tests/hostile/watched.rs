//! Runs commands under a time limit, and measures the memory that they need at most.

use std::fs::File;
use std::time::{Duration, Instant};

use crate::support::{Ran, World};

/// Limit of a command that must not block.
const PATIENCE: Duration = Duration::from_secs(30);
/// Limit of the memory of a command that refuses its input, in MiB.
pub const MIB_MAX: u64 = 300;

/// The end of a watched command.
#[derive(Debug)]
pub struct Watched {
    pub ran: Ran,
    /// Most memory that it held, in MiB.
    pub peak_mib: u64,
}

impl Watched {
    /// Checks that the command refused its input with these words, and stayed small.
    #[track_caller]
    pub fn refuses(&self, words: &str) {
        self.says(1, words);
    }

    /// Checks the exit status and a part of stderr, and that the command stayed small.
    #[track_caller]
    pub fn says(&self, status: i32, words: &str) {
        self.check(words, Some(status))
            .unwrap_or_else(|wrong| panic!("{wrong}"));
    }

    /// Checks the exit status, if one is expected, and a part of stderr, and that the command neither panicked nor was
    /// killed, and stayed small.
    ///
    /// # Errors
    /// Returns the mismatch.
    pub fn check(&self, words: &str, status: Option<i32>) -> Result<(), String> {
        let Ran {
            status: found, stderr, ..
        } = &self.ran;
        let is_small = self.peak_mib < MIB_MAX && !stderr.contains("panicked");
        if *found >= 0 && status.unwrap_or(*found) == *found && stderr.contains(words) && is_small {
            return Ok(());
        }
        let peak = self.peak_mib;
        Err(format!(
            "expected status {status:?} with {words:?} in less than {MIB_MAX} MiB, found {found} in {peak} MiB:\n{stderr:.600}"
        ))
    }
}

/// Runs a command of the program to its end, which must come soon.
#[track_caller]
pub fn watched(world: &World, args: &[&str]) -> Watched {
    let (stdout, stderr) = (world.path().join("stdout"), world.path().join("stderr"));
    let mut child = world
        .command(args)
        .stdout(File::create(&stdout).expect("a file"))
        .stderr(File::create(&stderr).expect("a file"))
        .spawn()
        .expect("the program runs");
    let status_file = format!("/proc/{}/status", child.id());
    let (deadline, mut peak_mib) = (Instant::now() + PATIENCE, 0);
    let status = loop {
        peak_mib = peak_mib.max(peak(&status_file));
        if let Some(status) = child.try_wait().expect("waitable") {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().expect("killed");
            child.wait().expect("waitable");
            panic!("{args:?} still ran after {PATIENCE:?}, with a peak of {peak_mib} MiB");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let text = |path| String::from_utf8_lossy(&std::fs::read(path).expect("its output")).into_owned();
    Watched {
        ran: Ran {
            status: status.code().unwrap_or(-1),
            stdout: text(&stdout),
            stderr: text(&stderr),
        },
        peak_mib,
    }
}

/// Returns the peak memory of a process in MiB. Where the system does not tell it, this is 0, and a note says that the check
/// is left out.
pub fn peak(status_file: &str) -> u64 {
    let status = std::fs::read_to_string(status_file).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    if kib.is_none() {
        eprintln!("left out: {status_file} does not tell the peak memory");
    }
    kib.unwrap_or(0) / 1024
}
