//! The log of each job, in `jobs/<JobID>/log/<n>.log` of the data directory, where `n` is the number of bytes logged before.
//! A position in a log therefore stays valid while old files are removed, and after a restart of the host.
//!
//! A job's lines are those of the host's own log that were written in a span of the job ([`job_span`]).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use regraft_model::id::JobId;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::data_dir::private_file;
use crate::dataflow::control::locked;
use crate::escape;
use crate::log_queue::{LogQueue, Logged};

/// Size at which a file gets no more lines.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Number of files that are kept of one job.
const FILES_MAX: usize = 8;
/// Length at which a line is cut.
const LINE_BYTES_MAX: usize = 64 << 10;
/// Largest part of a log that is read at once.
const CHUNK_BYTES_MAX: u64 = 1 << 20;

/// Time that a reader waits for lines that are still to be written.
const PATIENCE: Duration = Duration::from_millis(500);

/// Returns the span of all work for a job. It is enabled at every log level, and has no parent.
#[must_use]
pub fn job_span(job: JobId) -> Span {
    tracing::error_span!(parent: None, "job", id = %job)
}

/// Logs of a host's jobs.
#[derive(Debug)]
pub struct JobLogs {
    root: PathBuf,
    open: Mutex<HashMap<JobId, LogFile>>,
    /// Lines that wait to be written, once a layer logs here.
    queue: OnceLock<LogQueue<JobId>>,
}

/// Whole lines of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The lines.
    pub text: String,
    /// Position behind them.
    pub next: u64,
}

/// Part of a log to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogPart {
    /// So many of the last lines.
    Last(usize),
    /// Lines from a position on, which an earlier [`LogChunk`] gave.
    From(u64),
}

#[derive(Debug)]
struct LogFile {
    file: File,
    start: u64,
    bytes: u64,
}

