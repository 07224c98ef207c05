//! The code that `docs/guide/writing-operators.md` shows: compiled and run here. `tests/tidy.rs` compares the two.

mod counts {
    use regraft_sdk::{Any, Ctx, Declare, Operator, Port, Record, Result, ValueState, operator};
    use serde::Serialize;

    #[derive(Record, Serialize)]
    struct Counted<'a> {
        word: &'a str,
        count: u64,
    }

    struct Count {
        count: ValueState<u64>,
        out: Port<Counted<'static>>,
    }

    #[operator]
    impl Operator for Count {
        fn declare(d: &mut Declare) -> Self {
            d.key("word");
            Count {
                count: d.value("count"),
                out: d.output("counts"),
            }
        }

        fn process(&mut self, word: &str, _: Any<'_>, cx: &mut Ctx) -> Result<()> {
            let count = self.count.update(|count| {
                *count += 1;
                *count
            });
            cx.emit(self.out, &Counted { word, count });
            Ok(())
        }
    }

    #[test]
    fn it_counts() {
        use regraft_sdk::testing::{Harness, Input};

        let mut harness = Harness::<Count>::new();
        let emitted = harness
            .process(["a", "b", "a"].map(|word| Input::keyed(word, "")))
            .unwrap();
        assert_eq!(emitted.len(), 3);
        assert_eq!(harness.state::<String, u64>("count").unwrap()["a"], 2);
    }
}

mod words {
    use regraft_sdk::{Ctx, Port, operator};

    #[operator]
    fn split(line: &str, #[key = "word"] words: Port<str, str>, cx: &mut Ctx) {
        for word in line.split_whitespace() {
            cx.emit(words, "").key(word);
        }
    }

    #[test]
    fn words_become_keys() {
        use regraft_sdk::testing::{Harness, Input};

        let emitted = Harness::<split>::new().process([Input::value("to be")]).unwrap();
        assert_eq!(emitted[1].key_text().unwrap(), "be");
    }
}

mod sessions {
    use regraft_sdk::{Ctx, Declare, MapState, Operator, Port, Record, Result, State, Timer, ValueState, operator};
    use serde::{Deserialize, Serialize};

    const GAP: i64 = 30 * 60_000;

    #[derive(Record, Serialize, Deserialize)]
    pub struct Click<'a> {
        pub page: &'a str,
        pub bytes: u64,
    }

    #[derive(State, Serialize, Deserialize, Clone)]
    pub struct Session {
        pub start: i64,
        pub end: i64,
        pub clicks: u64,
        pub bytes: u64,
    }

    pub struct Sessions {
        open: ValueState<Vec<Session>>,
        pages: MapState<String, u64>,
        done: Port<Session>,
        gap: Timer,
    }

    #[operator]
    impl Operator for Sessions {
        fn declare(d: &mut Declare) -> Self {
            d.key("user");
            Sessions {
                open: d.value("open"),
                pages: d.map("pages"),
                done: d.output("done"),
                gap: d.timer("gap"),
            }
        }

        fn process(&mut self, _user: &str, click: Click<'_>, cx: &mut Ctx) -> Result<()> {
            let (at, gap) = (cx.timestamp(), self.gap);
            let mut session = Session {
                start: at,
                end: at,
                clicks: 1,
                bytes: click.bytes,
            };
            self.open.update(|open| {
                open.retain(|other| {
                    let is_apart = other.end + GAP < session.start || session.end + GAP < other.start;
                    if !is_apart {
                        cx.cancel(gap, other.end + GAP);
                        session.start = session.start.min(other.start);
                        session.end = session.end.max(other.end);
                        session.clicks += other.clicks;
                        session.bytes += other.bytes;
                    }
                    is_apart
                });
                open.push(session.clone());
            });
            cx.at(gap, session.end + GAP);
            self.pages.update(click.page, |visits| *visits += 1);
            Ok(())
        }

        fn on_timer(&mut self, _user: &str, _: Timer, at: i64, cx: &mut Ctx) -> Result<()> {
            let (over, open): (Vec<_>, Vec<_>) =
                self.open.get_or_default().into_iter().partition(|s| s.end + GAP <= at);
            if open.is_empty() {
                self.open.clear();
            } else {
                self.open.set(open);
            }
            for session in over {
                cx.emit(self.done, &session);
            }
            Ok(())
        }
    }

    #[cfg(test)]
    mod tests {
        use super::{Click, Session, Sessions};
        use regraft_sdk::testing::{Harness, Input};

        #[test]
        fn a_session_ends_when_nobody_clicks() {
            let click = |at| Input::typed("ann", &Click { page: "/", bytes: 7 }).unwrap().at(at);
            let mut harness = Harness::<Sessions>::new();
            harness.process([click(0), click(60_000)]).unwrap();
            assert!(harness.watermark(1_859_999).unwrap().is_empty());

            let mut restored = Harness::<Sessions>::restore(&harness.snapshot()).unwrap();
            let emitted = restored.watermark(1_860_000).unwrap();
            assert_eq!(emitted[0].key_text().unwrap(), "ann");
            assert_eq!(emitted[0].record::<Session>().unwrap().clicks, 2);
            let pages = restored.map_state::<String, String, u64>("pages").unwrap();
            assert_eq!(pages["ann"]["/"], 2);
        }

        /// A backlog comes faster than watermarks: clicks of many sessions, in any order, before any timer fires.
        #[test]
        fn a_backlog_gives_the_same_sessions() {
            let click = |at| Input::typed("ann", &Click { page: "/", bytes: 1 }).unwrap().at(at);
            let mut harness = Harness::<Sessions>::new();
            // 1,016 sessions of three clicks, two hours apart; a fourth one joins the first two of its session.
            let starts = (0..1_016).map(|number| number * 7_200_000);
            for start in starts.clone().rev() {
                let clicks = [start, start + 2_400_000, start + 3_000_000, start + 1_200_000];
                harness.process(clicks.map(click)).unwrap();
            }
            let ended = harness.finish().unwrap();
            let mut sessions: Vec<_> = ended
                .iter()
                .map(|session| session.record::<Session>().unwrap())
                .collect();
            sessions.sort_by_key(|session| session.start);
            let found: Vec<_> = sessions.iter().map(|s| (s.start, s.end, s.clicks, s.bytes)).collect();
            let expected: Vec<_> = starts.map(|start| (start, start + 3_000_000, 4, 4)).collect();
            assert_eq!(found, expected);
        }
    }
}

