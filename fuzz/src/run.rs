//! The driver: runs every input of the corpus, and then mutations of them, each in a sandbox that notices panics,
//! memory and time. A finding is shrunk and written to the corpus.

use std::cell::RefCell;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::corpus;
use crate::coverage::Coverage;
use crate::memory::peak_of;
use crate::random::Random;
use crate::targets::Target;

/// Limit of CPU time per input, for a slow machine without optimisation.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Time for shrinking a finding.
const SHRINK_TIME: Duration = Duration::from_secs(10);
/// Limit of mutations stacked on one input.
const STACKED_MAX: usize = 12;

/// The end of a run.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    /// After this number of mutated inputs.
    Iterations(u64),
    /// After this time.
    Time(Duration),
    /// After this iteration, which is the only one.
    Only(u64),
}

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Seed that determines all choices.
    pub seed: u64,
    /// End of the run.
    pub bound: Bound,
    /// Directory of inputs that reach new code, from which mutations also start.
    pub keep: Option<PathBuf>,
    /// True if a finding is written to the corpus.
    pub record: bool,
}

/// Summary of a run without findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Number of inputs in the corpus.
    pub corpus: usize,
    /// Number of those that the code under test accepts. If it is 0, nothing beyond the first checks is fuzzed.
    pub sound: usize,
    /// Number of mutated inputs.
    pub iterations: u64,
    /// Number of magnitudes of counters seen; 0 without instrumentation.
    pub features: usize,
}

/// A property that an input violates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The code panicked.
    Panic {
        /// File and line.
        place: String,
        /// Message of the panic.
        message: String,
    },
    /// The code held more memory than the length of the input justifies.
    Memory {
        /// Maximum of bytes held.
        peak: usize,
        /// Bytes allowed.
        allowed: usize,
    },
    /// The code took longer than [`TIME_MAX`].
    Time(Duration),
}

impl Fault {
    /// Returns true if another fault is most likely the same one.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Panic { place, .. }, Self::Panic { place: other, .. }) => place == other,
            (Self::Memory { .. }, Self::Memory { .. }) | (Self::Time(_), Self::Time(_)) => true,
            _ => false,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Panic { place, message } => write!(f, "it panicked at {place}: {message}"),
            Self::Memory { peak, allowed } => write!(f, "it held {peak} bytes, expected at most {allowed}"),
            Self::Time(time) => write!(f, "it took {time:?}, expected at most {TIME_MAX:?}"),
        }
    }
}

/// A finding.
#[derive(Debug)]
pub struct Finding {
    /// Name of the target.
    pub target: &'static str,
    /// The file of the corpus, or seed and iteration.
    pub origin: String,
    /// The violated property.
    pub fault: Fault,
    /// The smallest input that was found to violate it.
    pub input: Vec<u8>,
    /// Path of the file that it was written to, if any.
    pub path: Option<PathBuf>,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            target,
            origin,
            fault,
            input,
            path,
        } = self;
        writeln!(f, "{target}: {origin}: {fault}")?;
        match path {
            Some(path) => writeln!(
                f,
                "the input is in {}; keep it there when this is mended",
                path.display()
            )?,
            None => writeln!(f, "the input is {} bytes", input.len())?,
        }
        write!(f, "{}", String::from_utf8_lossy(&input[..input.len().min(2000)]))
    }
}

thread_local! {
    /// The last panic of this thread while it is under test.
    static PANICKED: RefCell<Option<(String, String)>> = const { RefCell::new(None) };
    static UNDER_TEST: RefCell<bool> = const { RefCell::new(false) };
}

/// Installs a hook that keeps the panics of a target for the report instead of printing them.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !UNDER_TEST.with_borrow(|under_test| *under_test) {
                return usual(info);
            }
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            let message = info.payload_as_str().unwrap_or("without a text").to_owned();
            PANICKED.set(Some((place, message)));
        }));
    });
}

/// Returns the processor time that this thread has used.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

/// Runs one input. Returns true if the code under test accepted it.
///
/// # Errors
/// The property that the input violates.
pub fn check(target: &Target, input: &[u8]) -> Result<bool, Fault> {
    keep_panics();
    let started = cpu_time();
    UNDER_TEST.set(true);
    let (result, peak) = peak_of(|| catch_unwind(AssertUnwindSafe(|| (target.run)(input))).ok());
    UNDER_TEST.set(false);
    let time = cpu_time().saturating_sub(started);
    // A panic that the code under test caught by itself is not a finding.
    let panicked = PANICKED.take();
    let Some(is_accepted) = result else {
        let (place, message) = panicked.unwrap_or_default();
        return Err(Fault::Panic { place, message });
    };
    let allowed = (target.memory_max)(input.len());
    if peak > allowed {
        return Err(Fault::Memory { peak, allowed });
    }
    if time > TIME_MAX {
        Err(Fault::Time(time))
    } else {
        Ok(is_accepted)
    }
}

