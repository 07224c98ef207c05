//! Gathers the clicks of a user into sessions: a session ends when the user has not clicked for some time.
//!
//! Clicks come in some order of their times. So several sessions of a user can be open at once, and a click can join two
//! of them. A session goes out when the watermark says that no click can belong to it any more, and is then the same for
//! every order of clicks.

use regraft_sdk::{
    Ctx, Declare, MapState, OpenContext, Operator, Port, Record, Result, State, Timer, ValueState, metrics, operator,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A click. Its key is the user.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Click<'a> {
    /// The page that was clicked.
    pub page: &'a str,
}

/// A session that is still open. Times are in milliseconds.
#[derive(State, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub struct Session {
    /// The time of its first click.
    pub start: i64,
    /// The time of its last click.
    pub end: i64,
    /// Number of its clicks.
    pub clicks: u64,
}

/// A session that has ended.
#[derive(Record, Serialize, Deserialize, Debug, PartialEq)]
pub struct Ended<'a> {
    /// The user.
    pub user: &'a str,
    /// As in [`Session`].
    pub start: i64,
    /// As in [`Session`].
    pub end: i64,
    /// As in [`Session`].
    pub clicks: u64,
    /// Number of pages that the user saw for the first time.
    pub new_pages: u64,
}

/// The operator's config.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Time without a click after which a session is over.
    gap_ms: i64,
}

/// Pages are forgotten so long after their first visit, so that users who are gone leave nothing.
const PAGES_TTL: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The operator.
pub struct Sessionize {
    /// Sessions that are open, none of which touches another.
    open: ValueState<Vec<Session>>,
    /// Time at which the user first saw a page.
    pages: MapState<String, i64>,
    gap: Timer,
    ended: Port<Ended<'static>>,
    gap_ms: i64,
}

