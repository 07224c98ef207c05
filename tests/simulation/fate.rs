//! What goes wrong in a simulation, and when: a short list of incidents, each tied to the n-th request of some kind.
//!
//! Tied to requests rather than to moments, so that rare and short windows (a rename, the put of `_metadata`) are hit as
//! often as long ones. One incident is armed at a time; when it has happened, the next one is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::machine::Machine;
use crate::random::Random;

/// A kind of request to the machine, or of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// A step of the machine.
    Step,
    /// A call of a guest.
    Call,
    // Requests to the store.
    PutMetadata,
    Put,
    Create,
    Get,
    List,
    Delete,
    // Requests to the file system.
    MakeFile,
    MakeDir,
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
    ListDir,
}

use Place::*;

/// Places where a request may fail.
const REQUESTS: [Place; 14] = [
    PutMetadata,
    Put,
    Create,
    Get,
    List,
    Delete,
    MakeFile,
    MakeDir,
    Write,
    Sync,
    SyncDir,
    Rename,
    Remove,
    ListDir,
];

/// What the user does at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A savepoint; the job goes on.
    Savepoint,
    /// Stop with a savepoint, then start from it at another parallelism.
    Stop,
    /// End the input here, then stop with a savepoint.
    Drain,
    /// Cancel, then start from the last savepoint, or anew where there is none.
    Cancel,
    /// Swap modules.
    Upgrade,
    /// End the host in order.
    Suspend,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The host dies, before or after the request; with `power` the machine does too, and what is not durable may be lost.
    Crash { power: bool, after: bool },
    /// The request fails, and so do those like it that follow; with `after` it was done all the same.
    Fail { times: u32, after: bool },
    /// The disk is full for so long.
    Full { ns: u64 },
    /// Nothing can be reached for so long.
    Outage { ns: u64 },
    /// A subtask stands still for so long.
    Stall { ns: u64 },
    /// A guest traps once, for no reason.
    Trap,
    /// The user does something.
    User(Action),
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incident {
    place: Place,
    nth: u64,
    what: What,
}

impl Incident {
    /// For those who count.
    fn name(&self) -> String {
        match self.what {
            What::Crash { power, after } => {
                let (kind, when) = (
                    if power { "power loss" } else { "kill" },
                    if after { "after" } else { "before" },
                );
                format!("{kind} {when} {:?}", self.place)
            }
            What::Fail { after, .. } => format!("failure {} {:?}", if after { "after" } else { "of" }, self.place),
            What::User(action) => format!("user {action:?}"),
            What::Full { .. } => "full disk".to_owned(),
            What::Outage { .. } => "outage".to_owned(),
            What::Stall { .. } => "stall".to_owned(),
            What::Trap => "trap".to_owned(),
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// It fails, and was not done.
    Fail,
    /// It is done, and fails.
    FailAfter,
    /// There is no space left.
    NoSpace,
    /// The process has just died: nothing is done.
    Crash,
    /// It is done, and then the process dies.
    CrashAfter,
}

struct Inner {
    incidents: VecDeque<Incident>,
    seen: u64,
    failing: Option<(Place, u32, bool)>,
    full_until: u64,
    outage_until: u64,
    faults: u64,
    action: Option<Action>,
    power: bool,
    which: Random,
    /// What has happened, for those who count.
    happened: Vec<String>,
}

/// What goes wrong, shared by everything that can.
#[derive(Clone)]
pub struct Fate {
    machine: Arc<Machine>,
    inner: Arc<Mutex<Inner>>,
}

impl std::fmt::Debug for Fate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fate")
    }
}

/// Draws the incidents of a seed.
pub fn draw(random: &mut Random) -> Vec<Incident> {
    let most = *random.pick(&[0, 1, 2, 2, 3, 4, 6, 10]);
    (0..most).map(|_| incident(random)).collect()
}