mod join {
    use regraft_sdk::{BroadcastState, Ctx, Declare, Inputs, Operator, Port, Record, Result, operator};
    use serde::{Deserialize, Serialize};

    #[derive(Record, Serialize, Deserialize)]
    pub struct User<'a> {
        pub id: &'a str,
        pub name: &'a str,
    }

    #[derive(Inputs)]
    enum In<'a> {
        Orders(&'a str),
        Users(User<'a>),
    }

    struct Join {
        names: BroadcastState<String, String>,
        out: Port<str>,
    }

    #[operator]
    impl Operator for Join {
        fn declare(d: &mut Declare) -> Self {
            Join {
                names: d.broadcast_state("names"),
                out: d.output("orders"),
            }
        }

        fn process(&mut self, record: In<'_>, cx: &mut Ctx) -> Result<()> {
            match record {
                In::Users(user) => self.names.insert(user.id.into(), user.name.into()),
                In::Orders(order) => {
                    let (id, what) = order.split_once(' ').ok_or("an order is a user and an item")?;
                    let line = self.names.read(id, |name| match name {
                        Some(name) => format!("{name} orders {what}"),
                        None => format!("somebody orders {what}"),
                    });
                    cx.emit(self.out, line.as_str());
                }
            }
            Ok(())
        }
    }

    #[test]
    fn orders_get_names() {
        use regraft_sdk::testing::{Harness, Input};

        let mut harness = Harness::<Join>::new();
        let ann = User { id: "7", name: "Ann" };
        harness
            .process_input("users", [Input::typed("", &ann).unwrap()])
            .unwrap();
        let emitted = harness
            .process_input("orders", [Input::value("7 tea"), Input::value("8 milk")])
            .unwrap();
        assert_eq!(emitted[0].text().unwrap(), "Ann orders tea");
        assert_eq!(emitted[1].text().unwrap(), "somebody orders milk");
        assert_eq!(
            harness.process([Input::value("tea")]).unwrap_err().message,
            "an order is a user and an item"
        );
    }
}

mod prefetch {
    use regraft_sdk::testing::{Harness, Input};
    use regraft_sdk::{Ctx, Declare, MapState, Operator, Result, operator};

    struct Visits {
        pages: MapState<String, u64>,
    }

    #[operator]
    impl Operator for Visits {
        fn declare(d: &mut Declare) -> Self {
            Visits { pages: d.map("pages") }
        }

        fn prefetch(&mut self, _user: &str, page: &str) -> Result<()> {
            self.pages.prefetch(page);
            Ok(())
        }

        fn process(&mut self, _user: &str, page: &str, _cx: &mut Ctx) -> Result<()> {
            self.pages.update(page, |visits| *visits += 1);
            Ok(())
        }
    }

    #[test]
    fn it_counts() {
        let mut harness = Harness::<Visits>::new();
        for _ in 0..2 {
            let visits = ["a", "b", "a"].map(|page| Input::keyed("ann", page));
            harness.process(visits).unwrap();
        }
        let pages = harness.map_state::<String, String, u64>("pages").unwrap();
        assert_eq!(pages["ann"]["a"], 4);
    }
}
