//! The job of a seed: graph, input and settings, as a job file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use regraft::connector::source::SourceConnector;
use regraft::connectors::BUILT_IN;
use regraft::graph::job_graph::{JobGraph, NodeKind};
use regraft::graph::{Overrides, parse_job};

use crate::guests::{Fails, Logic};
use crate::input::Input;
use crate::random::Random;

/// Directory of the sinks of every simulated job, and of dead letters, with a directory per uid.
pub const OUT: &str = "/out";

/// Kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A source of lines without a key.
    Lines,
    /// A source of lines with a key.
    Keyed,
    /// A source of records with a key and an event time.
    Timed,
    Operator(Logic),
    Sink,
}

/// A node. Its position in the list identifies it.
#[derive(Debug, Clone)]
pub struct Node {
    pub uid: &'static str,
    pub kind: Kind,
    /// Inputs: positions of nodes, each with its partitioning.
    pub inputs: Vec<(usize, By)>,
}

/// Partitioning of records over subtasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The default of the job file.
    Default,
    Key,
    Broadcast,
}

/// A job without its parallelism, which changes during its life.
#[derive(Debug)]
pub struct World {
    pub nodes: Vec<Node>,
    pub max_parallelism: u64,
    /// True if a cancelled job keeps its checkpoints.
    pub retains: bool,
    /// The operator with dead letters, if any, and how it fails.
    pub picky: Option<(&'static str, Fails)>,
    /// True if the store may carry out requests of a process after the process has died.
    pub is_late: bool,
    /// True if records may be emitted more than once.
    pub at_least_once: bool,
    /// Number of splits of a subtask up to which their positions are listed.
    pub listed_splits_most: usize,
    /// The files that sources read, where they read any.
    pub input: Input,
    settings: String,
    source: String,
    fixed: u64,
    rates: Vec<Option<u64>>,
}

/// A graph, node by node: uid, kind, and the uids of the inputs, with the prefix `*` for an input by key and `+` for
/// broadcast.
type Shape = &'static [(&'static str, Kind, &'static [&'static str])];

use Kind::{Keyed, Lines, Operator, Sink, Timed};
use Logic::{Count, Ends, Final, Hold, Initial, Later, Split, Table, Window};

const SHAPES: [Shape; 16] = [
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
    &[
        ("times", Timed, &[]),
        ("window", Operator(Window), &["*times"]),
        ("out", Sink, &["window"]),
    ],
    &[
        ("times", Timed, &[]),
        ("window", Operator(Window), &["*times"]),
        ("initial", Operator(Initial), &["window"]),
        ("again", Operator(Window), &["*initial"]),
        ("out", Sink, &["window", "again"]),
    ],
    &[
        ("pairs", Keyed, &[]),
        ("later", Operator(Later), &["*pairs"]),
        ("out", Sink, &["later"]),
    ],
    &[
        ("times", Timed, &[]),
        ("window", Operator(Window), &["*times"]),
        ("pairs", Keyed, &[]),
        ("later", Operator(Later), &["*pairs", "*window"]),
        ("final", Operator(Final), &["*later"]),
        ("each", Sink, &["later"]),
        ("all", Sink, &["final"]),
    ],
    &[
        ("lines", Lines, &[]),
        ("hold", Operator(Hold), &["lines"]),
        ("out", Sink, &["hold"]),
    ],
    &[
        ("lines", Lines, &[]),
        ("split", Operator(Split), &["lines"]),
        ("hold", Operator(Hold), &["split"]),
        ("later", Operator(Later), &["*hold"]),
        ("count", Operator(Count), &["*later"]),
        ("out", Sink, &["count", "hold"]),
    ],
    &[
        ("lines", Lines, &[]),
        ("pairs", Keyed, &[]),
        ("table", Operator(Table), &["lines", "+pairs"]),
        ("hold", Operator(Hold), &["table"]),
        ("out", Sink, &["hold"]),
    ],
    &[
        ("lines", Lines, &[]),
        ("hold", Operator(Hold), &["lines"]),
        ("ends", Operator(Ends), &["hold"]),
        ("out", Sink, &["ends"]),
    ],
];

/// Returns true for operators whose state shows what they hold back.
const fn waits(logic: Logic) -> bool {
    matches!(logic, Window | Later | Hold | Table | Ends)
}

