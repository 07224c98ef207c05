//! Wires and runs a job as a deployment at parallelism 1 does: a source with the operators chained to it; and where there
//! is a keyed operator an exchange by key, and a second subtask with that operator, its state in memory, and the sink.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel as events_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regraft::connector::sink::{SinkError, SinkSnapshot, SinkWriter};
use regraft::connector::source::{Polled, SourceError, SourceReader, SplitState};
use regraft::connectors::blackhole::writer::{self as blackhole, BlackholeWriter};
use regraft::dataflow::chain::{Chain, ChainedKind, ChainedNode, SinkNode};
use regraft::dataflow::control::{Control, Event, EventSink, Mailbox, NodeCounters, SubtaskId};
use regraft::dataflow::element::PreparedOperator;
use regraft::dataflow::exchange::channel::channel;
use regraft::dataflow::exchange::gate::Gate;
use regraft::dataflow::exchange::partitioner::OutputEdge;
use regraft::dataflow::executor::Executor;
use regraft::dataflow::node::{NodeParts, NodePolicy, OperatorNode};
use regraft::dataflow::positions::PositionLog;
use regraft::dataflow::subtask::{Head, SourceHead, Subtask};
use regraft::dataflow::workers::Workers;
use regraft::graph::job_graph::Partitioning;
use regraft::state::backend::StateBackend;
use regraft::state::memory::MemoryBackend;
use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::key_group::{MAX_PARALLELISM_DEFAULT, range_of};
use regraft_model::time::{Clock, NO_TIMESTAMP, SystemClock};

use crate::Failure;
use crate::usage::{Busiest, Teller};

/// Summary of the output: number of records, and sum of the hashes of their values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Number of records.
    pub(crate) records: u64,
    /// Wrapping sum of hashes, independent of order.
    pub(crate) checksum: u64,
}

impl Totals {
    /// Adds a record.
    pub(crate) fn add(&mut self, hash: u64) {
        self.records += 1;
        self.checksum = self.checksum.wrapping_add(hash);
    }
}

/// A job to run.
pub(crate) struct Pipeline {
    /// Reader of the source.
    pub(crate) reader: Box<dyn SourceReader>,
    /// Stateless operators, chained to the source in this order.
    pub(crate) stateless: Vec<PreparedOperator>,
    /// Keyed operator, after the exchange; `None`: the sink is chained to the source too.
    pub(crate) keyed: Option<PreparedOperator>,
}

/// Creates the node of an operator, as a deployment does.
pub(crate) fn node(name: &str, prepared: PreparedOperator, keyed: bool) -> Result<OperatorNode, Failure> {
    let uid = OperatorUid::new(name)?;
    let backend = keyed.then(|| {
        let range = range_of(0, 1, MAX_PARALLELISM_DEFAULT);
        Box::new(MemoryBackend::new(uid.clone(), range, MAX_PARALLELISM_DEFAULT)) as Box<dyn StateBackend>
    });
    Ok(OperatorNode::new(NodeParts {
        uid,
        subtask: 0,
        prepared,
        backend,
        clock: Arc::new(SystemClock::default()),
        counters: Arc::default(),
        watermark: NO_TIMESTAMP,
        strategy: None,
        policy: NodePolicy::default(),
        seed: 0,
    }))
}

