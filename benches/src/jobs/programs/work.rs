//! The workloads, as each program is told to do them.

use std::fmt;
use std::path::Path;

use crate::settings::Settings;
use crate::text::Texts;

/// Splits of the generator, for all programs: so a run at any parallelism up to this one has the same records.
const SPLITS: u64 = 4;

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// W1: word count.
    Words,
    /// W2: keyed count and sum.
    Records,
    /// W3: map and filter.
    Arithmetic,
    /// So many maps in a chain. None: generator and blackhole alone.
    Chain(u32),
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Words => f.write_str("W1"),
            Self::Records => f.write_str("W2"),
            Self::Arithmetic => f.write_str("W3"),
            Self::Chain(0) => f.write_str("generator → blackhole"),
            Self::Chain(1) => f.write_str("chain of 1 map"),
            Self::Chain(maps) => write!(f, "chain of {maps} maps"),
        }
    }
}

impl Work {
    /// Returns the name of the job file.
    pub(super) fn file(self) -> String {
        match self {
            Self::Words => "w1.toml".into(),
            Self::Records => "w2.toml".into(),
            Self::Arithmetic => "w3.toml".into(),
            Self::Chain(maps) => format!("chain-{maps}.toml"),
        }
    }

    /// Returns the job file.
    pub(super) fn job(self) -> String {
        let operators = match self {
            Self::Words => vec![
                operator("split", "examples/word-count/split", "\"events\"", "{}"),
                operator(
                    "last",
                    "examples/word-count/count",
                    "{ from = \"split\", by = \"key\" }",
                    "{ emit = \"final\" }",
                ),
            ],
            Self::Records => vec![operator(
                "last",
                "examples/rolling-count/count",
                "{ from = \"events\", by = \"key\" }",
                "{ emit = \"final\" }",
            )],
            Self::Arithmetic => vec![arithmetic("map", "events", "map"), arithmetic("last", "map", "filter")],
            Self::Chain(maps) => {
                let name = |at: u32| match at {
                    0 => "events".to_owned(),
                    at if at == maps => "last".to_owned(),
                    at => format!("map-{at}"),
                };
                (0..maps)
                    .map(|at| arithmetic(&name(at + 1), &name(at), "map"))
                    .collect()
            }
        };
        let name = self.file().replace(".toml", "");
        let last = if operators.is_empty() { "events" } else { "last" };
        format!(
            "name = \"bench-{name}\"\n[checkpoint]\ninterval = \"off\"\n{}{}[[sink]]\nuid = \"out\"\nconnector = \"blackhole\"\ninputs = [\"{last}\"]\n",
            self.source(),
            operators.concat()
        )
    }

    fn source(self) -> String {
        match self {
            Self::Words => "[[source]]\nuid = \"events\"\nconnector = \"file\"\npath = \"in/*.txt\"\n".to_owned(),
            _ => format!(
                "[[source]]\nuid = \"events\"\nconnector = \"generator\"\nseed = {}\nsplits = {SPLITS}\nrows = 1\nkey = \"id\"\nfields = [\n    \
                 {{ name = \"id\", type = \"u64\", range = [0, LAST_KEY] }},\n    {{ name = \"payload\", type = \"bytes\", len = {} }},\n]\n",
                crate::workload::SEED,
                crate::workload::VALUE,
            ),
        }
    }

    /// Returns the input, for `--set`: so many records, or in W1 these files.
    pub(super) fn sets(self, records: u64, files: &Path) -> Vec<String> {
        match self {
            Self::Words => vec![format!("events.path={}", files.display())],
            _ => vec![format!("events.rows={records}")],
        }
    }

    /// Returns the arguments of this program for the hand-written loop.
    pub(super) fn loop_arguments(self, settings: &Settings, records: u64, threads: u32) -> Vec<String> {
        let (name, maps) = match self {
            Self::Words => ("w1", 0),
            Self::Records => ("w2", 0),
            Self::Arithmetic => ("w3", 0),
            Self::Chain(maps) => ("chain", maps),
        };
        let mut arguments = vec!["--hand".to_owned(), name.into()];
        let mut put = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        put("--parallelism", threads.to_string());
        put("--records", records.to_string());
        put("--keys", settings.keys.to_string());
        put("--splits", SPLITS.to_string());
        put("--maps", maps.to_string());
        put("--size", settings.size.to_string());
        put("--files", settings.files.to_string());
        put("--dir", settings.dir.to_string_lossy().into_owned());
        arguments
    }

    /// Returns the arguments of timely's program.
    pub(super) fn peer_arguments(self, settings: &Settings, records: u64, workers: u32) -> Vec<String> {
        let name = self.file().replace(".toml", "");
        let numbers = [u64::from(workers), records, settings.keys, SPLITS];
        std::iter::once(name)
            .chain(numbers.map(|number| number.to_string()))
            .collect()
    }

    /// Returns the arguments of Flink's program.
    pub(super) fn flink_arguments(self, settings: &Settings, records: u64, slots: u32, texts: &Texts) -> Vec<String> {
        if self == Self::Words {
            let files = texts.files.iter().map(|file| file.to_string_lossy().into_owned());
            return ["w1".to_owned(), slots.to_string()].into_iter().chain(files).collect();
        }
        self.peer_arguments(settings, records, slots)
    }
}

fn arithmetic(uid: &str, from: &str, step: &str) -> String {
    operator(
        uid,
        "benches/guests/arithmetic",
        &format!("\"{from}\""),
        &format!("{{ step = \"{step}\" }}"),
    )
}

fn operator(uid: &str, krate: &str, input: &str, config: &str) -> String {
    let config = if config == "{}" {
        String::new()
    } else {
        format!("config = {config}\n")
    };
    format!("[[operator]]\nuid = \"{uid}\"\ncrate = \"ROOT/{krate}\"\ninputs = [{input}]\n{config}")
}
