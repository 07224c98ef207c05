//! Verbs that show jobs: `list`, `info`, `logs`.

use std::path::Path;
use std::time::{Duration, Instant};

use regraft_model::time::MAX_WATERMARK;
use serde_json::json;

use super::args::{JobArgs, ListArgs, LogsArgs};
use super::failure::Failure;
use super::job::{Asked, client};
use super::log;
use super::offline::{Found, block_on, find_anywhere, observed, on_disk};
use super::output::{self, Output};
use super::table::{Column, labelled, table};
use crate::api::types::{
    JobList, JobSummary, JobView, LogQuery, NodeView, RoundView, SnapshotList, SnapshotRow, SubtaskRoundView,
};
use crate::escape;
use crate::graph::job_graph::SettingOrigin;
use crate::jobs::status::JobStatus;
use crate::serve::error::HostError;
use crate::serve::logs::JobLogs;
use crate::serve::offline::OfflineJob;

/// Number of rounds in the text of `info`.
const ROUNDS_SHOWN: usize = 10;
/// Time over which the rate of `info` is measured.
const RATE_OVER: Duration = Duration::from_millis(300);
/// Interval at which a followed log is polled.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

/// Columns of `list --snapshots`.
const SNAPSHOTS: [Column<'static>; 7] = [
    Column::text("KIND").fixed(10),
    Column::text("OWNER").fixed(5),
    Column::text("TRIGGER").fixed(12),
    Column::numbers("ID").fixed(6),
    Column::text("COMPLETED").fixed(19).apart(),
    Column::numbers("BYTES").fixed(12),
    Column::text("PATH").apart(),
];
/// Columns of the nodes in `info`.
const NODES: [Column<'static>; 8] = [
    Column::text("UID").fixed(20),
    Column::text("KIND").fixed(9),
    Column::numbers("P").fixed(3),
    Column::text("MODULE").fixed(7),
    Column::numbers("IN").fixed(12),
    Column::numbers("OUT").fixed(12),
    Column::numbers("KEYS").fixed(10),
    Column::text("STATES").apart(),
];
/// Columns of the rounds in `info`.
const ROUNDS: [Column<'static>; 8] = [
    Column::numbers("ROUND").fixed(6),
    Column::text("TYPE").fixed(12).apart(),
    Column::text("STATUS").fixed(9),
    Column::text("TRIGGERED").fixed(19),
    Column::numbers("MS").fixed(8),
    Column::numbers("BYTES").fixed(12),
    Column::numbers("FULL").fixed(12),
    Column::text("FAILURE").apart(),
];

/// `regraft list`.
///
/// # Errors
/// [`Failure`] where a named host does not answer.
pub fn list(args: &ListArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    if let Some(job) = &args.snapshots {
        return snapshots(job, args, data_dir, output);
    }
    let client = client(&args.host, data_dir);
    let live = client.jobs()?;
    let mut dead = vec![];
    if args.host.named().is_none() {
        dead = observed(&on_disk(&client, &live, data_dir)?, data_dir)?;
        let waiting = dead.iter().filter(|job| !job.status.is_over()).count();
        if waiting > 0 {
            log::line(&format!(
                "no host is up: {waiting} job(s) wait on disk until `regraft serve` brings them back"
            ));
        }
    }
    let jobs = live.into_iter().map(|job| job.summary);
    let jobs = jobs.chain(dead.into_iter().map(JobSummary::from));
    let mut list = JobList {
        jobs: jobs
            .filter(|job| args.all || !(job.status.is_over() || args.running && waits(job.status)))
            .collect(),
    };
    // They come grouped by host.
    list.jobs.sort_by_key(|job| (job.started_at, job.job_id));
    output.result(&json!(list), || {
        if list.jobs.is_empty() {
            return if args.all { "No jobs." } else { "No running jobs." }.to_owned();
        }
        let line = |j: &JobSummary| format!("{} : {} : {} ({})", date_time(j.started_at), j.job_id, j.name, j.status);
        list.jobs.iter().map(line).collect::<Vec<_>>().join("\n")
    });
    Ok(())
}

