//! Imports of an operator beside its records: log lines and metrics.
//!
//! On wasm these are imports. Natively they go to the current thread: log lines and metrics are kept for a test to
//! look at ([`take_captured`]), bounded, so that a long run does not fill memory.

use std::fmt;

/// Writes to the job's log: `log::info!("{word} again")`.
///
/// Lines beyond 16 KiB are cut by the host, which also bounds their number in a second.
pub mod log {
    use super::fmt;

    /// Level of a line.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Level {
        /// The finest detail.
        Trace,
        /// For who looks for a fault.
        Debug,
        /// Worth knowing.
        Info,
        /// May be wrong.
        Warn,
        /// Is wrong.
        Error,
    }

    /// Writes one line. The macros beside it are shorter to write.
    pub fn write(level: Level, line: fmt::Arguments<'_>) {
        super::imports::log(level, &line.to_string());
    }

    /// Makes the macros for the levels, exported under `log`.
    macro_rules! level {
        ($dollar:tt $name:ident $hidden:ident $level:ident $doc:literal) => {
            #[doc = $doc]
            #[macro_export]
            #[doc(hidden)]
            macro_rules! $hidden {
                ($dollar($dollar arg:tt)*) => {
                    $crate::log::write($crate::log::Level::$level, ::core::format_args!($dollar($dollar arg)*))
                };
            }
            #[doc = $doc]
            pub use $hidden as $name;
        };
    }
    level!($ trace __log_trace Trace "Logs the finest detail; arguments as for `format!`.");
    level!($ debug __log_debug Debug "Logs for who looks for a fault; arguments as for `format!`.");
    level!($ info __log_info Info "Logs what is worth knowing; arguments as for `format!`.");
    level!($ warn __log_warn Warn "Logs what may be wrong; arguments as for `format!`.");
    level!($ error __log_error Error "Logs what is wrong; arguments as for `format!`.");
}

/// `println!` and its like, which write to the job's log from a component, and to the terminal natively.
///
/// A component has no output of its own, so those of `std` print nothing there. `#[operator]` puts these in their place
/// in the code under it; other code imports them: `use regraft_sdk::stdio::println;`.
///
/// `println!` and `print!` write a line of level info, `eprintln!` and `eprint!` of level warn, and `dbg!` of level debug.
pub mod stdio {
    /// Makes the macros that format their arguments, exported under `stdio`.
    macro_rules! printing {
        ($dollar:tt $name:ident $hidden:ident $level:ident $doc:literal) => {
            #[doc = $doc]
            #[cfg(target_family = "wasm")]
            #[macro_export]
            #[doc(hidden)]
            macro_rules! $hidden {
                ($dollar($dollar arg:tt)*) => {
                    $crate::log::write($crate::log::Level::$level, ::core::format_args!($dollar($dollar arg)*))
                };
            }
            #[doc = $doc]
            #[cfg(not(target_family = "wasm"))]
            #[macro_export]
            #[doc(hidden)]
            macro_rules! $hidden {
                ($dollar($dollar arg:tt)*) => { ::std::$name!($dollar($dollar arg)*) };
            }
            #[doc = $doc]
            pub use $hidden as $name;
        };
    }
    printing!($ print __stdio_print Info "As `std`'s, and a line of level info in the job's log.");
    printing!($ println __stdio_println Info "As `std`'s, and a line of level info in the job's log.");
    printing!($ eprint __stdio_eprint Warn "As `std`'s, and a line of level warn in the job's log.");
    printing!($ eprintln __stdio_eprintln Warn "As `std`'s, and a line of level warn in the job's log.");

    /// As `std`'s, and a line of level debug in the job's log.
    #[macro_export]
    #[doc(hidden)]
    macro_rules! __stdio_dbg {
        ($value:expr $(,)?) => {
            match $value {
                value => {
                    $crate::log::debug!("{} = {:#?}", ::core::stringify!($value), &value);
                    value
                }
            }
        };
        ($($value:expr),+ $(,)?) => { ($($crate::__stdio_dbg!($value)),+,) };
    }
    #[doc(inline)]
    pub use __stdio_dbg as dbg;
}

/// Counters and gauges of this operator.
pub mod metrics {
    /// Adds `delta` to a counter. An import on wasm, so better called once in a while than for every record.
    pub fn counter(name: &str, delta: u64) {
        super::imports::counter_add(name, delta);
    }

    /// Sets a gauge.
    pub fn gauge(name: &str, value: f64) {
        super::imports::gauge_set(name, value);
    }
}

#[cfg(target_family = "wasm")]
pub(crate) mod imports {
    //! The imports themselves.
    use super::log::Level;
    use crate::bindings::regraft::operator::host;

    pub(crate) fn log(level: Level, line: &str) {
        let level = match level {
            Level::Trace => host::LogLevel::Trace,
            Level::Debug => host::LogLevel::Debug,
            Level::Info => host::LogLevel::Info,
            Level::Warn => host::LogLevel::Warn,
            Level::Error => host::LogLevel::Error,
        };
        host::log(level, line);
    }

    pub(crate) fn counter_add(name: &str, delta: u64) {
        host::counter_add(name, delta);
    }

    pub(crate) fn gauge_set(name: &str, value: f64) {
        host::gauge_set(name, value);
    }
}

#[cfg(not(target_family = "wasm"))]
pub use native::{Captured, take_captured};

#[cfg(not(target_family = "wasm"))]
use native as imports;

#[cfg(not(target_family = "wasm"))]
mod native {
    //! Stands in for the imports in a native run.
    use super::log::Level;
    use std::cell::RefCell;
    use std::collections::{BTreeMap, VecDeque};

    /// Number of log lines kept for a thread: the last ones.
    const LINES_MAX: usize = 1_000;

    /// Lines and counts of the operators on this thread.
    #[derive(Clone, Debug, Default, PartialEq)]
    pub struct Captured {
        /// The last 1,000 log lines, oldest first.
        pub log: VecDeque<(Level, String)>,
        /// Counters by name.
        pub counters: BTreeMap<String, u64>,
        /// Gauges by name.
        pub gauges: BTreeMap<String, f64>,
    }

    thread_local! {
        static CAPTURED: RefCell<Captured> = RefCell::default();
    }

    /// Takes what operators have logged and counted on this thread since the last time.
    pub fn take_captured() -> Captured {
        CAPTURED.take()
    }

    pub(super) fn log(level: Level, line: &str) {
        CAPTURED.with_borrow_mut(|captured| {
            if captured.log.len() == LINES_MAX {
                captured.log.pop_front();
            }
            captured.log.push_back((level, line.into()));
        });
    }

    pub(super) fn counter_add(name: &str, delta: u64) {
        CAPTURED.with_borrow_mut(|captured| {
            let counter = captured.counters.entry(name.into()).or_default();
            *counter = counter.wrapping_add(delta);
        });
    }

    pub(super) fn gauge_set(name: &str, value: f64) {
        CAPTURED.with_borrow_mut(|captured| {
            captured.gauges.insert(name.into(), value);
        });
    }
}
