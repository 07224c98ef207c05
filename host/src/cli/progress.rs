//! Progress of an attached run: a line at the bottom of a terminal that is updated, or a plain line now and then.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::log;
use crate::jobs::handle::JobHandle;
use crate::jobs::observe::ObservedJob;
use crate::stdout;

/// Interval of updates on a terminal.
const ON_TERMINAL: Duration = Duration::from_millis(500);
/// Interval at which a spinner turns.
const SPIN: Duration = Duration::from_millis(120);
/// Interval of plain lines.
const PLAIN: Duration = Duration::from_secs(10);

/// A task that shows progress until it is ended.
#[derive(Debug)]
pub struct Progress {
    task: JoinHandle<()>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Starts to show the progress of a job.
    #[must_use]
    pub fn start(job: JobHandle) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        log::stand_above(bar.clone());
        if bar.is_some() && stdout::is_terminal() {
            stdout::write_within(log::within);
        }
        let shown = bar.clone();
        let task = tokio::spawn(async move {
            let (mut last, mut at) = (0, Instant::now());
            loop {
                tokio::time::sleep(if shown.is_some() { ON_TERMINAL } else { PLAIN }).await;
                let now = job.shared.observe();
                let elapsed = at.elapsed().as_secs_f64();
                let line = line(&now, now.records_in.saturating_sub(last) as f64 / elapsed.max(1e-3));
                (last, at) = (now.records_in, Instant::now());
                match &shown {
                    Some(bar) => {
                        bar.set_message(line);
                        bar.tick();
                    }
                    None => log::line(&line),
                }
            }
        });
        Self { task, bar }
    }

    /// Stops, and removes the line.
    pub fn end(self) {
        self.task.abort();
        log::stand_above(None);
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Runs work that takes a while, with a spinner and the time on a terminal's last line meanwhile.
pub(super) fn while_waiting<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(SPIN);
    let done = work();
    bar.finish_and_clear();
    done
}

/// Returns the time of this machine, milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |since| since.as_millis() as i64)
}

fn line(job: &ObservedJob, per_second: f64) -> String {
    let now = now_ms();
    let checkpoint = match &job.last_round {
        Some(last) => format!(
            "checkpoint {}: {} s ago, {} bytes, {} ms",
            last.checkpoint_id,
            (now - last.completed_at).max(0) / 1000,
            last.bytes,
            last.duration_ms
        ),
        None => "no checkpoint yet".to_owned(),
    };
    format!(
        "{} {}: {per_second:.0} records/s, {} in, {} out, {checkpoint}",
        job.name, job.status, job.records_in, job.records_out
    )
}
