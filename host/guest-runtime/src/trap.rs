//! Failures of a call, as types.
//!
//! A declared failure and a trap stay different from here to the user: an operator's policy may treat them differently.
//! Texts say what was expected, what was found and which setting to change. What the runtime reports is turned into
//! these types here, together with what the store recorded on the way.

use std::time::Duration;

use wasmtime::{FrameInfo, Trap, WasmBacktrace};

use crate::call::Failure;
use crate::imports::GuestData;
use crate::module_error::shown;
use crate::symbols::DebugInfo;

/// Length of the runtime's words in a message, in bytes. Longer ones are cut.
const MESSAGE_MAX: usize = 4_000;
/// Length of the name of a function in a backtrace, in bytes. A longer one is cut.
const FUNCTION_MAX: usize = 300;
/// The most frames of a backtrace that are named.
const FRAMES_MAX: usize = 20;

/// Reason why a call to an operator gave no outcome. Nothing of that call is kept.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GuestError {
    /// The operator ran, and says that it cannot process this. The instance is still good.
    #[error("{failure}")]
    Failed {
        /// Its own words, and the row.
        failure: Failure,
    },
    /// The call was ended. The instance is of no more use until `reset`.
    #[error("{cause}")]
    Trapped {
        /// Reason.
        cause: TrapCause,
        /// Frames of the guest, innermost first. Empty if they are not known.
        backtrace: Vec<Frame>,
    },
    /// The answer contradicts itself or the call, or could not even be read. In the second case the instance is of no
    /// more use until `reset`.
    #[error("the module returned a wrong outcome: {what}")]
    InvalidOutcome {
        /// The column, with the expected and the actual content.
        what: String,
    },
    /// The call was ended from outside: its answer is no longer needed. The instance is of no more use until `reset`.
    #[error("the call was ended before its time, since its answer is no longer needed")]
    Interrupted,
    /// An earlier call trapped, and the instance has not been reset.
    #[error("the instance cannot be called: an earlier call of it trapped, and it has not been reset")]
    Poisoned,
    /// Not the guest's doing: the runtime itself failed.
    #[error("{doing} failed: {message}")]
    Engine {
        /// The step that failed.
        doing: &'static str,
        /// The runtime's words.
        message: String,
    },
}

impl GuestError {
    /// The row that the guest named, in its own failure or by the panic import.
    #[must_use]
    pub fn row(&self) -> Option<u32> {
        match self {
            Self::Failed { failure } => failure.row,
            Self::Trapped {
                cause: TrapCause::Panic { row, .. },
                ..
            } => *row,
            _ => None,
        }
    }

    /// Returns true if the call computed for longer than it may.
    #[must_use]
    pub fn is_too_slow(&self) -> bool {
        let Self::Trapped { cause, .. } = self else {
            return false;
        };
        matches!(cause, TrapCause::Deadline { .. })
    }

    /// The same for a reader who knows the row by other means, and to whom a number within a call says nothing.
    #[must_use]
    pub fn without_row(&self) -> Self {
        let mut error = self.clone();
        match &mut error {
            Self::Failed { failure } => failure.row = None,
            Self::Trapped {
                cause: TrapCause::Panic { row, .. },
                ..
            } => *row = None,
            _ => {}
        }
        error
    }

    /// Returns the frames of the guest, innermost first.
    #[must_use]
    pub fn backtrace(&self) -> &[Frame] {
        match self {
            Self::Trapped { backtrace, .. } => backtrace,
            _ => &[],
        }
    }
}

/// Cause of the end of a call.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TrapCause {
    /// The guest panicked, and told so before it ended.
    #[error("the module panicked at {file}:{line}:{column}{}: {message}", in_row(*.row))]
    Panic {
        /// The panic's message.
        message: String,
        /// The source file, as the guest's compiler names it.
        file: String,
        /// From 1.
        line: u32,
        /// From 1.
        column: u32,
        /// The row being processed.
        row: Option<u32>,
    },
    /// The memory limit was reached, and the guest could not go on.
    #[error("the module ran out of memory: it asked for {}, and the limit is {}; raise `limits.memory` if it needs that much", bytes(*.asked), bytes(*.limit))]
    OutOfMemory {
        /// The size it would have had, in bytes.
        asked: u64,
        /// In bytes.
        limit: u64,
    },
    /// The host would have held more for the call than it may.
    #[error("the module made the host hold more than {} for one call; raise `limits.host-memory` if it needs that much", bytes(*.limit))]
    HostMemory {
        /// In bytes.
        limit: u64,
    },
    /// The writes of the call would have made keyed state larger than it may be.
    #[error("{} would grow from {} to {}, by {more} bytes, and the limit is {}{}; {}", .whose.state(), bytes(*.held), bytes(.held.saturating_add(*.more)), bytes(*.limit), .whose.reason(), .whose.remedy())]
    StateFull {
        /// Owner of the limit.
        whose: StateOwner,
        /// Bytes that count towards it.
        held: u64,
        /// Bytes that the call would have added.
        more: u64,
        /// In bytes.
        limit: u64,
    },
    /// The call computed for longer than it may.
    #[error(
        "the module computed for more than {limit:?} in one call; raise `limits.time-per-batch` if it needs that long"
    )]
    Deadline {
        /// The limit.
        limit: Duration,
    },
    /// Calls nested too deep.
    #[error("the module's stack overflowed: a function calls itself without end, or too deep")]
    StackOverflow,
    /// Any other trap, in the runtime's words.
    #[error("the module trapped: {0}")]
    Trap(String),
}