impl Pipeline {
    /// Runs to the end of input. Returns the totals and the CPU time of the busier thread.
    pub(crate) fn run(self) -> Result<(Totals, Duration), Failure> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let (send, events) = events_channel();
        let sink: EventSink = Arc::new(move |event| {
            // Once the run is over, there is no receiver any more.
            let _ = send.send(event);
        });
        let (totals, busiest) = (Arc::new(Mutex::new(Totals::default())), Busiest::default());
        let subtasks = self.wire(&clock, &sink, &totals, &busiest)?;
        let mailboxes: Vec<Arc<Mailbox>> = subtasks.iter().map(Subtask::mailbox).collect();
        let started = Workers::default().start(subtasks, &clock, &sink, &Arc::new(AtomicBool::new(false)));
        let threads = started.map_err(|error| error.message)?;
        let ended = wait(&events, mailboxes.len());
        for mailbox in mailboxes {
            mailbox.send(Control::Terminate);
        }
        threads.join();
        ended?;
        let totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((*totals, busiest.get()))
    }

    fn wire(
        self,
        clock: &Arc<dyn Clock>,
        events: &EventSink,
        totals: &Arc<Mutex<Totals>>,
        busiest: &Busiest,
    ) -> Result<Vec<Subtask>, Failure> {
        let operator = |node| ChainedNode {
            port: 0,
            kind: ChainedKind::Operator(Box::new(node)),
        };
        let mut nodes = vec![];
        for (at, prepared) in self.stateless.into_iter().enumerate() {
            nodes.push(operator(node(&format!("stateless-{at}"), prepared, false)?));
        }
        let source = SourceHead {
            positions: PositionLog::new(64),
            uid: OperatorUid::new("source")?,
            reader: Box::new(Reader {
                inner: self.reader,
                _teller: busiest.teller(),
            }),
            rate: None,
            watermarks: None,
            counters: Arc::default(),
            hold_at_end: false,
        };
        let subtask = |chain, head, nodes, edges, mailbox| {
            let (chain, id) = (Chain::new(nodes, edges), SubtaskId { chain, index: 0 });
            Subtask::new(id, head, chain, mailbox, events.clone(), clock.clone(), NO_TIMESTAMP)
        };
        let (first, second) = (Arc::<Mailbox>::default(), Arc::<Mailbox>::default());
        let sink = self::sink(totals, busiest)?;
        let Some(keyed) = self.keyed else {
            nodes.push(sink);
            return Ok(vec![subtask(0, Head::Source(source), nodes, vec![], first)]);
        };
        let (sender, receiver) = channel(first.clone(), second.clone());
        let edge = OutputEdge::new(0, Partitioning::Key, MAX_PARALLELISM_DEFAULT, 0, vec![sender]);
        let gate = Gate::new(vec![(0, receiver)], NO_TIMESTAMP);
        let keyed = vec![operator(node("keyed", keyed, true)?), sink];
        Ok(vec![
            subtask(0, Head::Source(source), nodes, vec![edge], first),
            subtask(1, Head::Gate(gate), keyed, vec![], second),
        ])
    }
}

/// Waits until all subtasks have ended their input.
fn wait(events: &Receiver<Event>, subtasks: usize) -> Result<(), Failure> {
    let mut ended = 0;
    while ended < subtasks {
        match events.recv()? {
            Event::Ended(_) => ended += 1,
            Event::Failed(failure) => return Err(failure.to_string().into()),
            _ => {}
        }
    }
    Ok(())
}

fn sink(totals: &Arc<Mutex<Totals>>, busiest: &Busiest) -> Result<ChainedNode, Failure> {
    let writer = Blackhole {
        inner: BlackholeWriter::new(&serde_json::Value::Null),
        totals: totals.clone(),
        _teller: busiest.teller(),
    };
    let sink = SinkNode {
        uid: OperatorUid::new("sink")?,
        subtask: 0,
        writer: Box::new(writer),
        counters: Arc::<NodeCounters>::default(),
    };
    Ok(ChainedNode {
        port: 0,
        kind: ChainedKind::Sink(sink),
    })
}

/// A reader that reports the CPU time of its thread when it is dropped.
struct Reader {
    inner: Box<dyn SourceReader>,
    _teller: Teller,
}

impl SourceReader for Reader {
    fn poll(&mut self, records_max: usize, now_ns: u64) -> Result<Polled, SourceError> {
        self.inner.poll(records_max, now_ns)
    }

    fn snapshot(&self) -> Vec<SplitState> {
        self.inner.snapshot()
    }
}

/// The host's blackhole, which reports its totals when it is dropped.
struct Blackhole {
    inner: BlackholeWriter,
    totals: Arc<Mutex<Totals>>,
    _teller: Teller,
}

impl Drop for Blackhole {
    fn drop(&mut self) {
        let (records, checksum) = blackhole::totals(&self.inner.summary());
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner) = Totals { records, checksum };
    }
}

impl SinkWriter for Blackhole {
    fn begin(&mut self) -> Result<(), SinkError> {
        self.inner.begin()
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.inner.write(batch)
    }

    fn prepare(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.inner.prepare(id)
    }

    fn committed(&mut self, id: CheckpointId) {
        self.inner.committed(id);
    }

    fn abort(&mut self) {
        self.inner.abort();
    }

    fn set_input(&mut self, input: &PortValue) -> Result<(), SinkError> {
        self.inner.set_input(input)
    }
}
