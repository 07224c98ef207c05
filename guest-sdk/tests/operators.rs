//! Holds the SDK to what it promises of timers, several inputs, operator state and private state.

use regraft_sdk::native::{self, Batch, Instance, Keyed, OpenRecord, StateItems, TimerBatch};
use regraft_sdk::testing::{Emitted, Harness, Input};
use regraft_sdk::{
    Any, BroadcastState, Clock, Ctx, Declare, Inputs, NO_TIMESTAMP, OpenContext, Operator, OperatorList, Port, Record,
    Result, Timer, ValueState, operator,
};
use serde::{Deserialize, Serialize};

fn texts(emitted: &[Emitted]) -> Vec<&str> {
    emitted.iter().map(|record| record.text().unwrap()).collect()
}

/// Sets and cancels timers as the records say: `gap+10`, `gap-10`, `alarm+5`.
struct Timers {
    gap: Timer,
    alarm: Timer,
    fired: ValueState<u64>,
    out: Port<str>,
    clock: Clock,
}

#[operator]
impl Operator for Timers {
    fn declare(d: &mut Declare) -> Self {
        Timers {
            gap: d.timer("gap"),
            alarm: d.processing_timer("alarm"),
            fired: d.value("fired"),
            out: d.output("out"),
            clock: d.clock(),
        }
    }

    fn process(&mut self, _: &str, line: &str, cx: &mut Ctx) -> Result<()> {
        for word in line.split(' ') {
            let at = |sign: char| word.split_once(sign).map(|(name, time)| (name, time.parse().unwrap()));
            match (at('+'), at('-')) {
                (Some(("gap", time)), _) => cx.at(self.gap, time),
                (Some((_, time)), _) => cx.at(self.alarm, time),
                (_, Some((_, time))) => cx.cancel(self.gap, time),
                _ => return Err("what?".into()),
            }
        }
        Ok(())
    }

    fn on_timer(&mut self, key: &str, timer: Timer, at: i64, cx: &mut Ctx) -> Result<()> {
        let fired = self.fired.update(|fired| {
            *fired += 1;
            *fired
        });
        if at == 66 {
            return Err("not at 66".into());
        }
        if at == 50 {
            cx.at(self.gap, 51);
        }
        if at >= 1000 {
            cx.at(self.gap, at + 1);
        }
        let name = if timer == self.gap { "gap" } else { "alarm" };
        let text = format!("{name} {key} {at} {fired} {} {}", cx.watermark(), cx.now(self.clock));
        cx.emit(self.out, text.as_str());
        Ok(())
    }

    fn on_watermark(&mut self, watermark: i64, cx: &mut Ctx) -> Result<()> {
        if watermark == 7 {
            cx.at(self.gap, 8);
        }
        Ok(())
    }
}

#[test]
fn timers_fire_in_order_each_once() {
    let mut harness = Harness::<Timers>::new();
    let told = [
        ("b", "gap+30 gap+10"),
        ("a", "gap+10 gap+20 gap-20 gap+20 gap+20"),
        ("c", "gap+15 gap-15"),
    ];
    let told = told.map(|(key, line)| Input::keyed(key, line).at(1));
    assert!(harness.process(told).unwrap().is_empty());
    assert_eq!(
        harness.timers::<String>("gap").unwrap(),
        [(10, "a".into()), (10, "b".into()), (20, "a".into()), (30, "b".into())]
    );
    let fired = harness.watermark(20).unwrap();
    assert_eq!(texts(&fired), ["gap a 10 1 20 0", "gap b 10 1 20 0", "gap a 20 2 20 0"]);
    assert_eq!((fired[2].timestamp, fired[2].key_text().unwrap()), (20, "a"));
    assert!(harness.watermark(29).unwrap().is_empty());

    // What is left is in the snapshot, and one that is due already fires after the call that sets it.
    let mut restored = Harness::<Timers>::restore(&harness.snapshot()).unwrap();
    let fired = restored.process([Input::keyed("d", "gap+29 gap+50")]).unwrap();
    assert_eq!(texts(&fired), ["gap d 29 1 29 0"]);
    let fired = restored.finish().unwrap();
    let end = i64::MAX;
    assert_eq!(
        texts(&fired),
        [
            format!("gap b 30 2 {end} 0"),
            format!("gap d 50 2 {end} 0"),
            format!("gap d 51 3 {end} 0")
        ]
    );
    assert_eq!(restored.state::<String, u64>("fired").unwrap()["d"], 3);
}