/// Owner of a limit of keyed state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateOwner {
    /// One operator: `limits.state`.
    Operator,
    /// All jobs of the host.
    Host,
    /// All jobs of the host, for an operator that has more than its share: the last tenth is for the others.
    HostShare {
        /// Bytes of the operator's state.
        own: u64,
        /// Its share of the host's limit, in bytes.
        share: u64,
    },
}

impl StateOwner {
    const fn state(self) -> &'static str {
        match self {
            Self::Operator => "the operator's keyed state",
            Self::Host | Self::HostShare { .. } => {
                "the keyed state of all jobs of this host, with room for its snapshots,"
            }
        }
    }

    /// Returns why the limit is less than that of others.
    fn reason(self) -> String {
        match self {
            Self::Operator | Self::Host => String::new(),
            Self::HostShare { own, share } => format!(
                " for an operator that has more than its share (it has {}, and the share is {})",
                bytes(own),
                bytes(share)
            ),
        }
    }

    const fn remedy(self) -> &'static str {
        match self {
            Self::Operator => "remove what is not needed, let it expire (`ttl`), or raise `limits.state`",
            Self::Host => {
                "remove what is not needed, let it expire (`ttl`), bound other operators by `limits.state`, or give the host more memory"
            }
            Self::HostShare { .. } => {
                "remove what is not needed, let it expire (`ttl`), or give the host more memory; the rest is for operators that have less"
            }
        }
    }
}

/// One function on the guest's stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The demangled name, or the function's number in the module.
    pub function: String,
    /// The source file, where the module has debug information.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u32>,
}

impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.function)?;
        match (&self.file, self.line) {
            (Some(file), Some(line)) => write!(f, " ({file}:{line})"),
            (Some(file), None) => write!(f, " ({file})"),
            _ => Ok(()),
        }
    }
}

/// Reason why there is no instance: the module's own initialisation trapped, or the machine has no room for one.
pub(crate) fn not_made(error: &wasmtime::Error, data: &GuestData, debug: &DebugInfo) -> GuestError {
    match classify(error, data, debug, 0) {
        // Nothing was called that could have returned it.
        GuestError::InvalidOutcome { what } => {
            let remedy = if what.ends_with("(os error 12)") {
                "; an instance reserves 4 GiB of addresses, without using them: allow more (`ulimit -v`), or run fewer subtasks"
            } else {
                ""
            };
            GuestError::Engine {
                doing: "making an instance of the module",
                message: format!("{what}{remedy}"),
            }
        }
        error => error,
    }
}

/// Determines what ended a call, from the runtime's error and the facts that the store recorded during the call.
pub(crate) fn classify(error: &wasmtime::Error, data: &GuestData, debug: &DebugInfo, rows: u32) -> GuestError {
    if let Some(message) = &data.state.failure {
        return GuestError::Engine {
            doing: "reading state",
            message: message.clone(),
        };
    }
    if data.deadline.interrupted {
        return GuestError::Interrupted;
    }
    if data.host_memory.exceeded || (data.host_memory.limit() < data.memory.limit() && is_out_of_fuel(error)) {
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        return GuestError::Trapped {
            cause: TrapCause::HostMemory {
                limit: data.host_memory.limit(),
            },
            backtrace: backtrace.map_or_else(Vec::new, |backtrace| frames(backtrace, debug)),
        };
    }
    let trap = error.downcast_ref::<Trap>();
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    if trap.is_none() && backtrace.is_none() && data.memory.refused.is_none() {
        // It returned, and what it returned could not be read.
        return GuestError::InvalidOutcome {
            what: unreadable(error, data.memory.limit()),
        };
    }
    let mut frames = backtrace.map_or_else(Vec::new, |backtrace| frames(backtrace, debug));
    let cause = if data.deadline.passed {
        TrapCause::Deadline {
            limit: data.deadline.limit(),
        }
    } else if let Some(panic) = data.host.panic.clone() {
        if let Some(last) = frames.iter().rposition(|frame| is_panic_machinery(&frame.function)) {
            frames.drain(..=last);
        }
        let row = panic.row.filter(|&row| row < rows);
        TrapCause::Panic {
            message: panic.message,
            file: panic.file,
            line: panic.line,
            column: panic.column,
            row,
        }
    } else {
        match (trap, data.memory.refused) {
            (None | Some(Trap::UnreachableCodeReached | Trap::MemoryOutOfBounds), Some(asked)) => {
                TrapCause::OutOfMemory {
                    asked,
                    limit: data.memory.limit(),
                }
            }
            (Some(Trap::StackOverflow), _) => TrapCause::StackOverflow,
            (Some(Trap::MemoryOutOfBounds), _) if below_the_stack(error, &frames) => TrapCause::StackOverflow,
            (Some(trap), _) => TrapCause::Trap(trap.to_string().trim_start_matches("wasm trap: ").to_owned()),
            (None, _) => TrapCause::Trap(shown(&error.root_cause().to_string(), MESSAGE_MAX)),
        }
    };
    if let TrapCause::OutOfMemory { .. } = cause
        && let Some(own) = frames
            .iter()
            .position(|frame| frame.file.as_deref().is_some_and(|file| library(file).is_none()))
    {
        // What the allocator does about it is of no interest.
        frames.drain(..own);
    }
    for frame in &mut frames {
        if let Some(short) = frame.file.as_deref().and_then(library) {
            frame.file = Some(short.to_owned());
        }
    }
    GuestError::Trapped {
        cause,
        backtrace: frames,
    }
}

