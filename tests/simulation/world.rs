//! The job of a seed: its graph, its input and its settings, as a job file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use regraft::graph::job_graph::{JobGraph, NodeKind};
use regraft::graph::{Overrides, parse_job};

use crate::guests::{Fails, Logic};
use crate::random::Random;

/// Where the sinks of every simulated job write, and where dead letters go: a directory for each uid.
pub const OUT: &str = "/out";

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines without a key.
    Lines,
    /// Lines with a key.
    Keyed,
    Operator(Logic),
    Sink,
}

/// A node; its position is its identity.
#[derive(Debug, Clone)]
pub struct Node {
    pub uid: &'static str,
    pub kind: Kind,
    /// Positions of those that it reads, and whether by key.
    pub inputs: Vec<(usize, bool)>,
}

/// A job without its parallelism, which changes while it lives.
#[derive(Debug)]
pub struct World {
    pub nodes: Vec<Node>,
    pub max_parallelism: u64,
    /// Whether a cancelled job keeps its checkpoints.
    pub retains: bool,
    /// An operator with dead letters.
    pub picky: Option<(&'static str, Fails)>,
    /// Whether the store may do what a process has asked for after the process has died.
    pub is_late: bool,
    /// Whether records may come out more often than once.
    pub at_least_once: bool,
    settings: String,
    source: String,
    rates: Vec<Option<u64>>,
}

/// Node by node: uid, kind, and the uids it reads; `*` before one: by key.
type Shape = &'static [(&'static str, Kind, &'static [&'static str])];

use Kind::{Keyed, Lines, Operator, Sink};
use Logic::{Count, Final, Initial, Split};

const SHAPES: [Shape; 8] = [
    &[("lines", Lines, &[]), ("out", Sink, &["lines"])],
    &[
        ("pairs", Keyed, &[]),
        ("count", Operator(Count), &["*pairs"]),
        ("out", Sink, &["count"]),
    ],
    &[
        ("lines", Lines, &[]),
        ("split", Operator(Split), &["lines"]),
        ("count", Operator(Count), &["*split"]),
        ("out", Sink, &["count"]),
    ],
    &[
        ("lines", Lines, &[]),
        ("split", Operator(Split), &["lines"]),
        ("final", Operator(Final), &["*split"]),
        ("out", Sink, &["final"]),
    ],
    &[
        ("pairs", Keyed, &[]),
        ("count", Operator(Count), &["*pairs"]),
        ("initial", Operator(Initial), &["count"]),
        ("final", Operator(Final), &["*initial"]),
        ("each", Sink, &["count"]),
        ("all", Sink, &["final"]),
    ],
    &[
        ("left", Lines, &[]),
        ("right", Lines, &[]),
        ("split", Operator(Split), &["left", "right"]),
        ("count", Operator(Count), &["*split"]),
        ("out", Sink, &["count", "left"]),
    ],
    &[
        ("lines", Lines, &[]),
        ("copy", Sink, &["lines"]),
        ("pairs", Keyed, &[]),
        ("count", Operator(Count), &["*pairs"]),
        ("out", Sink, &["count"]),
    ],
    &[
        ("pairs", Keyed, &[]),
        ("count", Operator(Count), &["*pairs"]),
        ("final", Operator(Final), &["*pairs", "*count"]),
        ("out", Sink, &["final", "count"]),
    ],
];

impl World {
    pub fn draw(random: &mut Random) -> Self {
        let shape = random.pick(&SHAPES);
        let position = |uid: &str| shape.iter().position(|(of, ..)| *of == uid).unwrap_or(0);
        let input = |from: &&str| match from.strip_prefix('*') {
            Some(uid) => (position(uid), true),
            None => (position(from), false),
        };
        let node = |(uid, kind, inputs): &(&'static str, Kind, &[&str])| Node {
            uid,
            kind: *kind,
            inputs: inputs.iter().map(input).collect(),
        };
        let retains = random.percent(30);
        let operators: Vec<&'static str> = shape
            .iter()
            .filter(|(_, kind, _)| matches!(kind, Operator(_)))
            .map(|(uid, ..)| *uid)
            .collect();
        let picky = (!operators.is_empty() && random.percent(30)).then(|| {
            let fails = [Fails::Panics, Fails::Traps, Fails::Says];
            (*random.pick(&operators), *random.pick(&fails))
        });
        // What is given at the end would tell each key's own wrong count.
        let at_end = shape.iter().any(|(_, kind, _)| *kind == Operator(Final));
        let at_least_once = random.percent(10) && !at_end;
        Self {
            picky,
            nodes: shape.iter().map(node).collect(),
            max_parallelism: *random.pick(&[8, 16, 128]),
            retains,
            is_late: random.percent(20),
            at_least_once,
            settings: settings(random, retains, at_least_once),
            source: format!(
                "seed = {}\nsplits = {}\nrows = {}\n",
                random.below(1000),
                random.range(1, 5),
                match random.below(4) {
                    0 => random.range(400, 3000),
                    _ => random.range(0, 400),
                }
            ),
            rates: vec![Some(100), Some(500), Some(2_000), None],
        }
    }

