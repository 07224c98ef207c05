//! Watermarks from the event times of records, and idleness, as in Flink's `WatermarksWithIdleness`.
//!
//! Pure but for the clock readings that are passed in. A stream is idle when nothing is expected of it for now; its
//! consumers then go by their other inputs. No watermark ever goes back, however streams become idle and active again.

use std::sync::Arc;

use regraft_model::batch::Batch;
use regraft_model::time::{EventTime, NO_TIMESTAMP};

use crate::graph::job_graph::WatermarkStrategy;

/// While there are records, a watermark is emitted at most this often, in nanoseconds: each one flushes all buffers.
const INTERVAL_NS: u64 = 50_000_000;

/// A statement about a stream, sent between its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// No record with an event time at or below it is still to come.
    Watermark(EventTime),
    /// True: the stream is idle from now on. False: it is active again.
    Idle(bool),
}

/// Combines the watermarks of several streams, each given with its idleness, and returns the watermark and idleness of
/// all of them: the minimum of the active streams, or, if all are idle, the maximum, as Flink's `StatusWatermarkValve`
/// does. Returns `None` for no streams.
pub fn combine(streams: impl Iterator<Item = (EventTime, bool)>) -> Option<(EventTime, bool)> {
    streams.fold(None, |so_far, (watermark, idle)| {
        Some(match so_far {
            None => (watermark, idle),
            Some((least, false)) if !idle => (least.min(watermark), false),
            Some((least, false)) => (least, false),
            Some((_, true)) if !idle => (watermark, false),
            Some((greatest, true)) => (greatest.max(watermark), true),
        })
    })
}

/// Generates the watermarks of one stream: of a source, from all its splits, or of an operator's output.
#[derive(Debug)]
pub struct Watermarks {
    bound_ms: i64,
    idleness_ns: Option<u64>,
    parts: Vec<Part>,
    /// True if the operator's own input is idle.
    input_idle: bool,
    told: EventTime,
    told_idle: bool,
    /// Earliest time of the next watermark, monotonic nanoseconds.
    next_ns: u64,
}

/// A split of a source. The output of an operator is a single part without a split.
#[derive(Debug)]
struct Part {
    split: Option<Arc<str>>,
    greatest: EventTime,
    /// Time of its last record, monotonic nanoseconds.
    last_ns: u64,
    idle: bool,
}

impl Part {
    const fn new(split: Option<Arc<str>>, now_ns: u64) -> Self {
        Self {
            split,
            greatest: NO_TIMESTAMP,
            last_ns: now_ns,
            idle: false,
        }
    }
}

impl Watermarks {
    /// Watermarks of an operator's output. `watermark` is the one it stood at before a restore.
    #[must_use]
    pub fn of_operator(strategy: &WatermarkStrategy, watermark: EventTime, now_ns: u64) -> Self {
        let mut watermarks = Self::of_source(strategy, watermark);
        watermarks.parts.push(Part::new(None, now_ns));
        watermarks
    }

    /// Watermarks of a source that has no split yet.
    #[must_use]
    pub fn of_source(strategy: &WatermarkStrategy, watermark: EventTime) -> Self {
        let nanos = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self {
            bound_ms: i64::try_from(strategy.max_out_of_orderness.as_millis()).unwrap_or(i64::MAX),
            idleness_ns: strategy.idleness.map(nanos),
            parts: vec![],
            input_idle: false,
            told: watermark,
            told_idle: false,
            next_ns: 0,
        }
    }

    /// Returns the last watermark emitted.
    #[must_use]
    pub const fn told(&self) -> EventTime {
        self.told
    }

    /// Sets the splits that may still give records.
    pub fn set_splits(&mut self, splits: Vec<Arc<str>>, now_ns: u64) {
        let same = self.parts.len() == splits.len();
        if same
            && self
                .parts
                .iter()
                .zip(&splits)
                .all(|(part, split)| part.split.as_ref() == Some(split))
        {
            return;
        }
        let mut old = std::mem::take(&mut self.parts);
        for split in splits {
            let known = old.iter().position(|part| part.split.as_ref() == Some(&split));
            let part = known.map(|at| old.swap_remove(at));
            self.parts.push(part.unwrap_or_else(|| Part::new(Some(split), now_ns)));
        }
    }

    /// Notes that records could not be processed for `nanos`: their absence during that time does not count as
    /// idleness.
    pub fn was_blocked(&mut self, nanos: u64) {
        for part in &mut self.parts {
            part.last_ns = part.last_ns.saturating_add(nanos);
        }
    }

