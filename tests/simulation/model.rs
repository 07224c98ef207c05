//! The expected output: the meaning of the job, computed from its input without the host's machinery.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regraft::connector::source::{Polled, SourceConnector, SourceContext, SourceReader};
use regraft::environment::files::LocalFiles;
use regraft::graph::job_graph::JobGraph;
use regraft_model::time::NO_TIMESTAMP;

use crate::guests::own::ended;
use crate::guests::waiting::{window_line, window_of};
use crate::guests::{Logic, counted, is_bad, words};
use crate::world::{Kind, Node, World, sources};

/// A multiset of lines: the number of occurrences of each.
pub type Lines = BTreeMap<Vec<u8>, u64>;

/// Numbers of records read, by source and split.
pub type Offsets = BTreeMap<String, BTreeMap<String, u64>>;

/// A record.
#[derive(Debug, Clone)]
struct Record {
    key: Vec<u8>,
    value: Vec<u8>,
    time: i64,
}

/// The whole input of a job, by source and split.
pub struct Model {
    input: BTreeMap<String, BTreeMap<String, Vec<Record>>>,
    /// Ends of the lines of each file, in bytes.
    ends: BTreeMap<String, Vec<u64>>,
}

/// Records that an operator has taken in and not emitted yet, as a snapshot shows them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Open windows, by key and end, with their numbers of records.
    pub windows: BTreeMap<(Vec<u8>, i64), u64>,
    /// Waiting records, by key and value.
    pub records: BTreeMap<(Vec<u8>, Vec<u8>), u64>,
    /// Number of records that the operator says it has seen.
    pub seen: u64,
    /// Keys in the operator's table.
    pub words: BTreeSet<Vec<u8>>,
}

impl Held {
    /// Returns the kinds of state that are not empty, for statistics.
    pub fn shown(&self) -> Vec<&'static str> {
        let all = [
            (self.windows.is_empty(), "open windows"),
            (self.records.is_empty(), "waiting records"),
            (self.seen == 0, "numbers of records"),
            (self.words.is_empty(), "tables"),
        ];
        let some = all.iter().filter(|(is_empty, _)| !is_empty);
        some.map(|(_, what)| *what).collect()
    }
}

/// By operator.
pub type AllHeld = BTreeMap<String, Held>;

/// Progress of a job.
pub struct Position {
    /// Records read.
    pub read: Offsets,
    /// Operators that have run `finish` in all subtasks.
    pub finished: BTreeSet<String>,
    /// Subtasks that have run `finish`, where they are known: also of operators of which only some have.
    pub ended: BTreeMap<String, Vec<u32>>,
    /// Records that operators hold back.
    pub held: AllHeld,
}

/// Expected output and state of a job at some position.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Lines by sink; and by operator, the values of its dead letters.
    pub lines: BTreeMap<String, Lines>,
    /// Counts of each operator that counts, by key.
    pub counts: BTreeMap<String, BTreeMap<Vec<u8>, u64>>,
    /// Number of records seen, of each operator that reports it.
    pub seen: BTreeMap<String, u64>,
    /// The table of each operator that has one.
    pub words: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

impl Model {
    pub fn new(graph: &JobGraph, world: &World) -> Self {
        let source = |(uid, (connector, timestamp)): (String, (Arc<dyn SourceConnector>, Option<usize>))| {
            let context = SourceContext {
                files: Arc::new(LocalFiles),
                subtask: 0,
                parallelism: 1,
                timestamp,
                known: Arc::default(),
            };
            let names = connector.splits(&LocalFiles, false);
            let names = names.unwrap_or_else(|error| panic!("{error}")).into_iter();
            let split = |name: String| {
                let reader = connector.reader(&context, vec![(name.clone(), None)]);
                (name, all(&mut *reader.unwrap_or_else(|error| panic!("{error}"))))
            };
            (uid, names.map(split).collect())
        };
        let mut sources = sources(graph);
        sources.retain(|uid, _| !world.input.files.contains_key(uid.as_str()));
        let mut model = Self {
            input: sources.into_iter().map(source).collect(),
            ends: BTreeMap::new(),
        };
        for (uid, files) in &world.input.files {
            let is_keyed = world
                .nodes
                .iter()
                .any(|node| node.uid == *uid && node.kind == Kind::Keyed);
            for (path, content) in files {
                let (records, ends) = lines_of(content, is_keyed);
                model
                    .input
                    .entry((*uid).to_owned())
                    .or_default()
                    .insert(path.clone(), records);
                model.ends.insert(path.clone(), ends);
            }
        }
        model
    }