#[test]
fn processing_timers_go_by_the_clock() {
    let mut harness = Harness::<Timers>::new();
    harness.set_now(100);
    harness.process([Input::keyed("a", "alarm+105 gap+105")]).unwrap();
    assert!(harness.advance(104).unwrap().is_empty());
    let fired = harness.advance(110).unwrap();
    assert_eq!(texts(&fired), [format!("alarm a 105 1 {} 110", i64::MIN)]);
    assert_eq!(fired[0].timestamp, NO_TIMESTAMP);
    assert_eq!(harness.timers::<String>("gap").unwrap().len(), 1);
}

#[test]
fn a_failing_timer_is_named_and_nothing_of_the_call_is_kept() {
    let mut harness = Harness::<Timers>::new();
    harness
        .process([Input::keyed("a", "gap+60"), Input::keyed("b", "gap+66")])
        .unwrap();
    let before = harness.snapshot();
    let failure = harness.watermark(70).unwrap_err();
    assert_eq!((failure.row, failure.message.as_str()), (Some(1), "not at 66"));
    assert!(harness.state::<String, u64>("fired").unwrap().is_empty());
    assert_eq!(harness.timers::<String>("gap").unwrap().len(), 2);
    assert_ne!(harness.snapshot(), before, "the watermark has advanced");
}

#[test]
fn timers_without_end_are_named() {
    let mut harness = Harness::<Timers>::new();
    harness.process([Input::keyed("a", "gap+1000 alarm+20")]).unwrap();
    let failure = harness.finish().unwrap_err();
    assert_eq!(
        failure.message,
        "timers have set themselves again 100000 times: \"gap\" at the end of the input: set none of them in `on_timer` once `cx.watermark()` is `i64::MAX`"
    );
}

#[test]
fn a_timer_needs_a_key_and_a_declaration() {
    let failure = Harness::<Timers>::new().watermark(7).unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (
            None,
            "a timer was set or cancelled where no key is at hand: that can be in `process`, `on_timer` and `finish` only"
        )
    );

    let mut instance = open::<Timers>();
    let timers = TimerBatch {
        key_index: vec![0],
        timer_ids: vec![2],
        times: vec![1],
    };
    let failure = instance.on_timers(native::header(), timers, NO_KEYS).unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (None, "timer number 2 fires, and the operator declares 2 timers")
    );
}

const NO_KEYS: Keyed = Keyed {
    key_data: vec![],
    key_ends: vec![],
    cells: vec![],
};

fn open<O: Operator>() -> Instance<O> {
    let context = OpenRecord {
        uid: "it".into(),
        subtask: 1,
        parallelism: 2,
        max_parallelism: 128,
    };
    let header = native::Header {
        watermark: 5,
        ..native::header()
    };
    Instance::open(header, &context, "null", &[]).unwrap()
}

fn batch(input: u32, values: &[&[u8]]) -> Batch {
    let mut end = 0;
    Batch {
        input,
        key_index: vec![],
        value_data: values.concat(),
        value_ends: values.iter().map(|value| (end += value.len() as u32, end).1).collect(),
        timestamps: vec![NO_TIMESTAMP; values.len()],
    }
}

#[derive(Record, Serialize, Deserialize)]
struct User<'a> {
    id: u64,
    name: &'a str,
}