impl JobLogs {
    /// Returns the logs below `jobs` in a data directory.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self {
            root: data_dir.join("jobs"),
            open: Mutex::default(),
            queue: OnceLock::new(),
        }
    }

    /// Has a line written by a thread, so that a disk that hangs does not hold up the job.
    fn log(self: &Arc<Self>, job: JobId, line: String) {
        let own = Arc::downgrade(self);
        let queue = self.queue.get_or_init(|| {
            LogQueue::start("job-log", move |job, logged| {
                if let Some(logs) = own.upgrade() {
                    logs.write_queued(job, &logged);
                }
            })
        });
        queue.push(job, line);
    }

    fn write_queued(&self, job: JobId, logged: &Logged) {
        // Logging must not fail its caller, and the host's own log has the lines too.
        let _ = match logged {
            Logged::Text(line) => self.append(job, line),
            Logged::Dropped(lines) => {
                self.append(job, &format!("{lines} log lines were dropped: the disk took no more"))
            }
            Logged::End => {
                locked(&self.open).remove(&job);
                Ok(())
            }
        };
    }

    /// Waits a moment until the lines that were logged so far are written. Blocks the thread.
    pub fn flush(&self) {
        if let Some(queue) = self.queue.get() {
            queue.flush(PATIENCE);
        }
    }

    fn dir(&self, job: JobId) -> PathBuf {
        self.root.join(job.to_string()).join("log")
    }

    /// Appends a line, given without its line feed.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn append(&self, job: JobId, line: &str) -> io::Result<()> {
        let mut open = locked(&self.open);
        let mut current = match open.remove(&job) {
            Some(current) => current,
            None => LogFile::newest(&self.dir(job))?,
        };
        if current.bytes >= FILE_BYTES_MAX {
            current = LogFile::open(&self.dir(job), current.start + current.bytes)?;
            for start in starts(&self.dir(job))?.iter().rev().skip(FILES_MAX) {
                fs::remove_file(path(&self.dir(job), *start))?;
            }
        }
        let mut text = cut(line).to_owned();
        text.push('\n');
        current.file.write_all(text.as_bytes())?;
        current.bytes += text.len() as u64;
        open.insert(job, current);
        Ok(())
    }

    /// Closes the file of a job that logs no more lines, once those that it has logged are written. Does not wait for that.
    pub fn close(&self, job: JobId) {
        match self.queue.get() {
            Some(queue) => queue.end(job),
            None => _ = locked(&self.open).remove(&job),
        }
    }

    /// Returns the last lines of a log, none for a job without a log.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn last(&self, job: JobId, lines: usize) -> io::Result<LogChunk> {
        self.flush();
        let dir = self.dir(job);
        let mut found = String::new();
        let mut next = None;
        for start in starts(&dir)?.into_iter().rev() {
            let bytes = fs::read(path(&dir, start))?;
            next.get_or_insert(start + bytes.len() as u64);
            found.insert_str(0, &String::from_utf8_lossy(&bytes));
            if found.lines().count() >= lines {
                break;
            }
        }
        let skip = found.lines().count().saturating_sub(lines);
        let from = found.match_indices('\n').nth(skip.wrapping_sub(1));
        let from = if skip == 0 {
            0
        } else {
            from.map_or(found.len(), |(at, _)| at + 1)
        };
        Ok(LogChunk {
            text: found.split_off(from),
            next: next.unwrap_or(0),
        })
    }

    /// Returns whole lines from a position on, at most 1 MiB of them. Where that position has been removed, they begin with
    /// the oldest line that is kept.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn from(&self, job: JobId, position: u64) -> io::Result<LogChunk> {
        self.flush();
        let dir = self.dir(job);
        let starts = starts(&dir)?;
        let at = starts.partition_point(|start| *start <= position).saturating_sub(1);
        let Some(mut start) = starts.get(at).copied() else {
            return Ok(LogChunk {
                text: String::new(),
                next: position,
            });
        };
        let mut file = File::open(path(&dir, start))?;
        // A position at the end of a file is the beginning of the next one.
        if let Some(following) = starts.get(at + 1)
            && position >= *following
        {
            start = *following;
            file = File::open(path(&dir, start))?;
        }
        let from = position.max(start);
        file.seek(SeekFrom::Start(from - start))?;
        let mut bytes = vec![];
        file.take(CHUNK_BYTES_MAX).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        bytes.truncate(whole);
        Ok(LogChunk {
            next: from + bytes.len() as u64,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        })
    }
}

impl LogFile {
    /// Opens the newest file of a directory, or creates its first one.
    fn newest(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let start = starts(dir)?.last().copied().unwrap_or(0);
        Self::open(dir, start)
    }

    fn open(dir: &Path, start: u64) -> io::Result<Self> {
        // To open a FIFO would wait for ever.
        if fs::symlink_metadata(path(dir, start)).is_ok_and(|found| !found.is_file()) {
            return Err(io::Error::other("not a regular file"));
        }
        let file = private_file(OpenOptions::new().create(true).append(true), &path(dir, start))?;
        let bytes = file.metadata()?.len();
        Ok(Self { file, start, bytes })
    }
}

/// Returns the start positions of the files of a directory, in order.
fn starts(dir: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let start = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_suffix(".log")?.parse().ok()
    };
    let mut starts: Vec<u64> = entries.filter_map(start).collect();
    starts.sort_unstable();
    Ok(starts)
}

fn path(dir: &Path, start: u64) -> PathBuf {
    dir.join(format!("{start:020}.log"))
}

fn cut(line: &str) -> &str {
    let mut end = line.len().min(LINE_BYTES_MAX);
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    &line[..end]
}

/// Tracing layer that writes the events in a job's span to the job's log.
#[derive(Debug, Clone)]
pub struct JobLogLayer(Arc<JobLogs>);

impl JobLogLayer {
    /// Returns a layer that writes to these logs.
    #[must_use]
    pub const fn new(logs: Arc<JobLogs>) -> Self {
        Self(logs)
    }
}