fn unreadable(error: &wasmtime::Error, memory_limit: u64) -> String {
    if is_out_of_fuel(error) {
        return format!(
            "it is larger than the instance's whole memory may be ({})",
            bytes(memory_limit)
        );
    }
    shown(&error.root_cause().to_string(), MESSAGE_MAX)
}

/// True if the guest handed over more than it may, in the runtime's words.
fn is_out_of_fuel(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("fuel allocated for hostcalls")
}

/// A guest that keeps its stack at the start of its memory overflows it downwards, to addresses just below 4 GiB.
fn below_the_stack(error: &wasmtime::Error, frames: &[Frame]) -> bool {
    let fault = error.chain().find_map(|cause| {
        let text = cause.to_string();
        let digits = text
            .strip_prefix("memory fault at wasm address 0x")?
            .split(' ')
            .next()?
            .to_owned();
        u64::from_str_radix(&digits, 16).ok()
    });
    let recurses = |frame: &Frame| frames.iter().filter(|other| other.function == frame.function).count() > 2;
    fault.is_some_and(|address| address >= 0xf000_0000) && frames.iter().any(recurses)
}

fn frames(backtrace: &WasmBacktrace, debug: &DebugInfo) -> Vec<Frame> {
    let frames = backtrace.frames().iter().take(FRAMES_MAX);
    frames.flat_map(|frame| functions_at(frame, debug)).collect()
}

/// Names the function of a frame and those that were inlined there, innermost first.
pub(crate) fn functions_at(frame: &FrameInfo, debug: &DebugInfo) -> Vec<Frame> {
    let name = || {
        frame
            .func_name()
            .map_or_else(|| format!("function {}", frame.func_index()), demangled)
    };
    let symbols = frame.module_offset().map(|offset| debug.at(offset)).unwrap_or_default();
    if symbols.is_empty() {
        return vec![Frame {
            function: name(),
            file: None,
            line: None,
        }];
    }
    // Debug information has names without their paths, the function's own name has it.
    let inlined = symbols.len() - 1;
    let named = symbols.iter().enumerate().map(|(i, symbol)| {
        let function = symbol.function.as_deref().filter(|_| i < inlined);
        Frame {
            function: function.map_or_else(name, demangled),
            file: symbol.file.clone(),
            line: symbol.line,
        }
    });
    named.collect()
}

/// Returns true for a function of Rust's own library.
pub(crate) fn is_of_library(frame: &Frame) -> bool {
    frame.file.as_deref().and_then(library).is_some()
}

fn demangled(name: &str) -> String {
    // Names may be of any length, and demangling may make them longer.
    let name = &name[..name.floor_char_boundary(MESSAGE_MAX)];
    shown(&format!("{:#}", rustc_demangle::demangle(name)), FUNCTION_MAX)
}

/// A file of Rust's own library without the directory that it was compiled in: `core/src/hint.rs`.
fn library(file: &str) -> Option<&str> {
    let (_, inner) = file.split_once("/library/")?;
    let is_library = ["alloc/src/", "core/src/", "std/src/"]
        .iter()
        .any(|part| inner.starts_with(part));
    is_library.then_some(inner)
}

fn is_panic_machinery(function: &str) -> bool {
    [
        "core::panicking",
        "std::panicking",
        "rust_begin_unwind",
        "rust_panic",
        "core::option::",
        "core::result::",
    ]
    .iter()
    .any(|part| function.contains(part))
}

fn in_row(row: Option<u32>) -> String {
    row.map_or_else(String::new, |row| format!(", in row {row}"))
}

/// Bytes as people read them: whole units where they are whole.
fn bytes(count: u64) -> String {
    match count {
        n if n >= 1 << 30 && n % (1 << 30) == 0 => format!("{} GiB", n >> 30),
        n if n >= 1 << 20 && n % (1 << 20) == 0 => format!("{} MiB", n >> 20),
        // Rounded up, so that what is too large by a little does not look like the limit.
        n if n >= 1 << 20 => format!("{:.1} MiB", (n as f64 / f64::from(1 << 20) * 10.0).ceil() / 10.0),
        n if n >= 1 << 10 => format!("{} KiB", n.div_ceil(1 << 10)),
        n => format!("{n} bytes"),
    }
}