impl World {
    pub fn draw(random: &mut Random, for_input: Random) -> Self {
        let shape = random.pick(&SHAPES);
        let position = |uid: &str| shape.iter().position(|(of, ..)| *of == uid).unwrap_or(0);
        let input = |from: &&str| match (from.strip_prefix('*'), from.strip_prefix('+')) {
            (Some(uid), _) => (position(uid), By::Key),
            (None, Some(uid)) => (position(uid), By::Broadcast),
            (None, None) => (position(from), By::Default),
        };
        let node = |(uid, kind, inputs): &(&'static str, Kind, &[&str])| Node {
            uid,
            kind: *kind,
            inputs: inputs.iter().map(input).collect(),
        };
        let retains = random.percent(30);
        let timed = |inputs: &[&str]| {
            let of = |uid: &str| shape.iter().any(|(other, kind, _)| *other == uid && *kind == Timed);
            inputs.iter().any(|uid| of(uid.trim_start_matches('*')))
        };
        // Under broadcast, a bad record would become a dead letter in each subtask, and a record with an event time is
        // not a text.
        let operators: Vec<&'static str> = shape
            .iter()
            .filter(|(_, kind, inputs)| matches!(kind, Operator(logic) if *logic != Table) && !timed(inputs))
            .map(|(uid, ..)| *uid)
            .collect();
        let picky = (!operators.is_empty() && random.percent(30)).then(|| {
            let fails = [Fails::Panics, Fails::Traps, Fails::Says];
            (*random.pick(&operators), *random.pick(&fails))
        });
        // Results at the end would show each key's inexact count, and records held back cannot be told from duplicates.
        let exact = |kind: &Kind| matches!(kind, Operator(logic) if *logic == Final || waits(*logic));
        let is_exact = shape.iter().any(|(_, kind, _)| exact(kind));
        let at_least_once = random.percent(10) && !is_exact;
        // Many states take longer to store.
        let has_much = shape
            .iter()
            .any(|(_, kind, _)| matches!(kind, Operator(logic) if waits(*logic)));
        let nodes: Vec<Node> = shape.iter().map(node).collect();
        let input = Input::draw(for_input, &nodes);
        let max_parallelism = *random.pick(&[8, 16, 128]);
        let is_late = random.percent(20);
        let settings = settings(random, retains, at_least_once, has_much);
        let (seed, splits) = (random.below(1000), random.range(1, 5));
        let rows = match (random.below(4), has_much) {
            (0, false) => random.range(400, 3000),
            (0, true) => random.range(300, 1500),
            (_, false) => random.range(0, 400),
            (_, true) => random.range(0, 300),
        };
        Self {
            picky,
            input,
            nodes,
            max_parallelism,
            retains,
            is_late,
            listed_splits_most: 64,
            at_least_once,
            // The state of many rows takes longer to hand over: no checkpoint would ever complete.
            settings: match rows {
                0..1000 => settings,
                _ => settings.replace("timeout = \"200ms\"", "timeout = \"1s\""),
            },
            source: format!("seed = {seed}\nsplits = {splits}\nrows = {rows}\n"),
            fixed: random.range(1, 4),
            rates: vec![Some(100), Some(500), Some(2_000), None],
        }
    }

    /// Returns true if an operator emits something at the end of input that would be different if the input went on.
    pub fn gives_at_end(&self, uid: &str) -> bool {
        let gives = |kind| matches!(kind, Operator(Final | Window | Ends));
        self.nodes.iter().any(|node| node.uid == uid && gives(node.kind))
    }

    /// Returns how an operator fails on bad records, or `None` if it does not.
    pub fn fails(&self, uid: &str) -> Option<Fails> {
        self.picky.filter(|(of, _)| *of == uid).map(|(_, fails)| fails)
    }

    /// Returns the parallelism of all nodes if it is fixed, since an operator reports per subtask.
    pub fn fixed(&self) -> Option<u64> {
        let says = self.nodes.iter().any(|node| node.kind == Operator(Ends));
        says.then_some(self.fixed)
    }

    /// Draws a parallelism for each node.
    pub fn parallelism(&self, random: &mut Random) -> Vec<u64> {
        if let Some(fixed) = self.fixed() {
            return vec![fixed; self.nodes.len()];
        }
        let most = *random.pick(&[1, 2, 3, 4]);
        self.nodes.iter().map(|_| random.range(1, most)).collect()
    }