/// The input under test, kept on disk: it remains of a process that overflowed its stack or was refused memory.
struct Running {
    path: PathBuf,
    file: std::fs::File,
}

impl Running {
    fn new(target: &Target) -> std::io::Result<Self> {
        let name = format!("regraft-fuzz-{}-{}", std::process::id(), target.name);
        let path = std::env::temp_dir().join(name);
        let file = std::fs::File::create(&path)?;
        Ok(Self { path, file })
    }

    fn note(&self, input: &[u8]) -> std::io::Result<()> {
        self.file.set_len(input.len() as u64)?;
        self.file.write_all_at(input, 0)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The reason why a run ended early.
#[derive(Debug)]
pub enum Failure {
    /// It found something.
    Found(Box<Finding>),
    /// Files of the corpus could not be read or written.
    Io(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Found(finding) => finding.fmt(f),
            Self::Io(text) => f.write_str(text),
        }
    }
}

/// Runs a target over its corpus, and then over mutations of it.
///
/// # Errors
/// The first finding, or an error of reading or writing files.
pub fn fuzz(target: &Target, settings: &Settings) -> Result<Summary, Failure> {
    let io = |error: std::io::Error| Failure::Io(format!("the files of {}: {error}", target.name));
    let mut named = corpus::read(&corpus::dir(target.name)).map_err(io)?;
    if let Some(keep) = &settings.keep {
        named.extend(corpus::read(keep).map_err(io)?);
    }
    let running = Running::new(target).map_err(io)?;
    let guided = Coverage::is_there();
    let mut coverage = Coverage::default();
    let started = Instant::now();
    let mut inputs = Vec::with_capacity(named.len());
    let mut sound = 0;
    for (name, input) in named {
        running.note(&input).map_err(io)?;
        if guided {
            Coverage::clear();
        }
        let checked = check(target, &input);
        let is_accepted = checked.map_err(|fault| found(target, settings, name, fault, input.clone(), false))?;
        sound += usize::from(is_accepted);
        if guided {
            coverage.add();
        }
        inputs.push(input);
    }
    let corpus = inputs.len();
    let (first, last) = match settings.bound {
        Bound::Iterations(count) => (0, count),
        Bound::Only(iteration) => (iteration, iteration.saturating_add(1)),
        Bound::Time(_) => (0, u64::MAX),
    };
    let mut done = 0;
    for iteration in first..last {
        if let Bound::Time(time) = settings.bound
            && started.elapsed() >= time
        {
            break;
        }
        let input = made(target, &inputs, settings.seed, iteration);
        running.note(&input).map_err(io)?;
        if guided {
            Coverage::clear();
        }
        let origin = format!("seed {} iteration {iteration}", settings.seed);
        check(target, &input).map_err(|fault| found(target, settings, origin, fault, input.clone(), true))?;
        if guided && coverage.add() {
            if let Some(keep) = &settings.keep {
                corpus::write(keep, "kept", &input).map_err(io)?;
            }
            inputs.push(input);
        }
        done += 1;
    }
    Ok(Summary {
        corpus,
        sound,
        iterations: done,
        features: coverage.features,
    })
}

/// Makes the input of an iteration.
fn made(target: &Target, inputs: &[Vec<u8>], seed: u64, iteration: u64) -> Vec<u8> {
    let mut random = Random::new(seed, iteration);
    let empty = Vec::new();
    let mut input = if inputs.is_empty() || random.one_in(16) {
        (target.generate)(&mut random)
    } else {
        random.pick(inputs).clone()
    };
    for _ in 0..1 + random.length(STACKED_MAX) {
        let other = if inputs.is_empty() { &empty } else { random.pick(inputs) };
        (target.mutate)(&mut random, &mut input, other);
        input.truncate(target.len_max);
    }
    input
}

/// Shrinks a finding, and writes it to the corpus.
fn found(target: &Target, settings: &Settings, origin: String, fault: Fault, input: Vec<u8>, is_new: bool) -> Failure {
    let input = if is_new { shrink(target, &fault, input) } else { input };
    let record = is_new && settings.record;
    let path = record
        .then(|| corpus::write(&corpus::dir(target.name), "found", &input).ok())
        .flatten();
    Failure::Found(Box::new(Finding {
        target: target.name,
        origin,
        fault,
        input,
        path,
    }))
}

/// Removes parts of the input for as long as the fault stays.
fn shrink(target: &Target, fault: &Fault, mut input: Vec<u8>) -> Vec<u8> {
    let started = Instant::now();
    let mut part = input.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < input.len() {
            if started.elapsed() > SHRINK_TIME {
                return input;
            }
            let mut less = input.clone();
            less.drain(at..(at + part).min(input.len()));
            if check(target, &less).is_err_and(|other| other.is_like(fault)) {
                input = less;
            } else {
                at += part;
            }
        }
        part /= 2;
    }
    input
}
