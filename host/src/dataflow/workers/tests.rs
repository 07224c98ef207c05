//! Subtasks whose source is a closure, among one or two workers.

use std::sync::atomic::AtomicU32;
use std::sync::mpsc::RecvTimeoutError;

use regraft_model::batch::Batch;
use regraft_model::describe::PortValue;
use regraft_model::id::{CheckpointId, OperatorUid};
use regraft_model::time::{NO_TIMESTAMP, SystemClock};

use super::*;
use crate::connector::sink::{SinkError, SinkSnapshot, SinkWriter};
use crate::connector::source::{Polled, SourceError, SourceReader, SplitState};
use crate::dataflow::chain::{Chain, ChainedKind, ChainedNode, SinkNode};
use crate::dataflow::control::{Control, Event, Mailbox, SubtaskId};
use crate::dataflow::exchange::channel;
use crate::dataflow::exchange::gate::Gate;
use crate::dataflow::exchange::partitioner::OutputEdge;
use crate::dataflow::positions::PositionLog;
use crate::dataflow::subtask::{Head, SourceHead};
use crate::graph::job_graph::Partitioning;

const PATIENCE: Duration = Duration::from_secs(60);

struct Polls<F>(F);

impl<F: FnMut() -> Polled + Send> SourceReader for Polls<F> {
    fn poll(&mut self, _: usize, _: u64) -> Result<Polled, SourceError> {
        Ok((self.0)())
    }

    fn snapshot(&self) -> Vec<SplitState> {
        vec![]
    }

    fn has_splits(&self) -> bool {
        true
    }
}

/// Takes everything.
struct Nowhere;

impl SinkWriter for Nowhere {
    fn begin(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn write(&mut self, _: &Batch) -> Result<(), SinkError> {
        Ok(())
    }

    fn prepare(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, _: CheckpointId) {}

    fn abort(&mut self) {}

    fn set_input(&mut self, _: &PortValue) -> Result<(), SinkError> {
        Ok(())
    }
}

/// The surroundings of subtasks: their clock, their reports, and the flag that ends them.
struct World {
    clock: Arc<dyn Clock>,
    events: EventSink,
    reported: Receiver<Event>,
    cancelled: Arc<AtomicBool>,
    made: Cell<u32>,
}

impl World {
    fn new() -> Self {
        let (send, reported) = channel();
        let events = move |event| drop(send.send(event));
        Self {
            clock: Arc::new(SystemClock::default()),
            events: Arc::new(events),
            reported,
            cancelled: Arc::default(),
            made: Cell::new(0),
        }
    }

    fn subtask(&self, head: Head, edges: Vec<OutputEdge>, mailbox: Arc<Mailbox>) -> Subtask {
        let index = self.made.replace(self.made.get() + 1);
        let sink = SinkNode {
            uid: OperatorUid::new("nowhere").expect("a uid"),
            subtask: index,
            writer: Box::new(Nowhere),
            counters: Arc::default(),
        };
        let sink = ChainedNode {
            port: 0,
            kind: ChainedKind::Sink(sink),
        };
        let nodes = if edges.is_empty() { vec![sink] } else { vec![] };
        let (id, chain) = (SubtaskId { chain: 0, index }, Chain::new(nodes, edges));
        Subtask::new(
            id,
            head,
            chain,
            mailbox,
            self.events.clone(),
            self.clock.clone(),
            NO_TIMESTAMP,
        )
    }

    fn source(&self, poll: impl FnMut() -> Polled + Send + 'static) -> Subtask {
        self.source_to(poll, vec![], Arc::default())
    }

    fn source_to(
        &self,
        poll: impl FnMut() -> Polled + Send + 'static,
        edges: Vec<OutputEdge>,
        mailbox: Arc<Mailbox>,
    ) -> Subtask {
        let head = SourceHead {
            uid: OperatorUid::new("polls").expect("a uid"),
            reader: Box::new(Polls(poll)),
            rate: None,
            watermarks: None,
            positions: PositionLog::new(1),
            counters: Arc::default(),
            hold_at_end: false,
        };
        self.subtask(Head::Source(head), edges, mailbox)
    }

    fn start(&self, workers: &Workers, subtasks: Vec<Subtask>) -> Box<dyn Running> {
        let started = workers.start(subtasks, &self.clock, &self.events, &self.cancelled);
        started.expect("started")
    }