/// Returns true for a job that waits to be started or brought back.
const fn waits(status: JobStatus) -> bool {
    matches!(status, JobStatus::Created | JobStatus::Suspended)
}

/// `regraft list --snapshots JOB`.
fn snapshots(job: &str, args: &ListArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let (job_id, list) = match find_anywhere(job, &args.host, data_dir)? {
        Found::AtHost(asked) => {
            let Asked { client, job } = *asked;
            (job.summary.job_id, client.snapshots(&job)?)
        }
        Found::OnDisk(job) => {
            let snapshots = block_on(job.snapshots(data_dir))?.into_iter().map(SnapshotRow::from);
            let snapshots = snapshots.collect();
            (job.job_id(), SnapshotList { snapshots })
        }
    };
    output.result(&json!(list), || {
        if list.snapshots.is_empty() {
            return format!("Job {job_id} has no snapshots.");
        }
        let row = |row: &SnapshotRow| {
            [
                row.kind.word().to_owned(),
                row.owner.clone(),
                row.trigger.clone(),
                row.checkpoint_id.to_string(),
                date_time(row.completed_at),
                row.bytes.to_string(),
                row.path.clone(),
            ]
        };
        let rows: Vec<_> = list.snapshots.iter().map(row).collect();
        table(&SNAPSHOTS, &rows).join("\n")
    });
    Ok(())
}

/// `regraft info`.
///
/// # Errors
/// [`Failure`] where the job is not found or its host does not answer.
pub fn info(args: &JobArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let mut rate = None;
    let view = match find_anywhere(&args.job, &args.host, data_dir)? {
        Found::AtHost(asked) => {
            let Asked { client, job } = *asked;
            let mut view = client.info(&job)?;
            if !output.json && view.status == JobStatus::Running {
                let (before, since) = (view.records_in, Instant::now());
                std::thread::sleep(RATE_OVER);
                view = client.info(&job)?;
                rate = Some(view.records_in.saturating_sub(before) as f64 / since.elapsed().as_secs_f64());
            }
            view
        }
        Found::OnDisk(job) => block_on(job.observe(data_dir))?.into(),
    };
    output.result(&json!(view), || info_text(&view, rate));
    Ok(())
}

/// Renders a job. `rate` is the number of records that it reads in a second, as far as that is known.
fn info_text(view: &JobView, rate: Option<f64>) -> String {
    let mut lines = vec![format!("{} ({}) {}", view.name, view.job_id, view.status)];
    let facts = facts(view, rate);
    lines.extend(facts.iter().map(|(label, value)| labelled(13, label, value)));
    let node = |node: &NodeView| {
        [
            node.uid.to_string(),
            node.kind.word().to_owned(),
            node.parallelism.to_string(),
            node.module.clone().unwrap_or_else(|| "-".to_owned()),
            node.records_in.to_string(),
            node.records_out.to_string(),
            node.keys.to_string(),
            node.states.join(", "),
        ]
    };
    let nodes: Vec<_> = view.operators.iter().map(node).collect();
    lines.extend(table(&NODES, &nodes));
    lines.extend(view.operators.iter().flat_map(figures));
    rounds_text(&view.recent_checkpoints, &mut lines);
    for (key, setting) in view
        .settings
        .iter()
        .filter(|(_, setting)| setting.origin != SettingOrigin::Default)
    {
        lines.push(format!("{key} = {}  ({})", setting.value, setting.origin.word()));
    }
    lines.join("\n")
}

