//! The checks: of every `_metadata` as soon as it exists, of the output that users see, and of what is left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use regraft::environment::cancel::Cancellation;
use regraft::environment::files::FileSystem;
use regraft::environment::{Environment, Task};
use regraft::graph::job_graph::JobGraph;
use regraft::jobs::admission::Descriptions;
use regraft::jobs::attempt::load::{self, Loaded};
use regraft::savepoint::budget::Budget;
use regraft::savepoint::load::Savepoint;
use regraft::savepoint::positions;
use regraft::savepoint::restore::{RestoreOptions, plan_restore};
use regraft::storage::Stores as _;
use regraft_model::id::{CheckpointId, JobId};
use regraft_model::schema::Type;
use regraft_model::snapshot::SnapshotKind;
use regraft_model::time::Clock;
use regraft_model::value::{Value, decode};

use crate::disk::Disk;
use crate::held::{held, rows};
use crate::machine::SimClock;
use crate::model::{Expected, Held, Lines, Model, Offsets, Position, difference};
use crate::store::{Objects, SimStore};
use crate::world::{OUT, World};

/// An environment for checks, in which everything takes effect at once.
#[derive(Default)]
struct Bystander(Arc<SimClock>);

impl Environment for Bystander {
    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clone()
    }

    fn random(&self) -> u128 {
        0
    }

    fn spawn(&self, _: Task) {}

    fn sleep(&self, _: std::time::Duration) -> Task {
        Box::pin(std::future::ready(()))
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> Task {
        work();
        Box::pin(std::future::ready(()))
    }

    fn files(&self) -> Arc<dyn FileSystem> {
        Arc::new(regraft::environment::files::LocalFiles)
    }
}

/// Returns the result of a future that never waits.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a bystander had to wait"),
    }
}

/// A checked snapshot.
pub struct Found {
    pub kind: SnapshotKind,
    pub job: JobId,
    pub id: CheckpointId,
    /// The kinds of state that operators hold, for statistics.
    pub holds: Vec<&'static str>,
}

/// All that the checks read.
pub struct Scene<'a> {
    pub world: &'a World,
    pub model: &'a Model,
    pub disk: &'a Disk,
    pub objects: &'a Arc<Objects>,
    /// Jobs in order of their start.
    pub jobs: &'a [JobId],
}

/// Returns the files that users see in the directory of each sink, by name.
pub fn visible(disk: &Disk) -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
    let mut sinks: BTreeMap<String, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
    for (path, content) in disk.files() {
        let Ok(inner) = path.strip_prefix(OUT) else { continue };
        let mut parts = inner.iter().map(|part| part.to_string_lossy().into_owned());
        if let (Some(sink), Some(name), None) = (parts.next(), parts.next(), parts.next()) {
            sinks.entry(sink).or_default().insert(name, content);
        }
    }
    sinks
}

/// Returns true if these are the digits that the parts of a job have in their names.
pub fn is_of(job: JobId, digits: &str) -> bool {
    job.to_string().get(..12) == Some(digits)
}

/// Returns the digits of the job that wrote a part, and the number of its checkpoint.
pub fn part_of(name: &str) -> Option<(&str, u64)> {
    let mut fields = name.rsplit(['-', '.']).skip(2);
    let id = fields.next()?.parse().ok()?;
    Some((fields.next()?, id))
}

fn lines<'a>(files: impl IntoIterator<Item = &'a Vec<u8>>) -> Result<Lines, String> {
    let mut lines = Lines::new();
    for content in files {
        let Some(whole) = content.strip_suffix(b"\n") else {
            let shown = String::from_utf8_lossy(content);
            return Err(format!("a part does not end with a line: {shown:?}"));
        };
        for line in whole.split(|byte| *byte == b'\n') {
            *lines.entry(line.to_vec()).or_default() += 1;
        }
    }
    Ok(lines)
}

