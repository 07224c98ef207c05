//! Order in which the jobs of an earlier process are started. Pure.
//!
//! A start may take the whole process with it: a job whose state needs more memory than there is gets it killed. From outside
//! that looks the same as a `kill -9` that has nothing to do with the job. So each start leaves a durable note while it is
//! under way, and after a process that has died:
//!
//! - Jobs without a note start first, one after another.
//! - Jobs with a note were starting. They follow, each of them alone: nothing else is starting meanwhile.
//! - If a single job has a note, it was alone when the process died. After [`ALONE_MAX`] times in a row it is set aside, and
//!   waits before it is tried again; longer each time, but never for good.
//!
//! So a job that no host can start keeps the others down for a few starts and no longer, and a healthy one that was unlucky
//! comes back by itself.

use std::cmp::Reverse;
use std::time::Duration;

/// Times in a row that the process may die while a job is alone in its start, before the job is set aside.
pub const ALONE_MAX: u32 = 3;

/// Waits of a job that is set aside, one for each further time; the last one holds for all that follow.
const WAITS: [Duration; 4] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
];

/// Durable note of a job's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StartNote {
    /// True while the start is under way; false while the job is set aside.
    pub starting: bool,
    /// Times in a row that the process died while this job alone was starting.
    pub deaths: u32,
}

/// End of the process that ran the jobs before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastEnd {
    /// It suspended its jobs, or there was none.
    Clean,
    /// It was killed, or has died.
    Died,
}

/// Turn of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// At once, beside others.
    AtOnce,
    /// After the job before it has started.
    InTurn,
    /// While nothing else is starting, after this wait.
    Alone(Duration),
}

/// A job with its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned<J> {
    /// The job.
    pub job: J,
    /// Its turn.
    pub turn: Turn,
    /// Times in a row that the process died while this job alone was starting.
    pub deaths: u32,
}

impl<J> Planned<J> {
    /// Returns true if the job waits since its start has taken the process with it too often.
    #[must_use]
    pub const fn is_set_aside(&self) -> bool {
        self.deaths >= ALONE_MAX
    }
}

/// Returns the jobs in the order in which they are started. `jobs` are in order of submission.
#[must_use]
pub fn plan<J>(jobs: Vec<(J, Option<StartNote>)>, last: LastEnd) -> Vec<Planned<J>> {
    let is_starting = |note: &Option<StartNote>| note.is_some_and(|note| note.starting);
    let was_alone = jobs.iter().filter(|(_, note)| is_starting(note)).count() == 1;
    let turn = |(job, note): (J, Option<StartNote>)| {
        let Some(StartNote { starting, deaths }) = note else {
            let turn = match last {
                LastEnd::Clean => Turn::AtOnce,
                LastEnd::Died => Turn::InTurn,
            };
            return Planned { job, turn, deaths: 0 };
        };
        let guilty = last == LastEnd::Died && starting && was_alone;
        let deaths = if guilty { deaths.saturating_add(1) } else { deaths };
        let wait = match last {
            // The user has started the host anew.
            LastEnd::Clean => Duration::ZERO,
            LastEnd::Died => wait(deaths),
        };
        Planned {
            job,
            turn: Turn::Alone(wait),
            deaths,
        }
    };
    let mut planned: Vec<Planned<J>> = jobs.into_iter().map(turn).collect();
    planned.sort_by_key(|planned| (planned.turn, Reverse(ALONE_MAX.saturating_sub(planned.deaths))));
    planned
}