fn incident(random: &mut Random) -> Incident {
    let ms = |random: &mut Random, first: u64, last: u64| random.range(first, last) * 1_000_000;
    let somewhere = |random: &mut Random| match random.below(5) {
        0 | 1 => (Step, random.below(3000)),
        _ => {
            let place = *random.pick(&REQUESTS);
            let most = if matches!(place, Put | Write | MakeFile) { 30 } else { 6 };
            (place, random.below(most))
        }
    };
    let (place, nth) = somewhere(random);
    let request = place != Step;
    let what = match random.below(12) {
        0..=3 => What::Crash {
            power: random.percent(50),
            after: request && random.percent(50),
        },
        4..=6 if request => What::Fail {
            times: *random.pick(&[1, 1, 1, 2, 4, 7]),
            after: random.percent(40),
        },
        4 => What::Full {
            ns: ms(random, 1, 2000),
        },
        5 => What::Outage {
            ns: ms(random, 1, 2000),
        },
        6 | 7 => What::Stall {
            ns: ms(random, 1, 8000),
        },
        8 => {
            return Incident {
                place: Call,
                nth: random.below(60),
                what: What::Trap,
            };
        }
        _ => {
            use Action::*;
            What::User(*random.pick(&[
                Savepoint, Savepoint, Stop, Stop, Stop, Drain, Cancel, Upgrade, Upgrade, Suspend,
            ]))
        }
    };
    Incident { place, nth, what }
}

impl Fate {
    pub fn new(machine: &Arc<Machine>, seed: u64, incidents: Vec<Incident>) -> Self {
        let inner = Inner {
            incidents: incidents.into(),
            seen: 0,
            failing: None,
            full_until: 0,
            outage_until: 0,
            faults: 0,
            action: None,
            power: false,
            which: Random::of(seed, "which"),
            happened: vec![],
        };
        Self {
            machine: machine.clone(),
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many faults there were until now; none while one lasts.
    pub fn faults(&self) -> Option<u64> {
        let inner = self.inner();
        let now = self.machine.now_ns();
        let lasting = inner.failing.is_some() || now < inner.full_until || now < inner.outage_until;
        (!lasting).then_some(inner.faults)
    }

    /// Something has gone wrong elsewhere.
    pub fn count_fault(&self) {
        self.inner().faults += 1;
    }

    /// Nothing goes wrong from now on.
    pub fn calm(&self) {
        let mut inner = self.inner();
        inner.incidents.clear();
        (inner.failing, inner.full_until, inner.outage_until) = (None, 0, 0);
    }

    /// What the user is to do now.
    pub fn take_action(&self) -> Option<Action> {
        self.inner().action.take()
    }

    /// What has happened since this was last asked.
    pub fn take_happened(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().happened)
    }

    /// Whether the process has just died because the power went.
    pub fn take_power_loss(&self) -> bool {
        std::mem::take(&mut self.inner().power)
    }

    /// Something is asked for. `writes`: it needs space. A process that is to die has died when this returns.
    pub fn visit(&self, place: Place, writes: bool, path: &str) -> Verdict {
        let now = self.machine.now_ns();
        let mut inner = self.inner();
        let inner = &mut *inner;
        if place != Step {
            self.machine.trace.line(now, format_args!("{place:?} {path}"));
        }
        if let Some(incident) = inner
            .incidents
            .front()
            .copied()
            .filter(|incident| incident.place == place)
        {
            inner.seen += 1;
            if inner.seen > incident.nth {
                inner.incidents.pop_front();
                inner.seen = 0;
                self.machine
                    .trace
                    .line(now, format_args!("incident {:?}", incident.what));
                inner.happened.push(incident.name());
                if let Some(verdict) = self.happen(inner, incident, now) {
                    return verdict;
                }
            }
        }
        if !matches!(place, Step | Call) {
            if now < inner.outage_until {
                return Verdict::Fail;
            }
            if writes && now < inner.full_until {
                return Verdict::NoSpace;
            }
        }
        if let Some((of, left, after)) = &mut inner.failing
            && *of == place
        {
            let after = *after;
            *left -= 1;
            if *left == 0 {
                inner.failing = None;
            }
            return if after { Verdict::FailAfter } else { Verdict::Fail };
        }
        Verdict::Go
    }

    fn happen(&self, inner: &mut Inner, incident: Incident, now: u64) -> Option<Verdict> {
        match incident.what {
            What::Crash { power, after } => {
                inner.power = power;
                inner.faults += 1;
                if after {
                    return Some(Verdict::CrashAfter);
                }
                self.machine.kill();
                return Some(Verdict::Crash);
            }
            What::Fail { times, after } => inner.failing = Some((incident.place, times, after)),
            What::Full { ns } => inner.full_until = now + ns,
            What::Outage { ns } => inner.outage_until = now + ns,
            What::Stall { ns } => self.machine.stall(inner.which.next(), ns),
            What::User(action) => {
                inner.action = Some(action);
                return None;
            }
            What::Trap => {
                inner.faults += 1;
                return Some(Verdict::Fail);
            }
        }
        inner.faults += 1;
        None
    }
}
