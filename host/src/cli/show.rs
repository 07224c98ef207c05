//! Verbs that show jobs: `list`, `info`, `logs`.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::args::{JobArgs, ListArgs, LogsArgs};
use super::failure::Failure;
use super::job::{Asked, client, find, find_on};
use super::output::Output;
use crate::api::types::{JobList, JobSummary, JobView, LogQuery, RoundView};
use crate::graph::job_graph::SettingOrigin;

/// Number of rounds in the text of `info`.
const ROUNDS_SHOWN: usize = 10;
/// Interval at which a followed log is polled.
const FOLLOW_EVERY: Duration = Duration::from_millis(300);

/// `regraft list`.
///
/// # Errors
/// [`Failure`] where a named host does not answer.
pub fn list(args: &ListArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    if let Some(job) = &args.snapshots {
        return snapshots(job, args, data_dir, output);
    }
    let jobs = client(&args.host, data_dir).jobs()?.into_iter().map(|job| job.summary);
    let mut list = JobList {
        jobs: jobs.filter(|job| args.all || !job.status.is_over()).collect(),
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

/// `regraft list --snapshots JOB`.
fn snapshots(job: &str, args: &ListArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let Asked { client, job } = find_on(job, &args.host, data_dir)?;
    let list = client.snapshots(&job)?;
    output.result(&json!(list), || {
        if list.snapshots.is_empty() {
            return format!("Job {} has no snapshots.", job.summary.job_id);
        }
        let line = |kind: &str, owner: &str, trigger: &str, rest: [&str; 4]| {
            let [id, completed, bytes, path] = rest;
            format!("{kind:<10} {owner:<5} {trigger:<12} {id:>6}  {completed:<19} {bytes:>12}  {path}")
        };
        let mut lines = vec![line("KIND", "OWNER", "TRIGGER", ["ID", "COMPLETED", "BYTES", "PATH"])];
        for row in &list.snapshots {
            let (id, bytes) = (row.checkpoint_id.to_string(), row.bytes.to_string());
            let rest = [id.as_str(), &date_time(row.completed_at), &bytes, &row.path];
            lines.push(line(row.kind.word(), &row.owner, &row.trigger, rest));
        }
        lines.join("\n")
    });
    Ok(())
}

/// `regraft info`.
///
/// # Errors
/// [`Failure`] where the job is not found or its host does not answer.
pub fn info(args: &JobArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let asked = find(args, data_dir)?;
    let view = asked.client.info(&asked.job)?;
    output.result(&json!(view), || info_text(&view));
    Ok(())
}

fn info_text(view: &JobView) -> String {
    let mut lines = vec![
        format!("{} ({}) {}", view.name, view.job_id, view.status),
        format!("started      {}", date_time(view.started_at)),
        format!("restored     {}", view.restored_from.as_deref().unwrap_or("no")),
        format!("version      {}", view.version),
        format!("parallelism  {} of at most {}", view.parallelism, view.max_parallelism),
        format!(
            "records      {} in, {} out{}",
            view.records_in,
            view.records_out,
            dead_letters(view.dead_letters)
        ),
    ];
    lines.push(match &view.last_checkpoint {
        Some(last) => format!(
            "checkpoints  {}; the last: {} at {}, {} bytes in {} ms (align {:.1} ms, sync {:.1} ms)",
            view.checkpoints,
            last.checkpoint_id,
            date_time(last.completed_at),
            last.bytes,
            last.duration_ms,
            last.align_ms,
            last.sync_ms
        ),
        None => "checkpoints  none yet".to_owned(),
    });
    lines.push(match (view.restarts, &view.last_failure) {
        (0, _) => format!("attempt      {}", view.attempt),
        (restarts, None) => format!("attempt      {}, {restarts} restart(s) in this host", view.attempt),
        (restarts, Some(after)) => format!(
            "attempt      {}, {restarts} restart(s) in this host, the last after: {}",
            view.attempt,
            after.lines().next().unwrap_or_default()
        ),
    });
    if let Some(failure) = &view.failure {
        lines.push(format!("failure      {failure}"));
    }
    lines.push(format!(
        "{:<20} {:<9} {:>3} {:<7} {:>12} {:>12} {:>10}  STATES",
        "UID", "KIND", "P", "MODULE", "IN", "OUT", "KEYS"
    ));
    for node in &view.operators {
        lines.push(format!(
            "{:<20} {:<9} {:>3} {:<7} {:>12} {:>12} {:>10}  {}",
            node.uid.as_str(),
            node.kind.word(),
            node.parallelism,
            node.module.as_deref().unwrap_or("-"),
            node.records_in,
            node.records_out,
            node.keys,
            node.states.join(", ")
        ));
    }
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
    lines.push(format!(
        "{:>6}  {:<12} {:<9} {:<19} {:>8} {:>12} {:>12}  FAILURE",
        "ROUND", "TYPE", "STATUS", "TRIGGERED", "MS", "BYTES", "FULL"
    ));
    for round in rounds.iter().rev().take(ROUNDS_SHOWN).rev() {
        let line = format!(
            "{:>6}  {:<12} {:<9} {:<19} {:>8} {:>12} {:>12}  {}",
            round.checkpoint_id,
            round.kind.log_word(),
            round.status.word(),
            date_time(round.triggered_at),
            round.duration_ms,
            round.bytes,
            round.full_bytes,
            round.failure.as_deref().unwrap_or_default()
        );
        lines.push(line.trim_end().to_owned());
    }
    let Some(newest) = rounds.iter().rev().find(|round| !round.subtasks.is_empty()) else {
        return;
    };
    lines.push(format!(
        "round {:<16} {:>10} {:>10} {:>10} {:>12} {:>12}",
        newest.checkpoint_id, "ALIGN MS", "SYNC MS", "ASYNC MS", "BYTES", "STATE"
    ));
    for part in &newest.subtasks {
        lines.push(format!(
            "{:<22} {:>10.1} {:>10.1} {:>10.1} {:>12} {:>12}",
            format!("{}#{}", part.uid, part.subtask),
            part.align_ms,
            part.sync_ms,
            part.async_ms,
            part.bytes,
            part.state_bytes
        ));
    }
}

/// `regraft logs`.
///
/// # Errors
/// [`Failure`] where the job's host keeps no log of it.
pub fn logs(args: &LogsArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    if args.follow && output.json {
        return Err(Failure::usage(
            "--follow goes on and on, and --json prints exactly one object; leave one of them out",
        ));
    }
    let Asked { client, job } = find(&args.job, data_dir)?;
    let lines = Some(args.lines);
    let mut chunk = client.logs(&job, &LogQuery { lines, from: None })?;
    if output.json {
        let lines: Vec<&str> = chunk.text.lines().collect();
        output.result(&json!({ "job_id": job.summary.job_id, "lines": lines }), String::new);
        return Ok(());
    }
    let show = |text: &str| {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
    };
    loop {
        // The status is read before the log, so that the last lines are there once it says that the job is over.
        let over = !args.follow || client.info(&job)?.status.is_over();
        while !chunk.text.is_empty() {
            if show(&chunk.text).is_err() {
                // The reader has closed the pipe.
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
