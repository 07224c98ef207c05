//! What must come out: the job's meaning, computed from its input without any of the host's machinery.

use std::collections::BTreeMap;

use regraft::dataflow::source::generator::{GeneratorReader, list};
use regraft::dataflow::source::{Polled, SourceReader as _};
use regraft::graph::job_graph::JobGraph;

use crate::guests::{Logic, counted, is_bad, words};
use crate::world::{Kind, World, generators};

/// How often each line.
pub type Lines = BTreeMap<Vec<u8>, u64>;

/// Records read, by source and split.
pub type Offsets = BTreeMap<String, BTreeMap<String, u64>>;

type Record = (Vec<u8>, Vec<u8>);

/// The whole input.
pub struct Model {
    input: BTreeMap<String, BTreeMap<String, Vec<Record>>>,
}

/// What a job has done when it has read so much.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// By sink; the values of dead letters by operator.
    pub lines: BTreeMap<String, Lines>,
    /// The counts of each operator that counts, by key.
    pub counts: BTreeMap<String, BTreeMap<Vec<u8>, u64>>,
}

impl Model {
    pub fn new(graph: &JobGraph) -> Self {
        let split = |settings: &regraft::graph::job_graph::GeneratorSource, name: String| {
            let mut records = vec![];
            let reader = GeneratorReader::new(settings.clone(), vec![(name.clone(), None)]);
            let mut reader = reader.unwrap_or_else(|error| panic!("{error}"));
            while let Ok(Polled::Batch(batch)) = reader.poll(1000, 0) {
                records.extend((0..batch.len()).map(|i| (batch.key(i).to_vec(), batch.values.get(i).to_vec())));
            }
            (name, records)
        };
        let source = |(uid, settings): (String, regraft::graph::job_graph::GeneratorSource)| {
            let splits = list(&settings).into_iter().map(|name| split(&settings, name)).collect();
            (uid, splits)
        };
        Self {
            input: generators(graph).into_iter().map(source).collect(),
        }
    }

    /// Where all sources are at their end.
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

    /// What must have come out when the sources have been read to there; `finished`: which operators have been told that
    /// all has ended.
    pub fn expect(&self, world: &World, read: &Offsets, finished: &dyn Fn(&str) -> bool) -> Expected {
        let mut expected = Expected::default();
        let mut emitted: Vec<Vec<Record>> = vec![];
        for node in &world.nodes {
            let mut input: Vec<&Record> = node.inputs.iter().flat_map(|(from, _)| &emitted[*from]).collect();
            if world.fails(node.uid).is_some() {
                let rejects = expected.lines.entry(node.uid.to_owned()).or_default();
                let bad = input.iter().filter(|(_, value)| is_bad(value));
                bad.for_each(|(_, value)| *rejects.entry(value.clone()).or_default() += 1);
                input.retain(|(_, value)| !is_bad(value));
            }
            let input = input.into_iter();
            let out = match node.kind {
                Kind::Lines | Kind::Keyed => self.read(node.uid, read),
                Kind::Operator(Logic::Split) => {
                    let words = input.flat_map(|(_, line)| words(line));
                    words.map(|word| (word.to_vec(), word.to_vec())).collect()
                }
                Kind::Operator(Logic::Initial) => input
                    .map(|(key, value)| (key[..key.len().min(1)].to_vec(), value.clone()))
                    .collect(),
                Kind::Operator(logic @ (Logic::Count | Logic::Final)) => {
                    let counts = expected.counts.entry(node.uid.to_owned()).or_default();
                    let mut out = vec![];
                    for (key, _) in input {
                        let count = counts.entry(key.clone()).or_default();
                        *count += 1;
                        if logic == Logic::Count {
                            out.push((key.clone(), counted(key, *count)));
                        }
                    }
                    if logic == Logic::Final && finished(node.uid) {
                        out.extend(counts.iter().map(|(key, count)| (key.clone(), counted(key, *count))));
                    }
                    out
                }
                Kind::Sink => {
                    let lines = expected.lines.entry(node.uid.to_owned()).or_default();
                    input.for_each(|(_, value)| *lines.entry(value.clone()).or_default() += 1);
                    vec![]
                }
            };
            emitted.push(out);
        }
        expected
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

/// Lines that are not as often there as they should be, a few of them.
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