    /// Sets the idleness of the stream that an operator reads.
    pub const fn set_input_idle(&mut self, idle: bool) {
        self.input_idle = idle;
    }

    /// Takes in the event times of records: of an operator's output, or of one split of a source.
    pub fn observe(&mut self, batch: &Batch, now_ns: u64) {
        let split = batch.origin.as_ref().and_then(|origin| origin.position(0));
        let of = |part: &&mut Part| match (&part.split, split) {
            (None, _) => true,
            (Some(own), Some((split, _))) => Arc::ptr_eq(own, split) || own == split,
            (Some(_), None) => false,
        };
        let Some(part) = self.parts.iter_mut().find(of) else {
            return;
        };
        part.greatest = batch
            .timestamps
            .iter()
            .fold(part.greatest, |greatest, time| greatest.max(*time));
        part.last_ns = now_ns;
        part.idle = false;
    }

    /// Appends the signals due now to `tell`, in order. `at_rest`: there is nothing to read, so holding a watermark
    /// back gains nothing.
    pub fn advance(&mut self, now_ns: u64, at_rest: bool, tell: &mut Vec<Signal>) {
        if let Some(idleness) = self.idleness_ns {
            for part in &mut self.parts {
                part.idle |= now_ns.saturating_sub(part.last_ns) >= idleness;
            }
        }
        let parts = self.parts.iter().map(|part| (part.greatest, part.idle));
        let (greatest, all_idle) = combine(parts).unwrap_or((NO_TIMESTAMP, true));
        let idle = all_idle || self.input_idle;
        if self.told_idle && !idle {
            self.told_idle = false;
            tell.push(Signal::Idle(false));
        }
        // A record with exactly this time may still come, hence the one less.
        let watermark = greatest.saturating_sub(self.bound_ms).saturating_sub(1);
        if watermark > self.told && (at_rest || idle || now_ns >= self.next_ns) {
            self.told = watermark;
            self.next_ns = now_ns + INTERVAL_NS;
            tell.push(Signal::Watermark(watermark));
        }
        if idle && !self.told_idle {
            self.told_idle = true;
            tell.push(Signal::Idle(true));
        }
    }