    /// The number of records before a position, which of a file says it twice: by bytes and by lines.
    ///
    /// # Errors
    /// A text where the two differ.
    pub fn offset(&self, split: &str, position: &serde_json::Value) -> Result<u64, String> {
        let offset = position["offset"].as_u64().unwrap_or(0);
        let Some(ends) = self.ends.get(split) else {
            return Ok(offset);
        };
        let line = position["line"].as_u64().unwrap_or(0);
        let end = line
            .checked_sub(1)
            .map_or(Some(0), |last| ends.get(last as usize).copied());
        if end != Some(offset) {
            return Err(format!(
                "{split} is said to be read to byte {offset}, and {line} lines end at {end:?}"
            ));
        }
        Ok(line)
    }

    /// Returns the ends of all sources.
    pub fn end(&self) -> Offsets {
        let ends = |splits: &BTreeMap<String, Vec<Record>>| {
            splits
                .iter()
                .map(|(name, records)| (name.clone(), records.len() as u64))
                .collect()
        };
        self.input
            .iter()
            .map(|(uid, splits)| (uid.clone(), ends(splits)))
            .collect()
    }

    /// Returns the output and state that a job must have at a position.
    ///
    /// # Errors
    /// A text, where an operator holds records that it cannot have.
    pub fn expect(&self, world: &World, position: &Position) -> Result<Expected, String> {
        let mut expected = Expected::default();
        let mut emitted: Vec<Vec<Record>> = vec![];
        for node in &world.nodes {
            let mut inputs: Vec<Vec<&Record>> = node
                .inputs
                .iter()
                .map(|(from, _)| emitted[*from].iter().collect())
                .collect();
            if world.fails(node.uid).is_some() {
                let rejects = expected.lines.entry(node.uid.to_owned()).or_default();
                for input in &mut inputs {
                    let bad = input.iter().filter(|record| is_bad(&record.value));
                    bad.for_each(|record| *rejects.entry(record.value.clone()).or_default() += 1);
                    input.retain(|record| !is_bad(&record.value));
                }
            }
            let out = match node.kind {
                Kind::Lines | Kind::Keyed | Kind::Timed => self.read(node.uid, &position.read),
                Kind::Operator(logic) => {
                    let out = operator(node, logic, &inputs, position, &mut expected);
                    out.map_err(|error| format!("operator \"{}\" {error}", node.uid))?
                }
                Kind::Sink => {
                    let lines = expected.lines.entry(node.uid.to_owned()).or_default();
                    let input = inputs.concat().into_iter();
                    input.for_each(|record| *lines.entry(record.value.clone()).or_default() += 1);
                    vec![]
                }
            };
            emitted.push(out);
        }
        Ok(expected)
    }

    fn read(&self, uid: &str, read: &Offsets) -> Vec<Record> {
        let Some(splits) = self.input.get(uid) else {
            return vec![];
        };
        let offset = |name: &String| read.get(uid).and_then(|of| of.get(name)).copied().unwrap_or(0) as usize;
        splits
            .iter()
            .flat_map(|(name, records)| records[..offset(name).min(records.len())].iter().cloned())
            .collect()
    }
}

/// The lines of a file as records, and where each of them ends in it.
fn lines_of(content: &[u8], is_keyed: bool) -> (Vec<Record>, Vec<u64>) {
    let (mut records, mut ends, mut end) = (vec![], vec![], 0);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        end += line.len() as u64;
        ends.push(end);
        let value = line
            .strip_suffix(b"\n")
            .map_or(line, |line| line.strip_suffix(b"\r").unwrap_or(line));
        records.push(Record {
            key: if is_keyed { value.to_vec() } else { vec![] },
            value: value.to_vec(),
            time: NO_TIMESTAMP,
        });
    }
    (records, ends)
}

/// All records of a reader.
fn all(reader: &mut dyn SourceReader) -> Vec<Record> {
    let mut records = vec![];
    while let Ok(Polled::Batch(batch)) = reader.poll(1000, 0) {
        records.extend((0..batch.len()).map(|i| Record {
            key: batch.key(i).to_vec(),
            value: batch.values.get(i).to_vec(),
            time: batch.timestamp(i),
        }));
    }
    records
}

