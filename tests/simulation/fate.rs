//! Faults of a simulation and their moments: a short list of incidents, each tied to the n-th request of some kind.
//!
//! They are tied to requests rather than to times, so that short windows (a rename, the put of `_metadata`) are hit as
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
    OpenFile,
    Read,
    Look,
}

use Place::*;

/// Number of [`REQUESTS`] that every job makes; the others are made by sources that read files.
const WRITING: usize = 14;

/// Places where a request may fail.
const REQUESTS: [Place; 17] = [
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
    OpenFile,
    Read,
    Look,
];

/// An action of the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Take a savepoint; the job goes on.
    Savepoint,
    /// Stop with a savepoint, then start from it at another parallelism.
    Stop,
    /// End the input here, then stop with a savepoint.
    Drain,
    /// Cancel, then start from the last savepoint, or anew where there is none.
    Cancel,
    /// Swap modules.
    Upgrade,
    /// Shut down the host in order.
    Suspend,
}

/// The kind of an incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The host dies before the request, or, with `after`, after it. With `power` the machine loses power, and what is
    /// not durable may be lost.
    Crash { power: bool, after: bool },
    /// The request fails, and so do the next ones of its kind, `times` in all. With `after` they are carried out and
    /// fail nevertheless.
    Fail { times: u32, after: bool },
    /// The disk is full for this time.
    Full { ns: u64 },
    /// Store and disk are out of reach for this time.
    Outage { ns: u64 },
    /// A subtask stands still for this time.
    Stall { ns: u64 },
    /// A guest traps once, without a cause.
    Trap,
    /// The process sleeps, and wakes up beside its successor when that has taken this number of steps.
    Nap { steps: u64 },
    /// The user does something.
    User(Action),
}

/// A fault, and the request at which it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incident {
    place: Place,
    nth: u64,
    what: What,
}

impl Incident {
    /// Name for statistics.
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
            What::Nap { .. } => format!("sleep before {:?}", self.place),
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Go,
    /// The request fails and is not carried out.
    Fail,
    /// The request is carried out and fails.
    FailAfter,
    /// There is no space left.
    NoSpace,
    /// The process has just died; nothing is carried out.
    Crash,
    /// The request is carried out, and then the process dies.
    CrashAfter,
    /// The process sleeps for this number of steps of its successor; then the request is carried out.
    Nap(u64),
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
    /// Names of the incidents that have happened, for statistics.
    happened: Vec<String>,
}

/// The faults of a simulation, shared by all that can fail.
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

/// Draws the incidents of a seed. In some, processes also sleep, and wake up beside their successor
/// (`docs/design/0019-fencing.md`).
pub fn draw(random: &mut Random, reads_files: bool) -> Vec<Incident> {
    let most = *random.pick(&[0, 1, 2, 2, 3, 4, 6, 10]);
    // One that never comes about would hold up those behind it.
    let places = if reads_files {
        &REQUESTS[..]
    } else {
        &REQUESTS[..WRITING]
    };
    let mut incidents: Vec<Incident> = (0..most).map(|_| incident(random, places)).collect();
    for _ in 0..*random.pick(&[0, 0, 1, 1, 2]) {
        let at = random.below(incidents.len() as u64 + 1) as usize;
        incidents.insert(at, nap(random, places));
    }
    incidents
}

/// Draws a sleep, most often where output is prepared and committed, or records are written.
fn nap(random: &mut Random, places: &[Place]) -> Incident {
    let place = match random.below(4) {
        0 => Step,
        1 => *random.pick(places),
        2 => *random.pick(&[Rename, Rename, MakeFile, SyncDir, ListDir]),
        _ => *random.pick(&[PutMetadata, Create, Put, Get, Delete]),
    };
    let most = match place {
        Step => 3_000,
        Get | Put | Write | MakeFile => 40,
        OpenFile | Read | Look => 60,
        _ => 10,
    };
    let steps = *random.pick(&[50, 300, 1_000, 4_000, 15_000]);
    Incident {
        place,
        nth: random.below(most),
        what: What::Nap { steps },
    }
}

fn incident(random: &mut Random, places: &[Place]) -> Incident {
    let ms = |random: &mut Random, first: u64, last: u64| random.range(first, last) * 1_000_000;
    let somewhere = |random: &mut Random| match random.below(5) {
        0 | 1 => (Step, random.below(3000)),
        _ => {
            let place = *random.pick(places);
            let most = match place {
                Put | Write | MakeFile => 30,
                OpenFile | Read | Look => 60,
                _ => 6,
            };
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
    /// Returns true if the wall clock of this seed is never set.
    pub fn has_steady_clock(&self) -> bool {
        self.machine.clock.is_steady()
    }

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

    /// Returns the number of faults so far, or `None` while one lasts.
    pub fn faults(&self) -> Option<u64> {
        let inner = self.inner();
        let now = self.machine.now_ns();
        let lasting = inner.failing.is_some() || now < inner.full_until || now < inner.outage_until;
        (!lasting).then_some(inner.faults)
    }

    /// Counts a fault that happened elsewhere.
    pub fn count_fault(&self) {
        self.inner().faults += 1;
    }

    /// Ends all faults, present and future.
    pub fn calm(&self) {
        let mut inner = self.inner();
        inner.incidents.clear();
        (inner.failing, inner.full_until, inner.outage_until) = (None, 0, 0);
    }

    /// Takes the action that is due of the user.
    pub fn take_action(&self) -> Option<Action> {
        self.inner().action.take()
    }

    /// Takes the names of the incidents since the last call.
    pub fn take_happened(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().happened)
    }

    /// Returns true if the process has just died by a power loss, and clears the flag.
    pub fn take_power_loss(&self) -> bool {
        std::mem::take(&mut self.inner().power)
    }

    /// Decides on a request. `writes`: it needs space. A process that is to die has died when this returns.
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
            What::Nap { steps } => {
                inner.faults += 1;
                return Some(Verdict::Nap(steps));
            }
        }
        inner.faults += 1;
        None
    }
}
