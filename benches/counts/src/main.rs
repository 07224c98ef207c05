//! Runs one hot path of the host natively, so many times: `regraft-counts NAME PASSES`, or `regraft-counts` for a list.
//!
//! `.ci/counts` counts the instructions of one pass and of three. Half of the difference is the cost of a pass, without
//! that of the set-up and of the first pass, which fills tables. Every pass handles the same batches, and prints nothing but
//! the number of its records.
//!
//! Only what a deployment calls is called, so that the names stay while the code behind them changes:
//!
//! - `exchange-1`, `exchange-2`: hash, group and scatter over one or two targets, and receive.
//! - `state`: look up the distinct keys of a batch in the memory backend, read a cell of each, and write it back.
//! - `keyed`: the node of a keyed count, with the operator native.
//! - `split`: the node of an operator that splits lines into words, native.
//! - `generator`, `blackhole`: the ends of a job.

use std::process::ExitCode;
use std::sync::Arc;

use regraft::connector::sink::SinkWriter as _;
use regraft::connector::source::{Polled, SourceReader as _};
use regraft::connectors::blackhole::writer::BlackholeWriter;
use regraft::connectors::generator::reader::GeneratorReader;
use regraft::connectors::generator::settings::{GeneratorField, GeneratorSource, GeneratorValues};
use regraft::dataflow::control::Mailbox;
use regraft::dataflow::element::{Element, PreparedOperator};
use regraft::dataflow::exchange::channel::{Receiver, channel};
use regraft::dataflow::exchange::partitioner::OutputEdge;
use regraft::dataflow::node::{NodeParts, NodePolicy, OperatorNode, open_context, plain_header};
use regraft::dataflow::operator::Operator as HostOperator;
use regraft::graph::job_graph::Partitioning;
use regraft::state::backend::{BoundState, Cells, StateBackend, TimerOps, Writes};
use regraft::state::memory::MemoryBackend;
use regraft_guest_runtime::call::CellWrites;
use regraft_model::batch::Batch;
use regraft_model::describe::{Description, StateKind};
use regraft_model::id::OperatorUid;
use regraft_model::key_group::{MAX_PARALLELISM_DEFAULT, range_of};
use regraft_model::schema::Type;
use regraft_model::time::{NO_TIMESTAMP, SystemClock};
use regraft_sdk::{Operator, native};
use rolling_count_count::Count;
use word_count_split::split;

#[path = "../../src/native.rs"]
mod native_operator;

use native_operator::NativeOperator;

type Failure = Box<dyn std::error::Error>;

/// Batches of a pass.
const BATCHES: u64 = 48;
/// Records of a batch, as a source reads them.
const BATCH: usize = 1024;
/// Distinct keys: many repeat within the batches of a pass, few within one batch.
const KEYS: u64 = 20_000;
/// Words of a line.
const WORDS: usize = 10;

/// Runs so many passes, and returns the number of records of one.
type Path = fn(u64) -> Result<u64, Failure>;

