//! Progress of a build, always on stderr: a spinner on a terminal, plain lines otherwise.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Receiver of a build's progress. Called from several threads.
pub trait BuildReport: Sync {
    /// Prints a line that stays.
    fn line(&self, text: &str);
    /// Shows the current step in place of the one before.
    fn doing(&self, text: &str);
}

/// Prints progress to stderr. Steps are shown on terminals only, until it is dropped.
#[derive(Debug, Default)]
pub struct StderrReport {
    spinner: Mutex<Option<ProgressBar>>,
}

impl StderrReport {
    /// Returns a report that has printed nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with_spinner(&self, act: impl FnOnce(&mut Option<ProgressBar>)) {
        let mut spinner = self.spinner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        act(&mut spinner);
    }
}

impl BuildReport for StderrReport {
    fn line(&self, text: &str) {
        self.with_spinner(|spinner| match spinner {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        });
    }

    fn doing(&self, text: &str) {
        if !std::io::stderr().is_terminal() {
            return;
        }
        self.with_spinner(|spinner| {
            let bar = spinner.get_or_insert_with(|| {
                let bar = ProgressBar::new_spinner();
                if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg} {elapsed}") {
                    bar.set_style(style);
                }
                bar.enable_steady_tick(Duration::from_millis(100));
                bar
            });
            bar.set_message(text.to_owned());
        });
    }
}

impl Drop for StderrReport {
    fn drop(&mut self) {
        self.with_spinner(|spinner| {
            if let Some(bar) = spinner.take() {
                bar.finish_and_clear();
            }
        });
    }
}