    /// Whether an operator gives something when all has ended.
    pub fn gives_at_end(&self, uid: &str) -> bool {
        self.nodes
            .iter()
            .any(|node| node.uid == uid && node.kind == Operator(Final))
    }

    /// How an operator fails on records that it does not like.
    pub fn fails(&self, uid: &str) -> Option<Fails> {
        self.picky.filter(|(of, _)| *of == uid).map(|(_, fails)| fails)
    }

    /// A parallelism for each node.
    pub fn parallelism(&self, random: &mut Random) -> Vec<u64> {
        let most = *random.pick(&[1, 2, 3, 4]);
        self.nodes.iter().map(|_| random.range(1, most)).collect()
    }

    /// The job file. How fast sources are is drawn anew each time.
    pub fn text(&self, parallelism: &[u64], random: &mut Random) -> String {
        let mut text = format!(
            "name = \"simulated\"\nmax-parallelism = {}\n{}",
            self.max_parallelism, self.settings
        );
        for (node, parallelism) in self.nodes.iter().zip(parallelism) {
            let table = match node.kind {
                Lines | Keyed => "source",
                Operator(_) => "operator",
                Sink => "sink",
            };
            let _ = writeln!(text, "[[{table}]]\nuid = {:?}\nparallelism = {parallelism}", node.uid);
            let inputs: Vec<String> = node
                .inputs
                .iter()
                .map(|(from, by_key)| {
                    let by = if *by_key { ", by = \"key\"" } else { "" };
                    format!("{{ from = {:?}{by} }}", self.nodes[*from].uid)
                })
                .collect();
            if !inputs.is_empty() {
                let _ = writeln!(text, "inputs = [{}]", inputs.join(", "));
            }
            let line = "{ name = \"line\", type = \"string\", len = 9 }";
            let _ = match node.kind {
                Lines | Keyed => {
                    let key = if node.kind == Keyed { "key = \"word\"\n" } else { "" };
                    let word = if node.kind == Keyed {
                        "{ name = \"word\", type = \"string\", range = [0, 99] }, "
                    } else {
                        ""
                    };
                    let rate = random.pick(&self.rates);
                    let rate = rate.map_or_else(String::new, |rate| format!("rate = {rate}\n"));
                    write!(
                        text,
                        "connector = \"generator\"\n{rate}{}{key}fields = [{word}{line}]\n",
                        self.source
                    )
                }
                Operator(_) if self.fails(node.uid).is_some() => writeln!(
                    text,
                    "module = \"native\"\non-trap = \"dead-letter\"\ndead-letter = {{ connector = \"file\", path = \"{OUT}/{}\" }}",
                    node.uid
                ),
                Operator(_) => writeln!(text, "module = \"native\""),
                Sink => writeln!(
                    text,
                    "connector = \"file\"\npath = \"{OUT}/{}\"\nformat = \"lines\"",
                    node.uid
                ),
            };
        }
        text
    }
}

/// `[checkpoint]` and `[restart]`.
fn settings(random: &mut Random, retains: bool, at_least_once: bool) -> String {
    let interval = *random.pick(&["3ms", "10ms", "30ms", "100ms", "400ms"]);
    let mut text = format!("[checkpoint]\ninterval = \"{interval}\"\n");
    let mut set = |random: &mut Random, percent: u64, key: &str, values: &[&str]| {
        if random.percent(percent) {
            let _ = writeln!(text, "{key} = {}", random.pick(values));
        }
    };
    set(random, 80, "timeout", &["\"200ms\"", "\"2s\"", "\"30s\""]);
    set(random, 20, "min-pause", &["\"5ms\"", "\"200ms\""]);
    set(random, 50, "tolerable-failures", &["1", "3", "1000"]);
    set(random, 30, "max-concurrent", &["2", "3"]);
    set(random, 30, "retain", &["2", "4"]);
    if at_least_once {
        text.push_str("mode = \"at-least-once\"\n");
    }
    if retains {
        text.push_str("on-cancel = \"retain\"\n");
    }
    text.push_str(random.pick::<&str>(&[
        "",
        "",
        "[restart]\nstrategy = \"none\"\n",
        "[restart]\nstrategy = \"fixed-delay\"\nattempts = 2\ndelay = \"10ms\"\n",
        "[restart]\nstrategy = \"fixed-delay\"\nattempts = 1000\ndelay = \"100ms\"\n",
    ]));
    text
}

/// The graph of a job file.
pub fn graph(text: &str) -> JobGraph {
    match parse_job(text, "job.toml", Path::new("/"), &Overrides::default()) {
        Ok((graph, _)) => graph,
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// The settings of each generator of a graph.
pub fn generators(graph: &JobGraph) -> BTreeMap<String, regraft::graph::job_graph::GeneratorSource> {
    use regraft::graph::job_graph::SourceConnector::Generator;
    let settings = |node: &regraft::graph::job_graph::Node| match &node.kind {
        NodeKind::Source(source) => match &source.connector {
            Generator(settings) => Some((node.uid.to_string(), settings.clone())),
            _ => None,
        },
        _ => None,
    };
    graph.nodes.iter().filter_map(settings).collect()
}
