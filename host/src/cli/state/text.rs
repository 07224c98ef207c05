//! Text of `regraft state show`: facts about the savepoint, the table of its states, entries, positions of sources,
//! pending parts of sinks, and the job file.

use crate::cli::show::date_time;
use crate::cli::table::{Column, labelled, table};
use crate::escape::one_line;
use crate::graph::job_graph::SettingOrigin;
use crate::savepoint::metadata::SavedStateKind;
use crate::savepoint::show::{ShownSavepoint, ShownState};

/// Width of the labels of facts.
const LABEL: usize = 17;

/// Returns the text of a summary. `more` are facts from elsewhere, each with its label.
#[must_use]
pub fn text(shown: &ShownSavepoint, more: &[(&str, String)]) -> String {
    let facts = facts(shown).into_iter().chain(more.iter().cloned());
    let mut lines: Vec<String> = facts
        .map(|(label, value)| labelled(LABEL, &format!("{label}:"), &one_line(&value)))
        .collect();
    lines.push(String::new());
    lines.extend(states(shown));
    lines.extend(entries(shown));
    lines.extend(positions(shown));
    lines.extend([String::new(), "job file:".to_owned()]);
    let job_file = shown.job_file.lines();
    lines.extend(job_file.map(|line| format!("  {line}").trim_end().to_owned()));
    lines.extend(settings(shown));
    lines.join("\n")
}

/// Returns the settings that the job file does not say: those of other layers.
fn settings(shown: &ShownSavepoint) -> Vec<String> {
    let elsewhere = |origin: &SettingOrigin| !matches!(origin, SettingOrigin::JobFile | SettingOrigin::Default);
    let mut lines = vec![];
    for (origin, settings) in shown.settings.iter().filter(|(origin, _)| elsewhere(origin)) {
        let line = |(key, value): (&String, &String)| {
            format!("  {} = {}  ({})", one_line(key), one_line(value), origin.word())
        };
        lines.extend(settings.iter().map(line));
    }
    if !lines.is_empty() {
        lines.splice(..0, [String::new(), "set elsewhere:".to_owned()]);
    }
    lines
}

fn facts(shown: &ShownSavepoint) -> Vec<(&str, String)> {
    let kind = format!(
        "{} ({}, {}, owner {})",
        shown.kind, shown.trigger, shown.format, shown.owner
    );
    let mut facts = vec![
        ("path", shown.path.clone()),
        ("job", format!("{} ({})", shown.job_name, shown.job_id)),
        ("kind", kind),
    ];
    facts.extend(shown.label.clone().map(|label| ("label", label)));
    facts.extend([
        ("checkpoint", shown.checkpoint_id.to_string()),
        (
            "triggered at",
            format!("{}, took {} ms", time_text(shown.triggered_at_ms), shown.duration_ms),
        ),
        ("max parallelism", shown.max_parallelism.to_string()),
        (
            "written by",
            format!("regraft {}, WIT {}", shown.host_version, shown.wit_version),
        ),
    ]);
    if !shown.arguments.is_empty() {
        facts.push(("arguments", shown.arguments.join(" ")));
    }
    for ancestor in &shown.lineage {
        let from = format!("{} (job {})", ancestor.savepoint, ancestor.job_id);
        facts.push(("restored from", from));
    }
    facts.push(("bytes", shown.bytes.to_string()));
    let module = |(uid, module)| ("module", format!("{uid} {module}"));
    facts.extend(shown.modules.iter().map(module));
    facts
}

fn states(shown: &ShownSavepoint) -> Vec<String> {
    let columns = [
        Column::text("UID"),
        Column::text("KIND").apart(),
        Column::text("STATE").apart(),
        Column::text("SCHEMA").apart(),
        Column::numbers("KEYS").apart(),
        Column::numbers("BYTES").apart(),
    ];
    let mut rows = vec![];
    for operator in &shown.operators {
        let (uid, kind) = (operator.uid.to_string(), operator.kind.to_string());
        for state in &operator.states {
            let name = format!("{} ({})", state.name, state.kind);
            let (keys, bytes) = (state.keys.to_string(), state.bytes.to_string());
            rows.push([uid.clone(), kind.clone(), name, types(state), keys, bytes]);
        }
        if operator.states.is_empty() {
            let connector = operator.connector.clone().unwrap_or_default();
            rows.push([uid, kind, connector, "-".into(), "-".into(), "-".into()]);
        }
    }
    table(&columns, &rows)
}

