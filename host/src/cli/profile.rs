//! `profile`: a flame graph of an operator's guest.

use std::path::{Path, PathBuf};

use regraft_model::error_kind::ErrorKind;
use serde_json::json;

use super::args::{ProfileArgs, ProfileFormat};
use super::failure::Failure;
use super::flame_graph::FlameGraph;
use super::job::{Asked, find};
use super::log;
use super::output::{self, Output};
use super::progress::while_waiting;
use crate::api::types::{ProfileReport, ProfileRequest};
use crate::jobs::status::JobStatus;

/// Number of functions that are named on stdout.
const HOTTEST: usize = 3;

/// `regraft profile`.
///
/// # Errors
/// [`Failure`]; the job goes on as it was.
pub fn profile(args: &ProfileArgs, data_dir: &Path, output: Output) -> Result<(), Failure> {
    let target = Target::of(args, output)?;
    let Asked { client, job } = find(&args.job, data_dir)?;
    let request = ProfileRequest {
        uid: args.uid.clone(),
        subtask: args.subtask,
        duration_ms: u64::try_from(args.duration.as_millis()).unwrap_or(u64::MAX),
    };
    let report = while_waiting("sampling", || client.profile(&job, &request))?;
    let graph = FlameGraph::new(&report).map_err(|wrong| {
        Failure::new(
            ErrorKind::Bug,
            format!("the host's profile is not understood: {wrong}; are both the same version?"),
        )
    })?;
    for note in notes(&report) {
        log::line(&format!("note: {note}"));
    }
    let denominators = denominators(&report);
    let text = match target.format {
        ProfileFormat::Svg => graph.svg(&denominators),
        ProfileFormat::Folded => graph.folded(),
    };
    let Some(path) = &target.path else {
        output::write(&text);
        return Ok(());
    };
    std::fs::write(path, text).map_err(|error| unwritable(path, &error.to_string()))?;
    let hottest: Vec<String> = graph
        .hottest(HOTTEST)
        .iter()
        .map(|hot| format!("  {:5.1} %  {}", 100.0 * hot.share, hot.name))
        .collect();
    output.result(&summary(&report, path), || {
        let subtasks = match report.subtask {
            Some(subtask) => format!(", subtask {subtask}"),
            None => String::new(),
        };
        format!(
            "Profiled operator \"{}\"{subtasks} of job {} ({}).\n{}\nMost samples:\n{}\n{}",
            report.uid,
            report.name,
            report.job_id,
            denominators.join("\n"),
            hottest.join("\n"),
            path.display()
        )
    });
    Ok(())
}

/// Place and format of the result.
struct Target {
    /// File; `None` for stdout.
    path: Option<PathBuf>,
    format: ProfileFormat,
}

impl Target {
    /// Chooses the format by the flag, else by the ending of the file, and the file by the uid, unless it is named.
    fn of(args: &ProfileArgs, output: Output) -> Result<Self, Failure> {
        let named = args.output.as_deref();
        let ending = named.and_then(Path::extension).and_then(|ending| ending.to_str());
        let format = args.format.unwrap_or(match ending {
            Some("folded" | "txt") => ProfileFormat::Folded,
            _ => ProfileFormat::Svg,
        });
        if named == Some(Path::new("-")) {
            if output.json {
                return Err(Failure::usage(
                    "with --json, stdout has one JSON object, and the profile cannot go there too; name a file with -o FILE",
                ));
            }
            return Ok(Self { path: None, format });
        }
        let path = named.map_or_else(|| format!("{}.{}", args.uid, format.ending()).into(), Path::to_owned);
        // Not known after ten seconds only.
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        if dir.is_some_and(|dir| !dir.is_dir()) {
            return Err(unwritable(&path, "its directory does not exist"));
        }
        if path.is_dir() {
            return Err(unwritable(&path, "it is a directory"));
        }
        let path = Some(path);
        Ok(Self { path, format })
    }
}

fn unwritable(path: &Path, why: &str) -> Failure {
    let path = path.display().to_string();
    Failure {
        message: format!("the profile cannot be written to {path}: {why}; name another file with -o FILE"),
        path: Some(path),
        ..Failure::new(ErrorKind::Failed, "")
    }
}

/// Says what the samples are a part of, in two lines.
fn denominators(report: &ProfileReport) -> Vec<String> {
    let seconds = report.duration_ms as f64 / 1e3;
    let all_ms = report.duration_ms as f64 * f64::from(report.subtasks);
    let (subtasks, s) = (report.subtasks, if report.subtasks == 1 { "" } else { "s" });
    let cut = match report.cut {
        0 => String::new(),
        cut => format!(" ({cut} of them not whole: there are too many functions or paths)"),
    };
    vec![
        format!(
            "{} samples{cut} in {seconds:.1} s, one every {} ms of computing; {} calls in {subtasks} subtask{s}",
            report.samples, report.interval_ms, report.calls
        ),
        format!(
            "calls computed {:.3} s, {:.1} % of a processor for each subtask; the host's answers to the guest took {:.1} % of that",
            report.computed_ms / 1e3,
            percent(report.computed_ms, all_ms),
            percent(report.answers_ms, report.computed_ms)
        ),
    ]
}