/// Returns the wait of a job before it is started.
#[must_use]
pub fn wait(deaths: u32) -> Duration {
    let Some(further) = deaths.checked_sub(ALONE_MAX) else {
        return Duration::ZERO;
    };
    let at = (further as usize).min(WAITS.len() - 1);
    WAITS[at]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const STARTING: fn(u32) -> Option<StartNote> = |deaths| Some(StartNote { starting: true, deaths });

    fn planned(jobs: &[(u32, Option<StartNote>)], last: LastEnd) -> Vec<(u32, Turn, u32)> {
        let planned = plan(jobs.to_vec(), last).into_iter();
        planned
            .map(|planned| (planned.job, planned.turn, planned.deaths))
            .collect()
    }

    #[test]
    fn those_that_were_starting_are_last_and_alone() {
        let jobs = [(1, STARTING(0)), (2, None), (3, STARTING(1)), (4, None)];
        let alone = Turn::Alone(Duration::ZERO);
        assert_eq!(
            planned(&jobs, LastEnd::Died),
            [(2, Turn::InTurn, 0), (4, Turn::InTurn, 0), (1, alone, 0), (3, alone, 1)]
        );
        assert_eq!(planned(&jobs, LastEnd::Clean)[0], (2, Turn::AtOnce, 0));
    }

    #[test]
    fn a_job_that_was_alone_three_times_waits_longer_and_longer() {
        let turns: Vec<u64> = (0..7)
            .map(
                |deaths| match planned(&[(1, STARTING(deaths)), (2, None)], LastEnd::Died)[1] {
                    (1, Turn::Alone(wait), counted) if counted == deaths + 1 => wait.as_secs(),
                    other => panic!("{other:?}"),
                },
            )
            .collect();
        assert_eq!(turns, [0, 0, 10, 60, 300, 900, 900]);
        let aside = StartNote {
            starting: false,
            deaths: 4,
        };
        // It did not start, so this death is not its own.
        let jobs = [(1, Some(aside)), (2, STARTING(0))];
        assert_eq!(
            planned(&jobs, LastEnd::Died),
            [(2, Turn::Alone(Duration::ZERO), 1), (1, Turn::Alone(WAITS[1]), 4)]
        );
        let again = [(2, Turn::Alone(Duration::ZERO), 0), (1, Turn::Alone(Duration::ZERO), 4)];
        assert_eq!(
            planned(&jobs, LastEnd::Clean),
            again,
            "a host started anew tries at once"
        );
    }

    /// A host with jobs of which some take the process with them whenever they start.
    struct World {
        bad: BTreeSet<u32>,
        notes: BTreeMap<u32, Option<StartNote>>,
        last: LastEnd,
    }

    impl World {
        /// Starts the host and lets it run for so long, unless a start ends it. `settles`: time after which a start is over.
        /// Returns the jobs that run at the end, or `None` if the process has died.
        fn run(&mut self, time: Duration, settles: Duration) -> Option<BTreeSet<u32>> {
            let (mut now, mut running) = (Duration::ZERO, BTreeSet::new());
            let jobs = self.notes.iter().map(|(job, note)| (*job, *note)).collect();
            let planned = plan(jobs, std::mem::replace(&mut self.last, LastEnd::Died));
            for planned in &planned {
                let aside = StartNote {
                    starting: false,
                    deaths: planned.deaths,
                };
                let has_note = matches!(planned.turn, Turn::Alone(_));
                self.notes.insert(planned.job, has_note.then_some(aside));
            }
            for Planned { job, turn, deaths } in planned {
                if let Turn::Alone(wait) = turn {
                    // Nothing else is starting.
                    now = now.max(wait) + settles;
                    for note in self.notes.values_mut() {
                        *note = note.filter(|note| !note.starting);
                    }
                }
                if now > time {
                    break;
                }
                self.notes.insert(job, STARTING(deaths));
                if self.bad.contains(&job) {
                    return None;
                }
                running.insert(job);
            }
            if now + settles <= time {
                for job in &running {
                    self.notes.insert(*job, None);
                }
            }
            Some(running)
        }
    }

    proptest! {
        #[test]
        fn healthy_jobs_all_run_in_the_end_beside_any_that_kill_the_process(
            jobs in 1_u32..8,
            bad in prop::collection::btree_set(0_u32..8, 0..4),
            kills in prop::collection::vec(0_u64..15, 0..12),
            clean in any::<bool>(),
        ) {
            let notes = (0..jobs).map(|job| (job, None)).collect();
            let last = if clean { LastEnd::Clean } else { LastEnd::Died };
            let mut world = World { bad: bad.into_iter().filter(|job| *job < jobs).collect(), notes, last };
            let settles = Duration::from_secs(1);
            // Somebody kills the process now and then.
            for seconds in kills {
                let _ = world.run(Duration::from_secs(seconds), settles);
            }
            let healthy: BTreeSet<u32> = (0..jobs).filter(|job| !world.bad.contains(job)).collect();
            // Nobody kills it any more: within a few starts all healthy jobs run, and stay up for a while.
            let up = (0..40).find_map(|_| world.run(Duration::from_secs(9), settles).filter(|up| up.is_superset(&healthy)));
            prop_assert!(up.is_some(), "{:?}", world.notes);
        }

        #[test]
        fn every_job_has_its_turn_and_none_is_given_up(
            notes in prop::collection::vec(prop::option::of((any::<bool>(), 0_u32..9)), 0..12),
            died in any::<bool>(),
        ) {
            let note = |(starting, deaths)| StartNote { starting, deaths };
            let jobs: Vec<_> = notes.iter().copied().map(|found| found.map(note)).enumerate().collect();
            let last = if died { LastEnd::Died } else { LastEnd::Clean };
            let planned = plan(jobs, last);
            let all: BTreeSet<usize> = planned.iter().map(|planned| planned.job).collect();
            prop_assert_eq!(all.len(), notes.len());
            for planned in &planned {
                if let Turn::Alone(wait) = planned.turn {
                    prop_assert!(wait <= Duration::from_secs(900));
                    prop_assert!(wait.is_zero() || planned.is_set_aside());
                }
            }
            // No job that starts for certain stands behind one that waits.
            let waits = |planned: &Planned<usize>| matches!(planned.turn, Turn::Alone(wait) if !wait.is_zero());
            prop_assert!(planned.is_sorted_by_key(waits));
        }
    }
}