/// Input records.
#[derive(Inputs)]
enum Joined<'a> {
    OrderLines(&'a str),
    Users(User<'a>),
    #[input(name = "rest")]
    Other(Any<'a>),
}

/// Looks users up for orders; orders whose user is not known yet wait.
struct Join {
    users: BroadcastState<u64, String>,
    waiting: OperatorList<(u64, String)>,
    everyone: OperatorList<String>,
    out: Port<str>,
}

#[operator]
impl Operator for Join {
    fn declare(d: &mut Declare) -> Self {
        Join {
            users: d.broadcast_state("users"),
            waiting: d.list_state("waiting"),
            everyone: d.union_state("everyone"),
            out: d.output("out"),
        }
    }

    fn restored(&mut self, cx: &mut OpenContext) -> Result<()> {
        let own = format!("#{}", cx.subtask());
        self.everyone.retain(|item| *item == own);
        self.everyone.push(own);
        Ok(())
    }

    fn process(&mut self, record: Joined<'_>, cx: &mut Ctx) -> Result<()> {
        match record {
            Joined::OrderLines(line) => {
                let Some((id, what)) = line.split_once(' ') else {
                    return Err("no order".into());
                };
                let id = id.parse()?;
                match self.users.get(&id) {
                    Some(name) => _ = cx.emit(self.out, format!("{name}: {what}").as_str()),
                    None => self.waiting.push((id, what.into())),
                }
            }
            Joined::Users(User { id, name: "" }) => _ = self.users.remove(&id),
            Joined::Users(user) => {
                self.users.insert(user.id, user.name.into());
                for (id, what) in self.waiting.take() {
                    if id == user.id {
                        cx.emit(self.out, format!("{}: {what}", user.name).as_str());
                    } else {
                        self.waiting.push((id, what));
                    }
                }
            }
            Joined::Other(Any(b"add")) => self.waiting.push((5, "added".into())),
            Joined::Other(Any(b"clear")) => {
                self.users.clear();
                self.users.insert(0, "nobody".into());
                self.waiting.clear();
            }
            Joined::Other(_) => return Err("as told".into()),
        }
        Ok(())
    }

    fn finish_all(&mut self, cx: &mut Ctx) -> Result<()> {
        let all = format!("{:?}", self.waiting.take());
        cx.emit(self.out, all.as_str());
        Ok(())
    }
}

fn user(id: u64, name: &str) -> Input {
    Input::typed("", &User { id, name }).unwrap()
}

#[test]
fn inputs_are_named_and_typed_by_variants() {
    assert_eq!(
        Harness::<Join>::new().describe(),
        concat!(
            r#"{"wit":"0.2.0","sdk":"regraft-sdk 0.1.0","encoding":"bincode2","#,
            r#""calls":["ending","operator-state"],"inputs":[{"name":"order_lines","key":null,"value":"text"},"#,
            r#"{"name":"users","key":null,"value":{"record":{"name":"User","fields":[{"name":"id","type":"u64"},"#,
            r#"{"name":"name","type":"string"}]}}},{"name":"rest","key":null,"value":"bytes"}],"#,
            r#""outputs":[{"name":"out","key":null,"value":"text"}],"#,
            r#""operator_states":[{"name":"users","kind":"broadcast","schema":{"tuple":["u64","string"]}},"#,
            r#"{"name":"waiting","kind":"list","schema":{"tuple":["u64","string"]}},"#,
            r#"{"name":"everyone","kind":"union","schema":"string"}]}"#
        )
    );
    let failure = open::<Join>()
        .process(native::header(), batch(3, &[b""]), NO_KEYS)
        .unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (None, "records came by input 3, and the operator has 3 inputs")
    );
    let failure = open::<Join>()
        .process(native::header(), batch(0, &[b"1 x", b"\xff"]), NO_KEYS)
        .unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (Some(1), "the value is not UTF-8")
    );
    let failure = open::<Join>()
        .process(native::header(), batch(1, &[b"\xff"]), NO_KEYS)
        .unwrap_err();
    assert_eq!(failure.row, Some(0));
    assert!(
        failure
            .message
            .starts_with("the value is not a record of the declared type")
    );
}

