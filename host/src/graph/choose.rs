//! The choice of one job in a file that holds several, each under `[[job]]`.
//!
//! Settings outside of the tables apply to all jobs, and those of a job override them. Pure: trees in, a tree out.

use super::problem::{Findings, Place};
use super::suggest::{nearest, one_of};
use super::tree::{self, Located, Table, Value};
use crate::escape::shell_word;

/// Key of the jobs of a file.
pub(crate) const JOBS: &str = "job";
/// Keys of a job that hold its sources, operators and sinks.
pub(crate) const NODES: [&str; 3] = ["source", "operator", "sink"];

/// The job that is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choice<'a> {
    /// Name that it must have (`-c`).
    pub(crate) entry: Option<&'a str>,
    /// Name of the one to take otherwise, where there are several.
    pub(crate) prefer: Option<&'a str>,
}

/// Returns the tree of the job that is asked for. That of a file with one job is returned as it is, after a check of its
/// name. A problem is noted where the choice fails; the tree has no job then, and `findings.broken` is set.
pub(crate) fn one_job(mut file: Table, choice: Choice<'_>, findings: &mut Findings) -> Table {
    let Some(jobs) = file.remove(JOBS) else {
        check_name(&file, choice, findings);
        return file;
    };
    refuse_outside(&file, findings);
    let Some(jobs) = tables(jobs, findings) else {
        findings.broken = true;
        return file;
    };
    match chosen(jobs, choice, findings) {
        Some(job) => tree::merge(&mut file, job),
        None => findings.broken = true,
    }
    file
}

/// Refuses what belongs to one job and stands outside of all.
fn refuse_outside(file: &Table, findings: &mut Findings) {
    for (key, at) in file {
        if key == "name" || NODES.contains(&key.as_str()) {
            let message =
                format!("{key} belongs to one job, and the file holds them in [[job]]; move it to one of them");
            findings.problem(&at.place, None, message);
        }
    }
}

/// Returns the jobs, each with its place.
fn tables(jobs: Located, findings: &mut Findings) -> Option<Vec<(Table, Place)>> {
    let place = jobs.place.clone();
    let items = match jobs.value {
        Value::List(items) => items,
        value => vec![Located { place, value }],
    };
    let mut tables = vec![];
    for item in items {
        match item.value {
            Value::Table(table) => tables.push((table, item.place)),
            other => {
                let message = format!("{JOBS}: expected tables, found {}; write [[{JOBS}]]", other.what());
                findings.problem(&item.place, None, message);
                return None;
            }
        }
    }
    if tables.is_empty() {
        let message = format!("{JOBS}: the file holds no job; add a [[{JOBS}]] with a name");
        findings.problem(&jobs.place, None, message);
    }
    Some(tables)
}

fn chosen(jobs: Vec<(Table, Place)>, choice: Choice<'_>, findings: &mut Findings) -> Option<Table> {
    let mut names = vec![];
    for (job, place) in &jobs {
        match name_of(job) {
            Some(name) if names.contains(&name) => {
                findings.problem(
                    place,
                    None,
                    format!("the file holds another job \"{name}\"; give one of them another name"),
                );
            }
            Some(name) => names.push(name),
            None if jobs.len() == 1 => {}
            None => findings.problem(
                place,
                None,
                "the job has no name to choose it by; add name = \"my-job\"",
            ),
        }
    }
    let only = (jobs.len() == 1).then_some(0);
    let by_name = |wanted| jobs.iter().position(|(job, _)| name_of(job) == Some(wanted));
    let found = match (choice.entry, choice.prefer) {
        (Some(entry), _) => by_name(entry),
        (None, Some(name)) => by_name(name).or(only),
        (None, None) => only,
    };
    if let Some(at) = found {
        return jobs.into_iter().nth(at).map(|(job, _)| job);
    }
    let first = jobs.first().map(|(_, place)| place.clone())?;
    let (place, message) = match choice.entry {
        Some(entry) => {
            let near = nearest(entry, &names).map(|near| format!("did you mean \"{near}\"? "));
            let message = format!(
                "{}the file holds the jobs {}",
                near.unwrap_or_default(),
                and_all(&names)
            );
            (Place::CommandLine(format!("-c {entry}").into()), message)
        }
        None => {
            let message = format!(
                "the file holds the jobs {}; choose one with -c {}",
                and_all(&names),
                shell_word(names.first()?)
            );
            (first, message)
        }
    };
    findings.problem(&place, None, message);
    None
}

fn and_all(names: &[&str]) -> String {
    one_of(names).replace(" or ", " and ")
}

fn name_of(job: &Table) -> Option<&str> {
    match &job.get("name")?.value {
        Value::Text(name) => Some(name),
        _ => None,
    }
}

/// Checks the name of the only job.
fn check_name(job: &Table, choice: Choice<'_>, findings: &mut Findings) {
    if let (Some(entry), Some(name)) = (choice.entry, name_of(job))
        && entry != name
    {
        let place = Place::CommandLine(format!("-c {entry}").into());
        let message = format!(
            "the file holds one job, \"{name}\"; write -c {}, or leave -c out",
            shell_word(name)
        );
        findings.problem(&place, None, message);
    }
}