    /// Ends all subtasks, whose mailboxes these are.
    fn end(&self, mailboxes: &[Arc<Mailbox>]) {
        self.cancelled.store(true, Ordering::SeqCst);
        for mailbox in mailboxes {
            mailbox.wake.wake();
        }
    }
}

fn mailboxes(subtasks: &[Subtask]) -> Vec<Arc<Mailbox>> {
    subtasks.iter().map(Subtask::mailbox).collect()
}

fn workers(count: usize) -> Workers {
    Workers::new(NonZeroUsize::new(count).expect("some"))
}

fn record() -> Polled {
    let mut batch = Batch::default();
    batch.values.push(b"value");
    Polled::Batch(batch)
}

/// Counts polls.
fn counting(count: &Arc<AtomicU32>) -> impl FnMut() -> Polled + Send + 'static {
    let count = count.clone();
    move || {
        count.fetch_add(1, Ordering::SeqCst);
        record()
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn steps_that_take_long_hold_up_no_neighbour() {
    for (count, stuck) in [(1, 1), (2, 4)] {
        let (world, workers, neighbour) = (World::new(), workers(count), Arc::default());
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        let begun = Arc::new(AtomicU32::new(0));
        let mut subtasks: Vec<Subtask> = (0..stuck)
            .map(|_| {
                let (released, begun) = (released.clone(), begun.clone());
                world.source(move || {
                    begun.fetch_add(1, Ordering::SeqCst);
                    // Until the other end is dropped.
                    let _ = locked(&released).recv_timeout(2 * PATIENCE);
                    record()
                })
            })
            .collect();
        subtasks.push(world.source(counting(&neighbour)));
        let mailboxes = mailboxes(&subtasks);
        let running = world.start(&workers, subtasks);
        wait_until("all of them are stuck", || begun.load(Ordering::SeqCst) == stuck);
        let so_far = neighbour.load(Ordering::SeqCst);
        wait_until("the neighbour goes on", || {
            neighbour.load(Ordering::SeqCst) > so_far + 1000
        });
        world.end(&mailboxes);
        drop(release);
        running.join();
    }
}

#[test]
fn an_idle_subtask_is_polled_when_it_is_woken_and_when_its_time_has_come() {
    let (world, workers, polls) = (World::new(), workers(1), Arc::new(AtomicU32::new(0)));
    let (clock, count) = (world.clock.clone(), polls.clone());
    let idle = world.source(move || {
        let wait = match count.fetch_add(1, Ordering::SeqCst) {
            0 => Duration::from_millis(20),
            _ => 10 * PATIENCE,
        };
        Polled::Idle(clock.monotonic_ns() + wait.as_nanos() as u64)
    });
    let (mailbox, began) = (idle.mailbox(), Instant::now());
    let running = world.start(&workers, vec![idle]);
    wait_until("its time has come", || polls.load(Ordering::SeqCst) == 2);
    assert!(began.elapsed() >= Duration::from_millis(20));
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(polls.load(Ordering::SeqCst), 2, "it was not woken");
    mailbox.wake.wake();
    wait_until("it is woken", || polls.load(Ordering::SeqCst) == 3);
    world.end(&[mailbox]);
    running.join();
}

#[test]
fn regions_take_turns_on_one_worker() {
    let (world, workers) = (World::new(), workers(1));
    let (many, few) = (Arc::default(), Arc::default());
    let crowd: Vec<Subtask> = (0..40).map(|_| world.source(counting(&many))).collect();
    let single = vec![world.source(counting(&few))];
    let all: Vec<_> = mailboxes(&crowd).into_iter().chain(mailboxes(&single)).collect();
    let running = [world.start(&workers, crowd), world.start(&workers, single)];
    wait_until("both run", || {
        few.load(Ordering::SeqCst) > 0 && many.load(Ordering::SeqCst) > 0
    });
    let (many_before, few_before) = (many.load(Ordering::SeqCst), few.load(Ordering::SeqCst));
    let until = many_before + 400_000;
    wait_until("the crowd has gone on", || many.load(Ordering::SeqCst) > until);
    let (many, few) = (
        many.load(Ordering::SeqCst) - many_before,
        few.load(Ordering::SeqCst) - few_before,
    );
    assert!(few > many / 4, "{few} polls beside {many} of forty subtasks");
    world.end(&all);
    running.into_iter().for_each(|running| running.join());
}

#[test]
fn everything_passes_channels_that_are_full_again_and_again() {
    for count in [1, 2] {
        let (world, workers) = (World::new(), workers(count));
        let mut subtasks = vec![];
        for _ in 0..20 {
            let (from, to) = (Arc::<Mailbox>::default(), Arc::<Mailbox>::default());
            let (sender, receiver) = channel::channel(from.clone(), to.clone());
            let edge = OutputEdge::new(0, Partitioning::Forward, 128, 0, vec![sender]);
            let mut left = 300;
            let poll = move || {
                left -= 1;
                if left < 0 {
                    return Polled::Exhausted;
                }
                let mut batch = Batch::default();
                (0..1500).for_each(|_| batch.values.push(b"value"));
                Polled::Batch(batch)
            };
            subtasks.push(world.source_to(poll, vec![edge], from));
            let gate = Gate::new(vec![(0, receiver)], NO_TIMESTAMP);
            subtasks.push(world.subtask(Head::Gate(gate), vec![], to));
        }
        let mailboxes = mailboxes(&subtasks);
        let running = world.start(&workers, subtasks);
        for _ in 0..mailboxes.len() {
            match world.reported.recv_timeout(PATIENCE) {
                Ok(Event::Ended(_)) => {}
                other => panic!("{other:?}"),
            }
        }
        for mailbox in &mailboxes {
            mailbox.send(Control::Terminate);
        }
        running.join();
    }
}

#[test]
fn its_threads_end_with_it() {
    let (world, workers, polls) = (World::new(), workers(2), Arc::default());
    let subtasks = vec![world.source(counting(&polls))];
    let mailboxes = mailboxes(&subtasks);
    let running = world.start(&workers, subtasks);
    let pool = Arc::downgrade(&workers.pool);
    drop(workers);
    let so_far = polls.load(Ordering::SeqCst);
    wait_until("its subtasks go on", || polls.load(Ordering::SeqCst) > so_far + 100);
    world.end(&mailboxes);
    running.join();
    wait_until("its threads end", || pool.strong_count() == 0);
    assert!(matches!(world.reported.recv_timeout(PATIENCE), Ok(Event::Finished(_))));
    let none = world.reported.recv_timeout(Duration::from_millis(1));
    assert!(matches!(none, Err(RecvTimeoutError::Timeout)), "{none:?}");
}