#[test]
fn operator_state_is_there_after_a_restore() {
    let mut harness = Harness::<Join>::new();
    let orders = ["1 apple", "2 pear", "1 fig"].map(Input::value);
    assert!(harness.process(orders).unwrap().is_empty());
    assert_eq!(
        texts(
            &harness
                .process_input("users", [user(1, "Ann"), user(3, "Cid")])
                .unwrap()
        ),
        ["Ann: apple", "Ann: fig"]
    );
    let mut harness = Harness::<Join>::restore(&harness.snapshot()).unwrap();
    assert_eq!(
        texts(&harness.process([Input::value("3 plum")]).unwrap()),
        ["Cid: plum"]
    );
    assert_eq!(
        harness.operator_state::<(u64, String)>("users").unwrap(),
        [(1, "Ann".into()), (3, "Cid".into())]
    );
    harness.process_input("users", [user(3, "")]).unwrap();
    assert_eq!(
        harness.operator_state::<(u64, String)>("users").unwrap(),
        [(1, "Ann".into())]
    );
    assert_eq!(texts(&harness.finish().unwrap()), [r#"[(2, "pear")]"#]);
    assert!(harness.operator_state::<(u64, String)>("waiting").unwrap().is_empty());
}

#[test]
fn a_call_that_fails_leaves_operator_state_alone() {
    let mut instance = open::<Join>();
    let user = |id, name| user(id, name).value;
    instance
        .process(native::header(), batch(0, &[b"7 x", b"8 y"]), NO_KEYS)
        .unwrap();
    instance
        .process(native::header(), batch(1, &[&user(1, "Ann"), &user(2, "Bo")]), NO_KEYS)
        .unwrap();
    let before = saved(&mut instance);
    let failing: [Batch; 5] = [
        batch(0, &[b"9 new", b"bad"]),
        batch(
            1,
            &[
                &user(1, "Other"),
                &user(2, ""),
                &user(3, "New"),
                &user(3, ""),
                &user(7, "Seven"),
                b"\xff",
            ],
        ),
        batch(2, &[b"clear", b"fail"]),
        batch(2, &[b"clear", b"clear", b"fail"]),
        batch(2, &[b"add", b"clear", b"add", b"fail"]),
    ];
    for batch in failing {
        let rows = batch.value_ends.len() as u32;
        let failure = instance.process(native::header(), batch, NO_KEYS).unwrap_err();
        assert_eq!(failure.row, Some(rows - 1));
        assert_eq!(saved(&mut instance), before);
    }
    // It goes on as if nothing had been.
    instance
        .process(native::header(), batch(2, &[b"clear"]), NO_KEYS)
        .unwrap();
    let after = instance.snapshot().unwrap();
    assert_eq!(after[0].item_ends.len(), 1);
    assert!(after[1].item_ends.is_empty());
}

/// Numbers, data and ends.
fn saved<O: Operator>(instance: &mut Instance<O>) -> Vec<(u32, Vec<u8>, Vec<u32>)> {
    let states = instance.snapshot().unwrap().into_iter();
    states
        .map(|state| (state.state, state.item_data, state.item_ends))
        .collect()
}

fn items(state: &StateItems) -> usize {
    state.item_ends.len()
}

#[test]
fn restoring_replaces_and_tells_the_operator() {
    let mut instance = open::<Join>();
    instance
        .process(native::header(), batch(0, &[b"7 x"]), NO_KEYS)
        .unwrap();
    let mut states = instance.snapshot().unwrap();
    assert_eq!(states.iter().map(items).collect::<Vec<_>>(), [0, 1, 0]);
    instance.restore(native::header(), &states).unwrap();
    assert_eq!(saved(&mut instance)[1].1, states[1].item_data, "replaced, not added");
    // The union state of two instances: only one's own is kept.
    states = instance.snapshot().unwrap();
    assert_eq!(items(&states[2]), 1);
    let mut other = states[2].clone();
    other.item_data = b"\x02#0".to_vec();
    states.push(other);
    instance.restore(native::header(), &states).unwrap();
    states = instance.snapshot().unwrap();
    assert_eq!((items(&states[2]), &states[2].item_data[..]), (2, &b"\x02#1\x02#1"[..]));

    states[1].state = 3;
    let failure = instance.restore(native::header(), &states).unwrap_err();
    assert_eq!(
        failure.message,
        "there is no operator state number 3: the operator declares 3"
    );
    states[1].state = 0;
    states[1].item_data[0] = 0xff;
    let failure = instance.restore(native::header(), &states).unwrap_err();
    assert!(
        failure.message.starts_with("operator state `users`: an item is broken"),
        "{}",
        failure.message
    );
}

/// Counts in itself.
struct Private {
    seen: u64,
    out: Port<str>,
}

#[operator]
impl Operator for Private {
    fn declare(d: &mut Declare) -> Self {
        Private {
            seen: 0,
            out: d.output("out"),
        }
    }

    fn process(&mut self, value: Any<'_>, cx: &mut Ctx) -> Result<()> {
        self.seen += 1;
        if value.is_empty() {
            return Err("empty".into());
        }
        cx.emit(self.out, self.seen.to_string().as_str());
        Ok(())
    }

    fn snapshot_private(&mut self) -> Result<Vec<u8>> {
        Ok(self.seen.to_le_bytes().to_vec())
    }

    fn restore_private(&mut self, parts: Vec<Vec<u8>>) -> Result<()> {
        self.seen = 0;
        for part in parts {
            self.seen += u64::from_le_bytes(part.as_slice().try_into()?);
        }
        Ok(())
    }
}

#[test]
fn private_state_is_saved_and_dealt_out() {
    let mut harness = Harness::<Private>::new();
    let describe = harness.describe();
    assert!(
        describe
            .contains(r#""private_state":true,"operator_states":[{"name":"private","kind":"list","schema":"bytes"}]"#)
    );
    assert_eq!(
        texts(&harness.process([Input::value("a"), Input::value("b")]).unwrap()),
        ["1", "2"]
    );
    let mut restored = Harness::<Private>::restore(&harness.snapshot()).unwrap();
    assert_eq!(texts(&restored.process([Input::value("c")]).unwrap()), ["3"]);
    // A failure is answered as the host does: from what was saved last.
    restored.process([Input::value("d"), Input::value("")]).unwrap_err();
    assert_eq!(texts(&restored.process([Input::value("e")]).unwrap()), ["4"]);

    let mut instance = open::<Private>();
    let mut states = instance.snapshot().unwrap();
    states[0].item_data = [[8].as_slice(), &5u64.to_le_bytes(), &[8], &6u64.to_le_bytes()].concat();
    states[0].item_ends = vec![9, 18];
    instance.restore(native::header(), &states).unwrap();
    assert_eq!(instance.snapshot().unwrap()[0].item_data[1], 11);
    instance.restore(native::header(), &[]).unwrap();
    assert_eq!(instance.snapshot().unwrap()[0].item_data[1], 0);
}

#[test]
fn operator_state_is_refused_outside_of_a_call() {
    struct Early;
    impl Operator for Early {
        type Key<'a> = ();
        type In<'a> = Any<'a>;
        fn declare(d: &mut Declare) -> Self {
            let mut seen = d.list_state::<u64>("seen");
            seen.push(1);
            Early
        }
        fn process(&mut self, (): (), _: Any, _: &mut Ctx) -> Result<()> {
            Ok(())
        }
    }
    let said = std::panic::catch_unwind(native::describe::<Early>).unwrap_err();
    let said = said.downcast_ref::<String>().unwrap();
    assert!(
        said.starts_with("operator state `seen` was used outside of a call"),
        "{said}"
    );
}
