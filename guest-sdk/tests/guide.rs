//! The code that `docs/guide/writing-operators.md` shows: compiled and run here. `tests/tidy.rs` compares the two.

mod sessions {
    use regraft_sdk::{
        Ctx, Declare, MapState, Operator, Port, Record, Result, State, Timer, Typed, ValueState, operator,
    };
    use serde::{Deserialize, Serialize};

    const GAP: i64 = 30 * 60_000;

    #[derive(Record, Serialize, Deserialize)]
    pub struct Click<'a> {
        pub page: &'a str,
        pub bytes: u64,
    }

    #[derive(State, Serialize, Deserialize, Default)]
    pub struct Session {
        pub clicks: u64,
        pub bytes: u64,
        pub last: i64,
    }

    pub struct Sessions {
        session: ValueState<Session>,
        pages: MapState<String, u64>,
        done: Port<Session>,
        gap: Timer,
    }

    impl Operator for Sessions {
        type Key<'a> = &'a str;
        type In<'a> = Typed<Click<'a>>;

        fn declare(d: &mut Declare) -> Self {
            d.key("user");
            Sessions {
                session: d.value("session"),
                pages: d.map("pages"),
                done: d.output("done"),
                gap: d.timer("gap"),
            }
        }

        fn process(&mut self, _user: &str, Typed(click): Typed<Click>, cx: &mut Ctx) -> Result<()> {
            let now = cx.timestamp();
            let last = self.session.update(|session| {
                session.clicks += 1;
                session.bytes += click.bytes;
                std::mem::replace(&mut session.last, now)
            });
            cx.cancel(self.gap, last + GAP);
            cx.at(self.gap, now + GAP);
            self.pages.update(click.page, |visits| *visits += 1);
            Ok(())
        }

        fn on_timer(&mut self, _user: &str, _: Timer, _at: i64, cx: &mut Ctx) -> Result<()> {
            if let Some(session) = self.session.remove() {
                cx.emit(self.done, &session)?;
            }
            Ok(())
        }
    }

    operator!(Sessions);

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
    }
}

mod join {
    use regraft_sdk::{BroadcastState, Ctx, Declare, Inputs, Operator, Port, Record, Result, Text, Typed, operator};
    use serde::{Deserialize, Serialize};

    #[derive(Record, Serialize, Deserialize)]
    pub struct User<'a> {
        pub id: &'a str,
        pub name: &'a str,
    }

    #[derive(Inputs)]
    enum In<'a> {
        Orders(Text<'a>),
        Users(Typed<User<'a>>),
    }

    struct Join {
        names: BroadcastState<String, String>,
        out: Port<str>,
    }

    impl Operator for Join {
        type Key<'a> = ();
        type In<'a> = In<'a>;

        fn declare(d: &mut Declare) -> Self {
            Join {
                names: d.broadcast_state("names"),
                out: d.output("orders"),
            }
        }

        fn process(&mut self, _: (), record: In, cx: &mut Ctx) -> Result<()> {
            match record {
                In::Users(Typed(user)) => self.names.insert(user.id.into(), user.name.into()),
                In::Orders(Text(order)) => {
                    let (id, what) = order.split_once(' ').ok_or("an order is a user and an item")?;
                    let line = self.names.read(id, |name| match name {
                        Some(name) => format!("{name} orders {what}"),
                        None => format!("somebody orders {what}"),
                    });
                    cx.emit(self.out, line.as_str())?;
                }
            }
            Ok(())
        }
    }

    operator!(Join);

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
    use regraft_sdk::{Ctx, Declare, MapState, Operator, Result, Text};

    struct Visits {
        pages: MapState<String, u64>,
    }

    impl Operator for Visits {
        type Key<'a> = &'a str;
        type In<'a> = Text<'a>;

        fn declare(d: &mut Declare) -> Self {
            d.prefetch();
            Visits { pages: d.map("pages") }
        }

        fn prefetch(&mut self, _user: &str, page: Text) -> Result<()> {
            self.pages.prefetch(page.0);
            Ok(())
        }

        fn process(&mut self, _user: &str, page: Text, _cx: &mut Ctx) -> Result<()> {
            self.pages.update(page.0, |visits| *visits += 1);
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