/// Job of a span.
struct OfJob(JobId);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JobLogLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut words = Words::default();
        attributes.record(&mut words);
        if attributes.metadata().name() == "job"
            && let (Some(span), Ok(job)) = (context.span(id), words.id.parse())
        {
            span.extensions_mut().insert(OfJob(job));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let scope = context.event_scope(event);
        let mut jobs = scope.into_iter().flatten();
        let Some(job) = jobs.find_map(|span| span.extensions().get::<OfJob>().map(|of| of.0)) else {
            return;
        };
        let mut words = Words::default();
        event.record(&mut words);
        let mut line = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut line));
        let _ = write!(line, " {:>5} {}{}", event.metadata().level(), words.message, words.rest);
        self.0.log(job, escape::event(&escape::lines(&line)).into_owned());
    }
}

/// Fields of a span or event, as text.
#[derive(Default)]
struct Words {
    id: String,
    message: String,
    rest: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = match field.name() {
            "id" => write!(self.id, "{value:?}"),
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.rest, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId::from_bits(7);

    #[test]
    fn positions_hold_while_files_come_and_go() {
        let dir = tempfile::tempdir().expect("temp dir");
        let logs = JobLogs::new(dir.path());
        assert_eq!(logs.last(JOB, 5).expect("none").text, "");
        assert_eq!(logs.from(JOB, 0).expect("none").next, 0);
        let line = |n: usize| format!("{n:07} {}", "x".repeat(1000));
        let lines = 10 * (FILE_BYTES_MAX as usize / 1009);
        for n in 0..lines {
            logs.append(JOB, &line(n)).expect("written");
            if n == lines / 2 {
                // As another process would go on.
                logs.close(JOB);
            }
        }
        assert_eq!(starts(&logs.dir(JOB)).expect("files").len(), FILES_MAX);
        let last = logs.last(JOB, 3).expect("read");
        let expected = |from: usize| (from..lines).map(|n| line(n) + "\n").collect::<String>();
        assert_eq!(last.text, expected(lines - 3));
        assert_eq!(last.next, lines as u64 * 1009);
        // From the beginning, which has gone, to the end.
        let (mut at, mut text) = (0, String::new());
        loop {
            let chunk = logs.from(JOB, at).expect("read");
            if chunk.text.is_empty() {
                break;
            }
            (at, text) = (chunk.next, text + &chunk.text);
        }
        assert_eq!(at, last.next);
        let first: usize = text[..7].parse().expect("a number");
        assert!(first > 0 && text == expected(first), "all that is kept, from {first}");
        assert_eq!(logs.last(JOB, usize::MAX).expect("read").text, text);
        assert_eq!(logs.from(JOB, at - 1009).expect("read").text, expected(lines - 1));
        logs.append(JOB, "more").expect("written");
        assert_eq!(logs.from(JOB, at).expect("read").text, "more\n");
    }

    #[test]
    fn only_lines_of_the_job_are_in_its_log() {
        use tracing_subscriber::layer::SubscriberExt as _;
        let dir = tempfile::tempdir().expect("temp dir");
        let logs = Arc::new(JobLogs::new(dir.path()));
        let subscriber = tracing_subscriber::registry().with(JobLogLayer::new(logs.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("of no job");
            job_span(JOB).in_scope(|| {
                tracing::warn!(uid = "count", "of {}", 7);
                tracing::info_span!("inner").in_scope(|| tracing::info!("deeper"));
            });
            job_span(JobId::from_bits(8)).in_scope(|| tracing::info!("of 8"));
        });
        let text = logs.last(JOB, 10).expect("read").text;
        let said: Vec<&str> = text
            .lines()
            .map(|line| line.split_once("Z ").expect("a time").1)
            .collect();
        assert_eq!(said, [" WARN of 7 uid=\"count\"", " INFO deeper"]);
    }

    #[test]
    fn a_long_line_is_cut_between_letters() {
        let long = "ä".repeat(LINE_BYTES_MAX);
        assert_eq!(cut(&long).len(), LINE_BYTES_MAX);
        assert_eq!(cut(&long[..10]), "äääää");
        assert_eq!(cut(&format!("x{long}")).len(), LINE_BYTES_MAX - 1);
    }
}