/// Returns the records that an operator has emitted, given its inputs.
fn operator(
    node: &Node,
    logic: Logic,
    inputs: &[Vec<&Record>],
    position: &Position,
    expected: &mut Expected,
) -> Result<Vec<Record>, String> {
    let nothing = Held::default();
    let held = position.held.get(node.uid).unwrap_or(&nothing);
    let finished = position.finished.contains(node.uid);
    let input = || inputs.iter().flatten().copied();
    let uid = || node.uid.to_owned();
    let with = |record: &Record, key: &[u8], value: Vec<u8>| Record {
        key: key.to_vec(),
        value,
        time: record.time,
    };
    let mut counts: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    let mut out = vec![];
    if logic.counts() {
        for record in input() {
            let count = counts.entry(record.key.clone()).or_default();
            *count += 1;
            if logic == Logic::Count {
                out.push(with(record, &record.key, counted(&record.key, *count)));
            }
        }
    }
    match logic {
        Logic::Split => {
            let words = input().flat_map(|record| words(&record.value).map(move |word| (record, word)));
            out.extend(words.map(|(record, word)| with(record, word, word.to_vec())));
        }
        Logic::Initial => {
            let initial = |record: &Record| with(record, &record.key[..record.key.len().min(1)], record.value.clone());
            out.extend(input().map(initial));
        }
        Logic::Final if finished => out.extend(counts.iter().map(|(key, count)| Record {
            key: key.clone(),
            value: counted(key, *count),
            time: i64::MIN,
        })),
        Logic::Count | Logic::Final => {}
        Logic::Window => out = closed(input(), held)?,
        Logic::Later => out = given(input(), held)?,
        Logic::Hold => {
            expected.seen.insert(uid(), input().count() as u64);
            out = given(input(), held)?;
        }
        Logic::Table => {
            let words = inputs[1].iter().map(|record| record.key.clone());
            expected.words.insert(uid(), words.collect());
            out.extend(inputs[0].iter().copied().cloned());
        }
        Logic::Ends => {
            out.extend(input().cloned());
            let subtasks = position.ended.get(node.uid).into_iter().flatten();
            out.extend(subtasks.map(|subtask| Record {
                key: vec![],
                value: ended(*subtask),
                time: i64::MIN,
            }));
        }
    }
    if logic.counts() {
        expected.counts.insert(uid(), counts);
    }
    Ok(out)
}

/// Returns the lines of windows that are not open any more; each window emits one line.
fn closed<'a>(input: impl Iterator<Item = &'a Record>, held: &Held) -> Result<Vec<Record>, String> {
    let mut windows: BTreeMap<(Vec<u8>, i64), u64> = BTreeMap::new();
    for record in input {
        *windows.entry((record.key.clone(), window_of(record.time))).or_default() += 1;
    }
    for (window, count) in &held.windows {
        let expected = windows.remove(window);
        if expected != Some(*count) {
            let (key, end) = (String::from_utf8_lossy(&window.0), window.1);
            return Err(format!(
                "has {count} record(s) in the window of {key:?} that ends at {end}, expected {expected:?}"
            ));
        }
    }
    let line = |((key, end), count): ((Vec<u8>, i64), u64)| Record {
        value: window_line(&key, end, count),
        key,
        time: end,
    };
    Ok(windows.into_iter().map(line).collect())
}

/// Returns the records that do not wait any more.
fn given<'a>(input: impl Iterator<Item = &'a Record>, held: &Held) -> Result<Vec<Record>, String> {
    let mut left = held.records.clone();
    let mut out = vec![];
    for record in input {
        match left.get_mut(&(record.key.clone(), record.value.clone())) {
            Some(count) if *count > 0 => *count -= 1,
            _ => out.push(record.clone()),
        }
    }
    match left.into_iter().find(|(_, count)| *count > 0) {
        Some(((key, value), count)) => {
            let (key, value) = (String::from_utf8_lossy(&key), String::from_utf8_lossy(&value));
            Err(format!(
                "holds {value:?} of {key:?} {count} time(s) more than it was given it"
            ))
        }
        None => Ok(out),
    }
}

/// Describes a few lines whose numbers of occurrences are wrong; `None` if all are right.
pub fn difference(expected: &Lines, found: &Lines, at_least: bool) -> Option<String> {
    let mut wrong = vec![];
    for line in expected
        .keys()
        .chain(found.keys().filter(|line| !expected.contains_key(*line)))
    {
        let count = |of: &Lines| of.get(line).copied().unwrap_or(0);
        if count(found) < count(expected) || (count(found) > count(expected) && !at_least) {
            let shown = String::from_utf8_lossy(line);
            wrong.push(format!(
                "{shown:?}: {} times, expected {}",
                count(found),
                count(expected)
            ));
        }
    }
    let shown = wrong.iter().take(5).cloned().collect::<Vec<_>>().join("; ");
    (!wrong.is_empty()).then(|| format!("{} line(s) differ: {shown}", wrong.len()))
}