#[operator]
impl Operator for Sessionize {
    fn declare(d: &mut Declare) -> Self {
        d.key("user");
        d.input("clicks");
        Sessionize {
            open: d.value("open"),
            pages: d.map("pages").ttl(PAGES_TTL),
            gap: d.timer("gap"),
            ended: d.output("sessions"),
            gap_ms: 0,
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        self.gap_ms = cx.config::<Config>()?.gap_ms;
        if self.gap_ms <= 0 {
            return Err(format!("config: gap_ms is {}, expected more than 0", self.gap_ms).into());
        }
        Ok(())
    }

    fn process(&mut self, _user: &str, click: Click<'_>, cx: &mut Ctx) -> Result<()> {
        let (at, gap, gap_ms) = (cx.timestamp(), self.gap, self.gap_ms);
        if at.saturating_add(gap_ms) <= cx.watermark() {
            // Its session may be out already.
            metrics::counter("late", 1);
            return Ok(());
        }
        let first = |first: &mut i64| *first = at.min(*first);
        self.pages.update_or_else(click.page, || at, first);

        let mut session = Session {
            start: at,
            end: at,
            clicks: 1,
        };
        self.open.update(|open| {
            open.retain(|other| {
                let apart = other.end + gap_ms < session.start || session.end + gap_ms < other.start;
                if !apart {
                    cx.cancel(gap, other.end + gap_ms);
                    session.start = session.start.min(other.start);
                    session.end = session.end.max(other.end);
                    session.clicks += other.clicks;
                }
                apart
            });
            open.push(session);
        });
        cx.at(gap, session.end + gap_ms);
        Ok(())
    }

    fn on_timer(&mut self, user: &str, _: Timer, at: i64, cx: &mut Ctx) -> Result<()> {
        let sessions = self.open.remove().unwrap_or_default();
        let is_over = |session: &Session| session.end + self.gap_ms <= at;
        let (over, open): (Vec<_>, Vec<_>) = sessions.into_iter().partition(is_over);
        if !open.is_empty() {
            self.open.set(open);
        }
        for Session { start, end, clicks } in over {
            let mut new_pages = 0;
            self.pages
                .for_each(|_, first| new_pages += u64::from((start..=end).contains(first)));
            let ended = Ended {
                user,
                start,
                end,
                clicks,
                new_pages,
            };
            cx.emit(self.ended, &ended);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Click, Ended, Session, Sessionize};
    use regraft_sdk::testing::{Emitted, Harness, Input, json, take_captured};

    const GAP: i64 = 100;

    fn harness() -> Harness<Sessionize> {
        Harness::new().config(json!({ "gap_ms": GAP }))
    }

    fn clicks(clicks: &[(i64, &str)]) -> Vec<Input> {
        let input = |(at, page): &(i64, &str)| Input::typed("ann", &Click { page }).unwrap().at(*at);
        clicks.iter().map(input).collect()
    }

    /// Start, end, clicks and new pages.
    fn sessions(emitted: &[Emitted]) -> Vec<(i64, i64, u64, u64)> {
        let session = |record: &Emitted| {
            let ended: Ended = record.record().unwrap();
            assert_eq!((ended.user, record.timestamp), ("ann", ended.end + GAP));
            (ended.start, ended.end, ended.clicks, ended.new_pages)
        };
        emitted.iter().map(session).collect()
    }

    #[test]
    fn a_session_ends_after_a_gap() {
        let mut harness = harness();
        assert!(
            harness
                .process(clicks(&[(0, "a"), (50, "b"), (150, "a")]))
                .unwrap()
                .is_empty()
        );
        assert!(harness.watermark(249).unwrap().is_empty());
        assert_eq!(sessions(&harness.watermark(250).unwrap()), [(0, 150, 3, 2)]);
        assert!(harness.state::<String, Vec<Session>>("open").unwrap().is_empty());
        // The pages are known from the session before.
        harness.process(clicks(&[(300, "a"), (301, "c")])).unwrap();
        assert_eq!(sessions(&harness.finish().unwrap()), [(300, 301, 2, 1)]);
    }

    #[test]
    fn the_order_of_clicks_does_not_matter() {
        let all = [(0, "a"), (90, "b"), (180, "a"), (400, "b"), (420, "c"), (700, "a")];
        let expected = [(0, 180, 3, 2), (400, 420, 2, 1), (700, 700, 1, 0)];
        // All orders, by Heap's algorithm.
        let (mut order, mut counts, mut at) = (all, [0; 6], 1);
        loop {
            let mut harness = harness();
            for click in order {
                harness.process(clicks(&[click])).unwrap();
            }
            assert_eq!(sessions(&harness.finish().unwrap()), expected, "{order:?}");
            while at < 6 && counts[at] >= at {
                counts[at] = 0;
                at += 1;
            }
            if at == 6 {
                break;
            }
            order.swap(if at % 2 == 0 { 0 } else { counts[at] }, at);
            counts[at] += 1;
            at = 1;
        }
    }

    #[test]
    fn the_examples_clicks_give_the_expected_sessions() {
        let lines = include_str!("../../input/clicks.tsv").lines().map(Input::value);
        let clicks = Harness::<sessions_parse::parse>::new().process(lines).unwrap();
        let mut harness = Harness::<Sessionize>::new().config(json!({ "gap_ms": 30 * 60_000 }));
        let (mut ended, mut greatest) = (Vec::new(), i64::MIN);
        for click in clicks {
            greatest = greatest.max(click.timestamp);
            let click = Input::keyed(click.key, click.value).at(click.timestamp);
            ended.extend(harness.process([click]).unwrap());
            ended.extend(harness.watermark(greatest - 5_000).unwrap());
        }
        assert!(!ended.is_empty(), "no session has ended before the end of all inputs");
        ended.extend(harness.finish().unwrap());
        let line = |record: &Emitted| {
            let Ended {
                user,
                start,
                end,
                clicks,
                new_pages,
            } = record.record().unwrap();
            format!("{user}\t{start}\t{end}\t{clicks}\t{new_pages}")
        };
        let mut lines: Vec<String> = ended.iter().map(line).collect();
        lines.sort();
        assert_eq!(lines, include_str!("../../expected.tsv").lines().collect::<Vec<_>>());
    }

    #[test]
    fn open_sessions_survive_a_snapshot() {
        let mut first = harness();
        first.process(clicks(&[(0, "a"), (500, "b")])).unwrap();
        assert_eq!(sessions(&first.watermark(300).unwrap()), [(0, 0, 1, 1)]);
        let mut restored = Harness::<Sessionize>::restore(&first.snapshot())
            .unwrap()
            .config(json!({ "gap_ms": GAP }));
        restored.process(clicks(&[(600, "a")])).unwrap();
        assert_eq!(restored.timers::<String>("gap").unwrap(), [(700, "ann".into())]);
        assert_eq!(sessions(&restored.finish().unwrap()), [(500, 600, 2, 1)]);
    }

    #[test]
    fn late_clicks_are_counted() {
        let mut harness = harness();
        harness.watermark(1000).unwrap();
        harness.process(clicks(&[(900, "a"), (901, "a")])).unwrap();
        assert_eq!(take_captured().counters["late"], 1);
        assert_eq!(sessions(&harness.finish().unwrap()), [(901, 901, 1, 1)]);
    }

    #[test]
    fn it_needs_a_gap() {
        let refused = |config| {
            Harness::<Sessionize>::new()
                .config(config)
                .check_open()
                .unwrap_err()
                .message
        };
        assert_eq!(
            refused(json!({ "gap_ms": 0 })),
            "config: gap_ms is 0, expected more than 0"
        );
        assert!(refused(json!({})).contains("missing field `gap_ms`"));
    }
}