impl Scene<'_> {
    fn open(&self, path: &str) -> Result<Savepoint, String> {
        let store = SimStore {
            objects: self.objects.clone(),
            of: None,
        };
        let storage = store.open(path).map_err(|error| error.to_string())?;
        at_once(Savepoint::load(storage)).map_err(|error| error.to_string())
    }

    /// Returns true if a snapshot has been removed again, or an attempt has completed it that had lost the job: it is not
    /// restored from.
    pub fn is_of_no_use(&self, path: &str) -> bool {
        let name = format!("{}/_metadata", path.trim_start_matches("store:///"));
        if !self.objects.names().contains(&name) {
            return true;
        }
        self.open(path)
            .is_ok_and(|savepoint| self.objects.is_late(&savepoint.metadata))
    }

    /// Returns the position of a job in a snapshot.
    pub fn position(&self, path: &str, graph: &JobGraph, descriptions: &Descriptions) -> Result<Position, String> {
        let savepoint = self.open(path)?;
        let loaded = restored(&savepoint, graph, descriptions)?;
        self.position_of(&savepoint, &loaded)
    }

    fn position_of(&self, savepoint: &Savepoint, loaded: &Loaded) -> Result<Position, String> {
        Ok(Position {
            read: self.offsets(savepoint)?,
            finished: finished(savepoint),
            ended: ended(savepoint),
            held: held(self.world, savepoint, loaded)?,
        })
    }

    /// Returns the number of records of each split that are before a snapshot's positions.
    fn offsets(&self, savepoint: &Savepoint) -> Result<Offsets, String> {
        let mut offsets = Offsets::new();
        for entry in &savepoint.metadata.operators {
            let Some(source) = &entry.source else { continue };
            let of = offsets.entry(entry.uid.to_string()).or_default();
            let filed =
                at_once(positions::read(savepoint, entry, &Budget::unlimited())).map_err(|error| error.to_string())?;
            for split in source.splits.iter().chain(&filed) {
                of.insert(split.split.clone(), self.model.offset(&split.split, &split.position)?);
            }
        }
        Ok(offsets)
    }

    fn expect(&self, position: &Position) -> Result<Expected, String> {
        self.model.expect(self.world, position)
    }

    /// Checks that the visible output is exactly that of a job at this position.
    pub fn output(&self, position: &Position) -> Result<(), String> {
        let expected = self.expect(position)?;
        let visible = visible(self.disk);
        for (sink, expected) in &expected.lines {
            let parts = visible.get(sink).into_iter().flatten().map(|(_, content)| content);
            let found = self.lines(sink, parts)?;
            if let Some(difference) = difference(expected, &found, self.world.at_least_once) {
                return Err(format!("output of sink \"{sink}\": {difference}"));
            }
        }
        Ok(())
    }

    /// Returns the lines of a sink's parts, or the values of an operator's dead letters.
    fn lines<'a>(&self, uid: &str, parts: impl IntoIterator<Item = &'a Vec<u8>>) -> Result<Lines, String> {
        let lines = lines(parts)?;
        if self.world.fails(uid).is_none() {
            return Ok(lines);
        }
        let mut values = Lines::new();
        for (line, count) in lines {
            let letter: serde_json::Value = serde_json::from_slice(&line).map_err(|error| error.to_string())?;
            let value = letter["value"].as_str().ok_or("a dead letter without a value")?;
            *values.entry(value.as_bytes().to_vec()).or_default() += count;
        }
        Ok(values)
    }

    /// Returns true if a part was committed by a later snapshot.
    fn is_later(&self, part: &str, savepoint: &Savepoint) -> bool {
        let Some((short, id)) = part_of(part) else { return false };
        let own = savepoint.metadata.job_id;
        let after = self.jobs.iter().skip_while(|job| **job != own).skip(1);
        let id_of_own = savepoint.metadata.checkpoint_id.0;
        (is_of(own, short) && id > id_of_own) || after.into_iter().any(|job| is_of(*job, short))
    }

    /// Checks that an ended job has left nothing that is not referred to. `kept`: its checkpoints stay.
    pub fn leftovers(&self, job: JobId, kept: bool) -> Result<(), String> {
        let names = self.objects.names();
        let own = format!("checkpoints/{job}/");
        if !kept && let Some(left) = names.iter().find(|name| name.starts_with(&own)) {
            return Err(format!("it has left {left} in the store"));
        }
        let mut named = BTreeSet::new();
        for name in names.iter().filter_map(|name| name.strip_suffix("/_metadata")) {
            let savepoint = self.open(&format!("store:///{name}"))?;
            for entry in &savepoint.metadata.operators {
                let handles = entry.sink.iter().flat_map(|sink| &sink.handles);
                named.extend(handles.flat_map(|handle| places(entry.uid.as_str(), handle)));
            }
        }
        let of_job = job.to_string();
        let pending = |path: &&PathBuf| path.iter().any(|part| part.to_str() == Some(&of_job));
        match self
            .disk
            .files()
            .keys()
            .filter(pending)
            .find(|path| !named.contains(*path))
        {
            Some(left) => Err(format!("it has left {}, which no snapshot names", left.display())),
            None => Ok(()),
        }
    }

    /// Checks that a snapshot can be restored, holds the state that it should, and together with the visible output has
    /// all output until then.
    pub fn snapshot(&self, path: &str, graph: &JobGraph, descriptions: &Descriptions) -> Result<Found, String> {
        let savepoint = self.open(path)?;
        let loaded = restored(&savepoint, graph, descriptions)?;
        let position = self.position_of(&savepoint, &loaded)?;
        let expected = self.expect(&position)?;
        for (uid, expected) in &expected.counts {
            let mut found = counts(&loaded, uid)?;
            if self.world.at_least_once {
                // With at-least-once, more than there should be is accepted.
                found.retain(|key, _| expected.contains_key(key));
                found
                    .iter_mut()
                    .for_each(|(key, count)| *count = (*count).min(expected[key]));
            }
            if found != *expected {
                return Err(format!("state of \"{uid}\": {}", differing(expected, &found)));
            }
        }
        for (uid, expected) in &expected.seen {
            let found = position.held.get(uid).map_or(0, |held| held.seen);
            if found != *expected {
                return Err(format!("\"{uid}\" has seen {found} records, expected {expected}"));
            }
        }
        for (uid, expected) in &expected.words {
            let found = position.held.get(uid).map(|held| &held.words);
            if found != Some(expected) {
                return Err(format!("the table of \"{uid}\" is {found:?}, expected {expected:?}"));
            }
        }
        let visible = visible(self.disk);
        let files = self.disk.files();
        for (sink, expected) in &expected.lines {
            let mut parts = visible.get(sink).cloned().unwrap_or_default();
            parts.retain(|name, _| !self.is_later(name, &savepoint));
            let entry = savepoint
                .metadata
                .operators
                .iter()
                .find(|entry| entry.uid.as_str() == sink);
            let handles = entry.and_then(|entry| entry.sink.as_ref()).map(|sink| &sink.handles);
            for handle in handles.into_iter().flatten() {
                let text = |key: &str| handle[key].as_str().unwrap_or_default().to_owned();
                match places(sink, handle).iter().find_map(|place| files.get(place)) {
                    Some(content) => {
                        parts.insert(text("final"), content.clone());
                    }
                    None if parts.contains_key(&text("final")) => {}
                    None => return Err(format!("it names output that is neither pending nor there: {handle}")),
                }
            }
            let found = self.lines(sink, parts.values())?;
            if let Some(difference) = difference(expected, &found, self.world.at_least_once) {
                return Err(format!("output of sink \"{sink}\" up to it: {difference}"));
            }
        }
        let of = &savepoint.metadata;
        Ok(Found {
            kind: of.kind,
            job: of.job_id,
            id: of.checkpoint_id,
            holds: position.held.values().flat_map(Held::shown).collect(),
        })
    }
}