/// Renders the watermark of an operator and what its guest has counted, a line each.
fn figures(node: &NodeView) -> Vec<String> {
    let late = match node.late {
        0 => String::new(),
        late => format!("; {late} records came late"),
    };
    let watermark = node.watermark.map(watermark_text);
    let watermark = watermark.map(|watermark| format!("watermark of {}: {watermark}{late}", node.uid));
    let counters = node
        .counters
        .iter()
        .map(|(name, count)| format!("{} {count}", escape::one_line(name)));
    let values = |values: &[Option<f64>]| {
        let values = values
            .iter()
            .map(|value| value.map_or("-".to_owned(), |value| value.to_string()));
        values.collect::<Vec<_>>().join(" ")
    };
    let gauges = node
        .gauges
        .iter()
        .map(|(name, of)| format!("{} {}", escape::one_line(name), values(of)));
    let listed = |what: &str, all: Vec<String>| {
        let text = format!("{what} of {}: {}", node.uid, all.join(", "));
        (!all.is_empty()).then_some(text)
    };
    let counters = listed("counters", counters.collect());
    let gauges = listed("gauges", gauges.collect());
    [watermark, counters, gauges].into_iter().flatten().collect()
}

/// Renders a watermark, which is a date in most jobs.
fn watermark_text(watermark: i64) -> String {
    if watermark == MAX_WATERMARK {
        "end of input".to_owned()
    } else {
        format!("{} ({watermark} ms)", date_time(watermark))
    }
}

/// Returns the facts about a job as a whole, each with its label.
fn facts(view: &JobView, rate: Option<f64>) -> Vec<(&'static str, String)> {
    let records = format!(
        "{} in, {} out{}{}",
        view.records_in,
        view.records_out,
        dead_letters(view.dead_letters),
        rate.map(|rate| format!("; {rate:.0} in per second now"))
            .unwrap_or_default()
    );
    let checkpoints = match &view.last_checkpoint {
        Some(last) => format!(
            "{}; the last: {} at {}, {} bytes in {} ms (align {:.1} ms, sync {:.1} ms)",
            view.checkpoints,
            last.checkpoint_id,
            date_time(last.completed_at),
            last.bytes,
            last.duration_ms,
            last.align_ms,
            last.sync_ms
        ),
        None => "none yet".to_owned(),
    };
    let attempt = match (view.restarts, &view.last_failure) {
        (0, _) => view.attempt.to_string(),
        (restarts, None) => format!("{}, {restarts} restart(s) in this host", view.attempt),
        (restarts, Some(after)) => format!(
            "{}, {restarts} restart(s) in this host, the last after: {}",
            view.attempt,
            after.lines().next().unwrap_or_default()
        ),
    };
    let mut facts = vec![
        ("started", date_time(view.started_at)),
        (
            "restored",
            view.restored_from.clone().unwrap_or_else(|| "no".to_owned()),
        ),
        ("version", view.version.to_string()),
        (
            "parallelism",
            format!("{} of at most {}", view.parallelism, view.max_parallelism),
        ),
        ("records", records),
        ("checkpoints", checkpoints),
        ("attempt", attempt),
    ];
    facts.extend(view.failure.clone().map(|failure| ("failure", failure)));
    if let Some(go_on) = &view.go_on {
        facts.push(("go on from", go_on.path.clone()));
        facts.push(("with", go_on.command.clone()));
    }
    facts
}

/// Returns the text for a number of dead letters behind other counts; empty where there are none.
pub(super) fn dead_letters(count: u64) -> String {
    match count {
        0 => String::new(),
        count => format!(", {count} dead letter(s)"),
    }
}