const PATHS: [(&str, Path); 7] = [
    ("exchange-1", |passes| exchange(passes, 1)),
    ("exchange-2", |passes| exchange(passes, 2)),
    ("state", state),
    ("keyed", keyed),
    ("split", split_lines),
    ("generator", generator),
    ("blackhole", blackhole),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = |name: &str| PATHS.iter().find(|(other, _)| *other == name);
    let ran = match arguments.as_slice() {
        [] => Ok(PATHS.map(|(name, _)| name).join("\n")),
        [name, passes] => match (path(name), passes.parse()) {
            (Some((_, run)), Ok(passes)) => run(passes).map(|records| records.to_string()),
            _ => Err("no such path, or no number".into()),
        },
        _ => Err("expected NAME PASSES".into()),
    };
    match ran {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn source(rows: u64) -> Result<GeneratorReader, Failure> {
    let settings = GeneratorSource {
        seed: 42,
        splits: 1,
        rows: Some(rows),
        fields: vec![
            GeneratorField {
                name: "key".into(),
                ty: Type::U64,
                values: GeneratorValues::Range {
                    first: 0,
                    last: KEYS - 1,
                },
            },
            GeneratorField {
                name: "value".into(),
                ty: Type::Bytes,
                values: GeneratorValues::Random { len: 32 },
            },
        ],
        key: Some(0),
    };
    Ok(GeneratorReader::new(settings, vec![("00000".into(), None)])?)
}

/// Returns the batches of a pass.
fn batches() -> Result<Vec<Batch>, Failure> {
    let mut source = source(BATCHES * BATCH as u64)?;
    let mut batches = vec![];
    while let Polled::Batch(batch) = source.poll(BATCH, 0)? {
        batches.push(batch);
    }
    Ok(batches)
}

fn generator(passes: u64) -> Result<u64, Failure> {
    let mut source = source(u64::MAX)?;
    for _ in 0..passes * BATCHES {
        let Polled::Batch(_) = source.poll(BATCH, 0)? else {
            return Err("the generator has ended".into());
        };
    }
    Ok(BATCHES * BATCH as u64)
}

fn blackhole(passes: u64) -> Result<u64, Failure> {
    let batches = batches()?;
    let mut sink = BlackholeWriter::new(&serde_json::Value::Null);
    for _ in 0..passes {
        for batch in &batches {
            sink.write(batch)?;
        }
    }
    Ok(BATCHES * BATCH as u64)
}

fn exchange(passes: u64, targets: usize) -> Result<u64, Failure> {
    let batches = batches()?;
    let producer = Arc::<Mailbox>::default();
    let (senders, receivers): (Vec<_>, Vec<Receiver>) =
        (0..targets).map(|_| channel(producer.clone(), Arc::default())).unzip();
    let mut edge = OutputEdge::new(0, Partitioning::Key, MAX_PARALLELISM_DEFAULT, 0, senders);
    for _ in 0..passes {
        for batch in &batches {
            edge.push(batch.clone());
            edge.send();
            for receiver in &receivers {
                while receiver.try_receive().is_some() {}
            }
        }
    }
    Ok(BATCHES * BATCH as u64)
}

fn backend(uid: &OperatorUid) -> Box<dyn StateBackend> {
    let range = range_of(0, 1, MAX_PARALLELISM_DEFAULT);
    Box::new(MemoryBackend::new(uid.clone(), range, MAX_PARALLELISM_DEFAULT))
}

/// Returns the batches of a pass as they come from the exchange: hashed and grouped.
fn grouped() -> Result<Vec<Batch>, Failure> {
    let (sender, receiver) = channel(Arc::default(), Arc::default());
    let mut edge = OutputEdge::new(0, Partitioning::Key, MAX_PARALLELISM_DEFAULT, 0, vec![sender]);
    let mut grouped = vec![];
    for batch in batches()? {
        edge.push(batch);
        edge.flush();
        edge.send();
        while let Some(element) = receiver.try_receive() {
            if let Element::Grouped(batch) = element {
                grouped.push(batch);
            }
        }
    }
    if grouped.len() as u64 == BATCHES {
        Ok(grouped)
    } else {
        Err(format!(
            "{} grouped batches came from the exchange, expected {BATCHES}",
            grouped.len()
        )
        .into())
    }
}

fn state(passes: u64) -> Result<u64, Failure> {
    let batches = grouped()?;
    let mut backend = backend(&OperatorUid::new("count")?);
    let count = BoundState {
        name: "count".into(),
        kind: StateKind::Value,
        travels: true,
        ttl_ms: None,
    };
    backend.bind(&[count], &[]);
    let (mut cells, mut written) = (Cells::default(), vec![CellWrites::default()]);
    for _ in 0..passes {
        for batch in &batches {
            backend.resolve(&batch.keys, 0, &mut cells)?;
            let keys = batch.keys.column.len();
            written[0].keys.clear();
            written[0].keys.extend(0..keys as u32);
            written[0].values.clear();
            for key in 0..keys {
                let before = cells.columns[0].values.get(key).first_chunk().copied();
                let count = u64::from_le_bytes(before.unwrap_or_default()) + 1;
                written[0].values.push(&count.to_le_bytes());
            }
            let writes = Writes {
                cells: &written,
                entries: None,
                timers: TimerOps::default(),
                schemas: &[1],
            };
            backend.apply(&batch.keys, &cells, 0, writes);
        }
    }
    Ok(BATCHES * BATCH as u64)
}

/// Returns the node of a native operator.
fn node<O: Operator + Send>(config: &str, is_keyed: bool) -> Result<OperatorNode, Failure> {
    let uid = OperatorUid::new("node")?;
    let description: Description = serde_json::from_str(&native::describe::<O>())?;
    let context = open_context(&uid, 0, 1, MAX_PARALLELISM_DEFAULT);
    let mut operator = NativeOperator::<O>::new(config);
    operator.open(plain_header(0, NO_TIMESTAMP), &context)?;
    Ok(OperatorNode::new(NodeParts {
        backend: is_keyed.then(|| backend(&uid)),
        uid,
        subtask: 0,
        prepared: PreparedOperator {
            operator: Box::new(operator),
            description: Arc::new(description),
            context,
        },
        clock: Arc::new(SystemClock::default()),
        counters: Arc::default(),
        watermark: NO_TIMESTAMP,
        strategy: None,
        policy: NodePolicy::default(),
        seed: 0,
    }))
}

fn process(node: &mut OperatorNode, batches: &[Batch], is_grouped: bool, passes: u64) -> Result<(), Failure> {
    let mut out = vec![];
    for _ in 0..passes {
        for batch in batches {
            node.process(0, batch.clone(), is_grouped, false, &mut out)
                .map_err(|failure| failure.to_string())?;
            out.clear();
        }
    }
    Ok(())
}

fn keyed(passes: u64) -> Result<u64, Failure> {
    let mut node = node::<Count>(r#"{"emit":"update"}"#, true)?;
    process(&mut node, &grouped()?, true, passes)?;
    Ok(BATCHES * BATCH as u64)
}

fn split_lines(passes: u64) -> Result<u64, Failure> {
    // Words of two to nine letters, out of as many as there are keys.
    let (mut batches, mut number) = (vec![], 1u64);
    for _ in 0..BATCHES / 8 {
        let mut batch = Batch::default();
        for _ in 0..BATCH {
            let mut line = vec![];
            for _ in 0..WORDS {
                number = number
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let word = (number >> 33) % KEYS;
                let len = 2 + (word % 8) as u32;
                line.extend((0..len).map(|at| b'a' + (word.rotate_right(at * 3) % 26) as u8));
                line.push(b' ');
            }
            batch.values.push(&line);
        }
        batches.push(batch);
    }
    let mut node = node::<split>("null", false)?;
    process(&mut node, &batches, false, passes)?;
    Ok(BATCHES / 8 * BATCH as u64 * WORDS as u64)
}