fn percent(part: f64, of: f64) -> f64 {
    if of > 0.0 { 100.0 * part / of } else { 0.0 }
}

/// Returns what has happened to the job while it was sampled.
fn notes(report: &ProfileReport) -> Vec<String> {
    let mut notes = vec![];
    if report.version != report.from_version {
        notes.push(format!(
            "the job was upgraded meanwhile, from version {} to {}: the profile has functions of the modules of both",
            report.from_version, report.version
        ));
    }
    if report.restarts > 0 {
        notes.push(format!(
            "the job was restarted meanwhile (restarts: {}): the profile has its work before and after, and `regraft info {}` the reason",
            report.restarts, report.job_id
        ));
    }
    if report.status.is_terminal() {
        notes.push(format!(
            "the job is {}: it ended {:.1} s after the beginning, and the profile has what was sampled until then",
            report.status,
            report.duration_ms as f64 / 1e3
        ));
    } else if report.status != JobStatus::Running {
        notes.push(format!("the job is {} at the end of the profile", report.status));
    }
    notes
}

fn summary(report: &ProfileReport, path: &Path) -> serde_json::Value {
    json!({
        "job_id": report.job_id,
        "uid": report.uid,
        "subtask": report.subtask,
        "subtasks": report.subtasks,
        "path": path.display().to_string(),
        "duration_ms": report.duration_ms,
        "interval_ms": report.interval_ms,
        "samples": report.samples,
        "calls": report.calls,
        "computed_ms": report.computed_ms,
        "answers_ms": report.answers_ms,
        "from_version": report.from_version,
        "version": report.version,
        "restarts": report.restarts,
        "status": report.status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: &str, (from_version, version): (u64, u64), restarts: u64) -> ProfileReport {
        serde_json::from_value(json!({
            "job_id": "00000000000000000000000000000007", "name": "words", "uid": "count", "subtask": null, "subtasks": 2,
            "duration_ms": 10_000, "interval_ms": 1, "from_version": from_version, "version": version, "restarts": restarts,
            "status": status, "calls": 90, "computed_ms": 5_000.0, "answers_ms": 500.0, "samples": 4_800, "cut": 3,
            "functions": [], "frames": [],
        }))
        .expect("a report")
    }

    #[test]
    fn samples_are_shown_with_what_they_are_a_part_of() {
        assert_eq!(
            denominators(&report("RUNNING", (1, 1), 0)),
            [
                "4800 samples (3 of them not whole: there are too many functions or paths) in 10.0 s, one every 1 ms of computing; 90 calls in 2 subtasks",
                "calls computed 5.000 s, 25.0 % of a processor for each subtask; the host's answers to the guest took 10.0 % of that",
            ]
        );
    }

    #[test]
    fn what_has_happened_to_the_job_is_told() {
        assert!(notes(&report("RUNNING", (1, 1), 0)).is_empty());
        assert_eq!(
            notes(&report("CANCELED", (1, 2), 3)),
            [
                "the job was upgraded meanwhile, from version 1 to 2: the profile has functions of the modules of both",
                "the job was restarted meanwhile (restarts: 3): the profile has its work before and after, and `regraft info 00000000000000000000000000000007` the reason",
                "the job is CANCELED: it ended 10.0 s after the beginning, and the profile has what was sampled until then",
            ]
        );
        assert_eq!(
            notes(&report("RESTARTING", (1, 1), 0)),
            ["the job is RESTARTING at the end of the profile"]
        );
    }

    #[test]
    fn the_format_follows_the_flag_or_the_file() {
        let target = |args: &str| {
            let line = format!("regraft profile words --uid count {args}");
            let words = line.split_whitespace().map(Into::into).collect();
            let Ok(super::super::args::Parsed::Run(cli)) = super::super::args::parse(words) else {
                panic!("{line}")
            };
            let super::super::args::Verb::Profile(args) = &cli.verb else {
                panic!("{line}")
            };
            Target::of(args, Output { json: cli.json }).map(|target| (target.path, target.format))
        };
        let (svg, folded) = (ProfileFormat::Svg, ProfileFormat::Folded);
        let file = |name: &str| Some(PathBuf::from(name));
        assert_eq!(target(""), Ok((file("count.svg"), svg)));
        assert_eq!(target("--format folded"), Ok((file("count.folded"), folded)));
        assert_eq!(target("-o a.folded"), Ok((file("a.folded"), folded)));
        assert_eq!(target("-o a.folded --format svg"), Ok((file("a.folded"), svg)));
        assert_eq!(target("-o -"), Ok((None, svg)));
        assert_eq!(target("-o - --format folded"), Ok((None, folded)));
        let refused = |args: &str| target(args).expect_err("refused").message;
        assert!(refused("-o - --json").contains("name a file with -o FILE"));
        assert_eq!(
            refused("-o no/such/a.svg"),
            "the profile cannot be written to no/such/a.svg: its directory does not exist; name another file with -o FILE"
        );
    }
}