/// Returns the paths at which the pending part of a handle may be: in the directory of its attempt, or where the next attempt
/// has moved it to.
fn places(sink: &str, handle: &serde_json::Value) -> [PathBuf; 2] {
    let pending = handle["pending"].as_str().unwrap_or_default();
    let out = Path::new(OUT).join(sink);
    let kept = match pending.rsplitn(3, '/').collect::<Vec<_>>()[..] {
        [file, attempt, job] => format!("{job}/kept-{attempt}/{file}"),
        _ => pending.to_owned(),
    };
    [out.join(pending), out.join(kept)]
}

fn restored(savepoint: &Savepoint, graph: &JobGraph, descriptions: &Descriptions) -> Result<Loaded, String> {
    let job = load::new_job(graph, descriptions);
    let plan = plan_restore(&savepoint.url(), &savepoint.metadata, &job, &RestoreOptions::default());
    let plan = plan.map_err(|refusal| refusal.to_string())?;
    at_once(load::load(
        &Bystander::default(),
        savepoint,
        &plan,
        &Budget::unlimited(),
        &Cancellation::default(),
    ))
    .map_err(|error| error.to_string())
}

fn finished(savepoint: &Savepoint) -> BTreeSet<String> {
    let entries = savepoint.metadata.operators.iter().filter(|entry| entry.finished);
    entries.map(|entry| entry.uid.to_string()).collect()
}

fn ended(savepoint: &Savepoint) -> BTreeMap<String, Vec<u32>> {
    let ended = |entry: &regraft::savepoint::metadata::OperatorEntry| match entry.finished {
        true => (0..entry.parallelism).collect(),
        false => entry.finished_subtasks.clone(),
    };
    let entries = savepoint.metadata.operators.iter();
    entries.map(|entry| (entry.uid.to_string(), ended(entry))).collect()
}

type Counts = BTreeMap<Vec<u8>, u64>;

/// Returns the counts of an operator over all its subtasks.
fn counts(loaded: &Loaded, uid: &str) -> Result<Counts, String> {
    let count = |((key, _), bytes): ((Vec<u8>, Vec<u8>), Vec<u8>)| match decode(&Type::U64, &bytes) {
        Ok(Value::Unsigned(count)) => Ok((key, count)),
        other => Err(format!("state of \"{uid}\": {other:?} is no count")),
    };
    rows(loaded, uid, "count").into_iter().map(count).collect()
}

fn differing(expected: &Counts, found: &Counts) -> String {
    let keys = expected
        .keys()
        .chain(found.keys().filter(|key| !expected.contains_key(*key)));
    let differing = keys.filter(|key| expected.get(*key) != found.get(*key));
    let shown = differing.take(5).map(|key| {
        let text = String::from_utf8_lossy(key);
        format!("{text:?} is {:?}, expected {:?}", found.get(key), expected.get(key))
    });
    shown.collect::<Vec<_>>().join("; ")
}