/// Renders the last rounds, and the part of each subtask in the newest round that all of them acknowledged.
fn rounds_text(rounds: &[RoundView], lines: &mut Vec<String>) {
    if rounds.is_empty() {
        return;
    }
    let row = |round: &RoundView| {
        [
            round.checkpoint_id.to_string(),
            round.kind.log_word().to_owned(),
            round.status.word().to_owned(),
            date_time(round.triggered_at),
            round.duration_ms.to_string(),
            round.bytes.to_string(),
            round.full_bytes.to_string(),
            round.failure.clone().unwrap_or_default(),
        ]
    };
    let shown = rounds.iter().skip(rounds.len().saturating_sub(ROUNDS_SHOWN));
    let shown = table(&ROUNDS, &shown.map(row).collect::<Vec<_>>());
    lines.extend(shown.iter().map(|line| line.trim_end().to_owned()));
    let Some(newest) = rounds.iter().rev().find(|round| !round.subtasks.is_empty()) else {
        return;
    };
    let title = format!("round {}", newest.checkpoint_id);
    let columns = [
        Column::text(&title).fixed(22),
        Column::numbers("ALIGN MS").fixed(10),
        Column::numbers("SYNC MS").fixed(10),
        Column::numbers("ASYNC MS").fixed(10),
        Column::numbers("BYTES").fixed(12),
        Column::numbers("STATE").fixed(12),
    ];
    let row = |part: &SubtaskRoundView| {
        [
            format!("{}#{}", part.uid, part.subtask),
            format!("{:.1}", part.align_ms),
            format!("{:.1}", part.sync_ms),
            format!("{:.1}", part.async_ms),
            part.bytes.to_string(),
            part.state_bytes.to_string(),
        ]
    };
    lines.extend(table(&columns, &newest.subtasks.iter().map(row).collect::<Vec<_>>()));
}

/// `regraft logs`.
///
/// # Errors
/// [`Failure`] where the job's host keeps no log of it.
pub fn logs(args: &LogsArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    if args.follow && output.json {
        return Err(Failure::usage(
            "--follow prints until the job ends, and --json prints exactly one object; leave one of them out",
        ));
    }
    let Asked { client, job } = match find_anywhere(&args.job.job, &args.job.host, data_dir)? {
        Found::AtHost(asked) => *asked,
        Found::OnDisk(job) => return logs_on_disk(&job, args, data_dir, output),
    };
    let lines = Some(args.lines);
    let mut chunk = client.logs(&job, &LogQuery { lines, from: None })?;
    if output.json {
        let lines: Vec<&str> = chunk.text.lines().collect();
        output.result(&json!({ "job_id": job.summary.job_id, "lines": lines }), String::new);
        return Ok(());
    }
    loop {
        // The status is read before the log, so that the last lines are there once it says that the job is over.
        let over = !args.follow || client.info(&job)?.status.is_over();
        while !chunk.text.is_empty() {
            if !output::write(&escape::lines(&chunk.text)) {
                // The reader has closed the pipe, or the disk is full.
                return Ok(());
            }
            let from = Some(chunk.next);
            chunk = client.logs(&job, &LogQuery { lines: None, from })?;
            if !args.follow {
                return Ok(());
            }
        }
        if over {
            return Ok(());
        }
        std::thread::sleep(FOLLOW_EVERY);
        let from = Some(chunk.next);
        chunk = client.logs(&job, &LogQuery { lines: None, from })?;
    }
}

/// Prints the last lines of a job that no process runs.
fn logs_on_disk(job: &OfflineJob, args: &LogsArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let id = job.job_id();
    if job.attached {
        return Err(HostError::NoLog(id).into());
    }
    let read = JobLogs::new(data_dir).last(id, args.lines);
    let chunk = read.map_err(|source| HostError::Log { job: id, source })?;
    let lines: Vec<&str> = chunk.text.lines().collect();
    if output.json {
        output.result(&json!({ "job_id": id, "lines": lines }), String::new);
    } else {
        output::write(&escape::lines(&chunk.text));
    }
    Ok(())
}

/// Renders milliseconds since the Unix epoch as `2026-11-21 05:20:00` (UTC), by Howard Hinnant's `civil_from_days`.
pub(super) fn date_time(ms: i64) -> String {
    let seconds = ms.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(super::date_time(0), "1970-01-01 00:00:00");
        assert_eq!(super::date_time(1_709_251_199_000), "2024-02-29 23:59:59");
        assert_eq!(super::date_time(1_795_238_400_000), "2026-11-21 05:20:00");
        assert_eq!(super::date_time(-1), "1969-12-31 23:59:59");
    }
}
