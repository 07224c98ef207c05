//! Each snapshot with its base must have all positions, and an increment only the changed ones.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::connector::source::{Polled, SourceError, SplitState};

const LISTED_MOST: usize = 64;

/// A source whose splits are set by the test.
#[derive(Debug, Default)]
struct Splits {
    now: BTreeMap<Arc<str>, u64>,
    changed: Vec<Arc<str>>,
}

impl SourceReader for Splits {
    fn poll(&mut self, _: usize, _: u64) -> Result<Polled, SourceError> {
        Ok(Polled::Exhausted)
    }

    fn snapshot(&self) -> Vec<SplitState> {
        self.now.keys().filter_map(|split| self.position(split)).collect()
    }

    fn split_count(&self) -> usize {
        self.now.len()
    }

    fn changed(&mut self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.changed)
    }

    fn position(&self, split: &str) -> Option<SplitState> {
        let offset = self.now.get(split)?;
        Some(SplitState {
            split: split.to_owned(),
            position: json!({ "offset": offset }),
        })
    }
}

impl Splits {
    fn set(&mut self, split: u16, offset: Option<u64>) {
        let name: Arc<str> = format!("{split}").into();
        match offset {
            Some(offset) => self.now.insert(name.clone(), offset),
            None => self.now.remove(&name),
        };
        self.changed.push(name);
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// The split is at an offset, or gone.
    Set(u16, Option<u64>),
    /// Many splits come.
    Grow,
    /// All but a few splits go.
    Shrink,
    /// A snapshot, which is completed, aborted, or left open.
    Snapshot(Option<bool>),
}

fn arb_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u16..200, prop::option::weighted(0.8, 0u64..9)).prop_map(|(split, offset)| Step::Set(split, offset)),
        1 => Just(Step::Grow),
        1 => Just(Step::Shrink),
        4 => prop::option::of(any::<bool>()).prop_map(Step::Snapshot),
    ]
}

type Saved = BTreeMap<String, serde_json::Value>;

fn as_map(splits: Vec<SplitState>) -> Saved {
    splits.into_iter().map(|state| (state.split, state.position)).collect()
}

proptest! {
    #[test]
    fn each_snapshot_with_its_base_has_all_positions(steps in prop::collection::vec(arb_step(), 1..60)) {
        let (mut reader, mut log) = (Splits::default(), PositionLog::new(LISTED_MOST));
        // The complete positions of each round, and the newest completed one.
        let mut rounds: BTreeMap<CheckpointId, Saved> = BTreeMap::new();
        let mut completed = None;
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Set(split, offset) => reader.set(split, offset),
                Step::Grow => (0..100).for_each(|split| reader.set(split, Some(1))),
                Step::Shrink => (5..200).for_each(|split| reader.set(split, None)),
                Step::Snapshot(outcome) => {
                    let id = CheckpointId(at as u64);
                    let expected = as_map(reader.snapshot());
                    let saved = match log.snapshot(&mut reader, id, completed) {
                        Positions::Listed(splits) => {
                            prop_assert!(splits.len() <= LISTED_MOST);
                            as_map(splits)
                        }
                        Positions::Filed { base, splits, removed } => {
                            prop_assert!(base.is_none() || base == completed);
                            let mut saved = base.map(|base| rounds[&base].clone()).unwrap_or_default();
                            for split in removed {
                                saved.remove(&*split);
                            }
                            saved.extend(as_map(splits));
                            saved
                        }
                    };
                    prop_assert_eq!(&saved, &expected);
                    rounds.insert(id, saved);
                    match outcome {
                        Some(true) => {
                            log.completed(id);
                            completed = Some(id);
                        }
                        Some(false) => log.aborted(id),
                        None => {}
                    }
                }
            }
        }
    }
}

#[test]
fn an_increment_has_only_what_changed() {
    let (mut reader, mut log) = (Splits::default(), PositionLog::new(LISTED_MOST));
    (0..1000).for_each(|split| reader.set(split, Some(0)));
    let first = log.snapshot(&mut reader, CheckpointId(1), None);
    assert!(matches!(first, Positions::Filed { base: None, splits, .. } if splits.len() == 1000));
    log.completed(CheckpointId(1));
    reader.set(7, Some(5));
    reader.set(8, None);
    let second = log.snapshot(&mut reader, CheckpointId(2), Some(CheckpointId(1)));
    let Positions::Filed { base, splits, removed } = second else {
        panic!("listed")
    };
    assert_eq!(
        (base, splits.len(), removed),
        (Some(CheckpointId(1)), 1, vec!["8".into()])
    );
    log.completed(CheckpointId(2));
    let third = log.snapshot(&mut reader, CheckpointId(3), Some(CheckpointId(2)));
    assert!(
        matches!(third, Positions::Filed { base: Some(_), splits, removed } if splits.is_empty() && removed.is_empty())
    );
    assert!(log.changed.len() <= 2, "{:?}", log.changed);
}