    /// Renders the job file. The rates of sources are drawn anew each time.
    pub fn text(&self, parallelism: &[u64], random: &mut Random) -> String {
        let mut text = format!(
            "name = \"simulated\"\nmax-parallelism = {}\n{}",
            self.max_parallelism, self.settings
        );
        for (node, parallelism) in self.nodes.iter().zip(parallelism) {
            let table = match node.kind {
                Lines | Keyed | Timed => "source",
                Operator(_) => "operator",
                Sink => "sink",
            };
            let _ = writeln!(text, "[[{table}]]\nuid = {:?}\nparallelism = {parallelism}", node.uid);
            let inputs: Vec<String> = node
                .inputs
                .iter()
                .map(|(from, by)| {
                    let by = match by {
                        By::Default => "",
                        By::Key => ", by = \"key\"",
                        By::Broadcast => ", by = \"broadcast\"",
                    };
                    format!("{{ from = {:?}{by} }}", self.nodes[*from].uid)
                })
                .collect();
            if !inputs.is_empty() {
                let _ = writeln!(text, "inputs = [{}]", inputs.join(", "));
            }
            let line = "{ name = \"line\", type = \"string\", len = 9 }";
            let _ = match node.kind {
                Lines | Keyed | Timed => {
                    let key = if node.kind == Lines { "" } else { "key = \"word\"\n" };
                    let word = |last: u32| format!("{{ name = \"word\", type = \"string\", range = [0, {last}] }}, ");
                    // Few keys with event times, so that windows of one key often end together.
                    let word = match node.kind {
                        Lines => String::new(),
                        Timed => word(19),
                        _ => word(99),
                    };
                    let (time, watermark) = if node.kind == Timed {
                        let bound = random.pick(&["0s", "5ms", "100ms"]);
                        (
                            ", { name = \"time\", type = \"u64\", sequence = 0 }",
                            format!("watermark = {{ timestamp = \"time\", max-out-of-orderness = \"{bound}\" }}\n"),
                        )
                    } else {
                        ("", String::new())
                    };
                    let rate = random.pick(&self.rates);
                    let rate = rate.map_or_else(String::new, |rate| format!("rate = {rate}\n"));
                    let settings = self.input.settings(node).unwrap_or_else(|| {
                        let fields = format!("fields = [{word}{line}{time}]\n");
                        format!("connector = \"generator\"\n{watermark}{}{key}{fields}", self.source)
                    });
                    write!(text, "{settings}{rate}")
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

/// Draws the tables `[checkpoint]` and `[restart]`.
fn settings(random: &mut Random, retains: bool, at_least_once: bool, has_much: bool) -> String {
    let interval = *random.pick(&["3ms", "10ms", "30ms", "100ms", "400ms"]);
    let mut text = format!("[checkpoint]\ninterval = \"{interval}\"\n");
    let mut set = |random: &mut Random, percent: u64, key: &str, values: &[&str]| {
        if random.percent(percent) {
            let _ = writeln!(text, "{key} = {}", random.pick(values));
        }
    };
    let shortest = if has_much { "\"1s\"" } else { "\"200ms\"" };
    set(random, 80, "timeout", &[shortest, "\"2s\"", "\"30s\""]);
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

/// Parses a job file.
pub fn graph(text: &str) -> JobGraph {
    match parse_job(text, "job.toml", Path::new("/"), &Overrides::default(), BUILT_IN) {
        Ok((graph, _)) => graph,
        Err(error) => panic!("{error}\n{text}"),
    }
}

/// The connector of each source of a graph, and which of its fields is the event time.
pub fn sources(graph: &JobGraph) -> BTreeMap<String, (Arc<dyn SourceConnector>, Option<usize>)> {
    let source = |node: &regraft::graph::job_graph::Node| match &node.kind {
        NodeKind::Source(source) => {
            let timestamp = node.watermark.as_ref().and_then(|strategy| strategy.timestamp);
            Some((node.uid.to_string(), (source.connector.clone(), timestamp)))
        }
        _ => None,
    };
    graph.nodes.iter().filter_map(source).collect()
}