    /// Returns the earliest time at which an active part becomes idle if no record comes, in monotonic nanoseconds.
    #[must_use]
    pub fn idle_at_ns(&self) -> Option<u64> {
        let idleness = self.idleness_ns?;
        let active = self.parts.iter().filter(|part| !part.idle);
        active.map(|part| part.last_ns.saturating_add(idleness)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use regraft_model::origin::Origin;
    use std::time::Duration;

    const SECOND_NS: u64 = 1_000_000_000;

    fn strategy(bound_ms: u64, idleness_s: Option<u64>) -> WatermarkStrategy {
        WatermarkStrategy {
            max_out_of_orderness: Duration::from_millis(bound_ms),
            idleness: idleness_s.map(Duration::from_secs),
            timestamp: None,
        }
    }

    fn batch(split: &str, times: &[i64]) -> Batch {
        let mut batch = Batch::default();
        for time in times {
            batch.values.push(b"");
            batch.timestamps.push(*time);
        }
        batch.origin = Some(Origin::sequence(split.into(), 0));
        batch
    }

    fn told(watermarks: &mut Watermarks, now_ns: u64) -> Vec<Signal> {
        let mut tell = vec![];
        watermarks.advance(now_ns, true, &mut tell);
        tell
    }

    #[test]
    fn a_watermark_leaves_room_for_what_may_be_late() {
        let mut watermarks = Watermarks::of_operator(&strategy(10, None), NO_TIMESTAMP, 0);
        assert_eq!(told(&mut watermarks, 0), []);
        watermarks.observe(&batch("a", &[100, 250, 170]), 0);
        assert_eq!(told(&mut watermarks, 1), [Signal::Watermark(239)]);
        watermarks.observe(&batch("a", &[240]), 2);
        assert_eq!(told(&mut watermarks, 2), [], "it does not go back");
    }

    #[test]
    fn while_there_are_records_it_is_told_now_and_then() {
        let mut watermarks = Watermarks::of_operator(&strategy(0, None), NO_TIMESTAMP, 0);
        let mut count = 0;
        for i in 0..1000 {
            watermarks.observe(&batch("a", &[i]), i as u64 * 1_000_000);
            let mut tell = vec![];
            watermarks.advance(i as u64 * 1_000_000, false, &mut tell);
            count += tell.len();
        }
        assert_eq!(count, 20);
    }

    #[test]
    fn a_source_waits_for_all_its_splits() {
        let mut watermarks = Watermarks::of_source(&strategy(0, None), NO_TIMESTAMP);
        watermarks.set_splits(vec!["a".into(), "b".into()], 0);
        watermarks.observe(&batch("a", &[100]), 0);
        assert_eq!(told(&mut watermarks, 0), []);
        watermarks.observe(&batch("b", &[50]), 0);
        assert_eq!(told(&mut watermarks, 0), [Signal::Watermark(49)]);
        watermarks.set_splits(vec!["a".into()], 0);
        assert_eq!(
            told(&mut watermarks, 0),
            [Signal::Watermark(99)],
            "b is read to its end"
        );
    }

    #[test]
    fn an_idle_split_holds_nobody_back_and_a_source_without_any_is_idle() {
        let mut watermarks = Watermarks::of_source(&strategy(0, Some(30)), 7);
        assert_eq!(told(&mut watermarks, 0), [Signal::Idle(true)]);
        watermarks.set_splits(vec!["a".into(), "b".into()], 0);
        assert_eq!(told(&mut watermarks, 0), [Signal::Idle(false)]);
        watermarks.observe(&batch("b", &[50]), 0);
        watermarks.observe(&batch("a", &[100]), 20 * SECOND_NS);
        assert_eq!(told(&mut watermarks, 20 * SECOND_NS), [Signal::Watermark(49)]);
        assert_eq!(watermarks.idle_at_ns(), Some(30 * SECOND_NS));
        assert_eq!(told(&mut watermarks, 30 * SECOND_NS), [Signal::Watermark(99)]);
        assert_eq!(told(&mut watermarks, 50 * SECOND_NS), [Signal::Idle(true)]);
        assert_eq!(watermarks.idle_at_ns(), None);
        watermarks.observe(&batch("b", &[60]), 51 * SECOND_NS);
        assert_eq!(told(&mut watermarks, 51 * SECOND_NS), [Signal::Idle(false)], "and late");
        watermarks.observe(&batch("b", &[160]), 52 * SECOND_NS);
        assert_eq!(told(&mut watermarks, 52 * SECOND_NS), [Signal::Watermark(159)]);
    }

    #[test]
    fn an_operator_is_idle_with_its_input() {
        let mut watermarks = Watermarks::of_operator(&strategy(0, None), NO_TIMESTAMP, 0);
        watermarks.observe(&batch("a", &[5]), 0);
        watermarks.set_input_idle(true);
        assert_eq!(told(&mut watermarks, 0), [Signal::Watermark(4), Signal::Idle(true)]);
        watermarks.set_input_idle(false);
        assert_eq!(told(&mut watermarks, 0), [Signal::Idle(false)]);
    }

    proptest! {
        #[test]
        fn what_is_told_only_rises_and_keeps_its_word(
            steps in prop::collection::vec((0usize..3, 0i64..100, 0u64..5), 1..60),
            bound in 0u64..20,
        ) {
            let mut watermarks = Watermarks::of_source(&strategy(bound, None), NO_TIMESTAMP);
            let splits = ["a", "b", "c"];
            watermarks.set_splits(splits.map(Arc::from).to_vec(), 0);
            let mut greatest = [NO_TIMESTAMP; 3];
            let (mut now, mut last) = (0, NO_TIMESTAMP);
            for (split, time, pause) in steps {
                // Records of a split are out of order by the bound at most.
                let time = time.max(greatest[split].saturating_sub(bound as i64));
                greatest[split] = greatest[split].max(time);
                now += pause * SECOND_NS;
                prop_assert!(time > last, "{time} was still to come at watermark {last}");
                watermarks.observe(&batch(splits[split], &[time]), now);
                let mut tell = vec![];
                watermarks.advance(now, false, &mut tell);
                for signal in tell {
                    let Signal::Watermark(watermark) = signal else { panic!("idle without idleness") };
                    prop_assert!(watermark > last);
                    last = watermark;
                }
            }
        }

        #[test]
        fn the_least_of_the_active_ones_counts(streams in prop::collection::vec((0i64..9, any::<bool>()), 0..6)) {
            let active: Vec<i64> = streams.iter().filter(|(_, idle)| !idle).map(|(w, _)| *w).collect();
            let all = streams.iter().map(|(w, _)| *w);
            let expected = match active.iter().min() {
                Some(least) => Some((*least, false)),
                None => all.max().map(|greatest| (greatest, true)),
            };
            prop_assert_eq!(combine(streams.iter().copied()), expected);
        }
    }
}