fn entries(shown: &ShownSavepoint) -> Vec<String> {
    let mut lines = vec![];
    for operator in &shown.operators {
        for state in &operator.states {
            let Some(entries) = &state.entries else { continue };
            lines.extend([String::new(), format!("entries of {}/{}:", operator.uid, state.name)]);
            lines.extend(entries.iter().map(|entry| format!("  {}", entry.line(time_text))));
        }
    }
    lines
}

/// Formats a time as a date, with its milliseconds beside.
fn time_text(ms: i64) -> String {
    format!("{} ({ms} ms)", date_time(ms))
}

fn positions(shown: &ShownSavepoint) -> Vec<String> {
    let mut lines = vec![];
    for operator in &shown.operators {
        let uid = &operator.uid;
        if !operator.splits.is_empty() {
            lines.extend([String::new(), format!("positions of {uid}:")]);
        }
        for split in &operator.splits {
            let end = if split.finished { " (finished)" } else { "" };
            lines.push(format!("  {}: {}{end}", one_line(&split.split), split.position));
        }
        if !operator.pending.is_empty() {
            let title = format!("pending parts of {uid} (they may lie outside the savepoint):");
            lines.extend([String::new(), title]);
        }
        lines.extend(operator.pending.iter().map(|handle| format!("  {handle}")));
    }
    lines
}

/// Describes the type of a state's entries: a list's items, a map's keys and values, the names of timers.
fn types(state: &ShownState) -> String {
    match (state.kind, &state.map_key) {
        (SavedStateKind::Timers, _) => state.timers.join(", "),
        (SavedStateKind::List, _) => format!("[{}]", state.schema),
        (_, Some(key)) => format!("{{{key}: {}}}", state.schema),
        _ => state.schema.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::savepoint::entries::ShownEntry;
    use crate::savepoint::{show, test_data};

    #[test]
    fn times_of_entries_are_readable() {
        let timer = ShownEntry {
            key: Some("a".into()),
            index: None,
            map_key: None,
            timer: Some("gap".to_owned()),
            time: Some(1_795_238_400_000),
            value: None,
            expires: None,
        };
        assert_eq!(
            timer.line(time_text),
            "\"a\" gap at 2026-11-21 05:20:00 (1795238400000 ms)"
        );
        let value = ShownEntry {
            timer: None,
            time: None,
            value: Some(7.into()),
            expires: Some(1000),
            ..timer
        };
        assert_eq!(
            value.line(time_text),
            "\"a\": 7 (expires at 1970-01-01 00:00:01 (1000 ms))"
        );
    }

    #[tokio::test]
    async fn each_part_of_a_savepoint_is_shown() {
        let savepoint = test_data::savepoint().await;
        let shown = show::show(&savepoint);
        let state = &savepoint.metadata.operators[2].states[0];
        let (bytes, total) = (state.bytes(), shown.bytes);
        let width = bytes.to_string().len().max(5);
        let expected = format!(
            "path:            store:///savepoint-a1b2c3-000000000001
job:             word-count (a1b2c3d4e5f60718293a4b5c6d7e8f90)
kind:            savepoint (manual, canonical, owner user)
checkpoint:      7
triggered at:    1970-01-01 00:00:01 (1000 ms), took 36 ms
max parallelism: 128
written by:      regraft 0.1.0, WIT 0.2.0
arguments:       --fast
bytes:           {total}
module:          count 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
needed by:       job a

UID    KIND      STATE          SCHEMA  KEYS  {:>width$}
lines  source    file           -          -  {:>width$}
count  operator  count (value)  u64      200  {bytes:>width$}
out    sink      file           -          -  {:>width$}

positions of lines:
  b.txt: {{\"line\":2,\"offset\":10}}
  a.txt: {{\"line\":2,\"offset\":10}}
  c.txt: {{\"line\":2,\"offset\":10}} (finished)

pending parts of out (they may lie outside the savepoint):
  {{\"pending\":\"out/.pending/p1\"}}

job file:
  name = \"word-count\"

set elsewhere:
  parallelism = 2  (command line)",
            "BYTES", "-", "-"
        );
        assert_eq!(text(&shown, &[("needed by", "job a".to_owned())]), expected);
    }
}
