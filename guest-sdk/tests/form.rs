//! Holds `#[operator]` and emitting to what they promise: the form of operators, where `operators.rs` has their behaviour.

use regraft_sdk::testing::{Emitted, Harness, Input, json};
use regraft_sdk::{
    Any, Bytes, Ctx, Declare, ListState, MapState, NO_TIMESTAMP, OpenContext, Operator, Port, Record, Result, State,
    Text, Typed, ValueState, operator,
};
use serde::{Deserialize, Serialize, Serializer};

/// Key, text and timestamp.
fn shown(emitted: &[Emitted]) -> Vec<(&str, &str, i64)> {
    let each = emitted.iter();
    each.map(|record| (record.key_text().unwrap(), record.text().unwrap(), record.timestamp))
        .collect()
}

mod functions {
    use super::*;

    #[derive(Record, Serialize, Deserialize)]
    pub(super) struct Click<'a> {
        pub(super) page: &'a str,
        pub(super) bytes: u64,
    }

    /// The outputs borrow from the function, and the parameters' names are those of key, input and ports.
    #[operator]
    pub(super) fn visits(
        user: &str,
        click: Click<'_>,
        pages: Port<Click<'_>>,
        #[key = "page"] users: Port<str, str>,
        cx: &mut Ctx,
    ) -> Result<()> {
        if click.bytes == 0 {
            return Err("an empty page".into());
        }
        let upper = click.page.to_uppercase();
        let page = upper.as_str();
        cx.emit(pages, &Click { page, ..click });
        cx.emit(users, user).key(click.page).at(cx_time());
        Ok(())
    }

    fn cx_time() -> i64 {
        77
    }

    #[operator]
    fn nothing(_: Any<'_>) {}

    #[test]
    fn a_function_is_an_operator() {
        let mut harness = Harness::<visits>::new();
        assert!(harness.describe().ends_with(concat!(
            r#""key":{"name":"user","type":"string"},"inputs":[{"name":"click","key":{"name":"user","type":"string"},"#,
            r#""value":{"record":{"name":"Click","fields":[{"name":"page","type":"string"},{"name":"bytes","type":"u64"}]}}}],"#,
            r#""outputs":[{"name":"pages","key":{"name":"user","type":"string"},"value":{"record":{"name":"Click","#,
            r#""fields":[{"name":"page","type":"string"},{"name":"bytes","type":"u64"}]}}},"#,
            r#"{"name":"users","key":{"name":"page","type":"string"},"value":"text"}]}"#
        )));
        let click = |page, bytes| Input::typed("ann", &Click { page, bytes }).unwrap().at(5);
        let emitted = harness.process([click("/a", 1)]).unwrap();
        assert_eq!(emitted[0].record::<Click>().unwrap().page, "/A");
        assert_eq!((emitted[0].key_text().unwrap(), emitted[0].timestamp), ("ann", 5));
        assert_eq!(shown(&emitted[1..]), [("/a", "ann", 77)]);
        let failure = harness.process([click("/a", 1), click("/b", 0)]).unwrap_err();
        assert_eq!((failure.row, failure.message.as_str()), (Some(1), "an empty page"));
        assert!(
            Harness::<nothing>::new()
                .process([Input::value("x")])
                .unwrap()
                .is_empty()
        );
    }
}

/// Emits as the record says.
struct Emits {
    same: Port<str>,
    own: Port<str, str>,
}

#[operator]
impl Operator for Emits {
    fn declare(d: &mut Declare) -> Self {
        Emits {
            same: d.output("same"),
            own: d.output_keyed("own", "name"),
        }
    }

    fn process(&mut self, _: &str, line: &str, cx: &mut Ctx) -> Result<()> {
        match line {
            "forward" => cx.forward(self.same),
            "at" => _ = cx.emit(self.same, line).at(9),
            "at twice" => _ = cx.emit(self.same, line).at(8).at(9),
            "key" => _ = cx.emit(self.own, line).key("k"),
            "key at" => _ = cx.emit(self.own, line).key("k").at(9),
            "at key twice" => _ = cx.emit(self.own, line).at(9).key("long").key("k"),
            "no key" => _ = cx.emit(self.own, line),
            "in place" => cx.emit_with(self.own, |key, value| {
                key.write(b"k");
                value.write(b"in place");
            }),
            _ => _ = cx.emit(self.same, line),
        }
        Ok(())
    }
}

fn emits(lines: &[&str]) -> Result<Vec<(String, String, i64)>, regraft_sdk::native::Failure> {
    let records = lines.iter().map(|line| Input::keyed("row", line).at(1));
    let emitted = Harness::<Emits>::new().process(records)?;
    let owned = |(key, text, timestamp): (&str, &str, i64)| (key.into(), text.into(), timestamp);
    Ok(shown(&emitted).into_iter().map(owned).collect())
}

#[test]
fn a_record_has_what_it_is_given_and_inherits_the_rest() {
    // All orders of a few: a column becomes explicit at any record.
    let lines = ["x", "forward", "at", "at twice"];
    for n in 0..256 {
        let chosen = [n % 4, n / 4 % 4, n / 16 % 4, n / 64].map(|at| lines[at]);
        let expected = chosen.map(|line| {
            (
                "row".to_owned(),
                line.to_owned(),
                if line.starts_with("at") { 9 } else { 1 },
            )
        });
        assert_eq!(emits(&chosen).unwrap(), expected, "{chosen:?}");
    }
    let lines = ["key", "key at", "at key twice", "in place"];
    for n in 0..256 {
        let chosen = [n % 4, n / 4 % 4, n / 16 % 4, n / 64].map(|at| lines[at]);
        let expected = chosen.map(|line| ("k".to_owned(), line.to_owned(), if line.contains("at") { 9 } else { 1 }));
        assert_eq!(emits(&chosen).unwrap(), expected, "{chosen:?}");
    }
}

#[test]
fn a_record_without_a_key_of_its_own_fails_its_row() {
    for lines in [
        &["key", "no key"][..],
        &["key", "no key", "key"],
        &["key", "no key", "in place", "no key"],
        &["x", "no key", "key at"],
    ] {
        let failure = emits(lines).unwrap_err();
        assert_eq!(
            (failure.row, failure.message.as_str()),
            (
                Some(1),
                "a record was emitted on output `own` without a key: records of this output have keys of their own, so each \
                 needs `.key(…)`"
            ),
            "{lines:?}"
        );
    }
}

/// Refuses to be written.
#[derive(State, Deserialize)]
struct Unwritable {
    _x: String,
}

impl Serialize for Unwritable {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("not today"))
    }
}

#[operator]
fn unwritable(line: &str, out: Port<Unwritable>, cx: &mut Ctx) -> Result<()> {
    if line == "write" {
        cx.emit(out, &Unwritable { _x: line.into() });
        return Err("later".into());
    }
    Ok(())
}

#[test]
fn what_cannot_be_written_fails_its_row() {
    let failure = Harness::<unwritable>::new()
        .process([Input::value(""), Input::value("write"), Input::value("")])
        .unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (Some(1), "it cannot be encoded: not today")
    );
}

macro_rules! reads {
    ($($name:ident: $ty:ty, $value:ident => $shown:expr;)+) => {$(
        #[operator]
        fn $name($value: $ty, out: Port<str>, cx: &mut Ctx) {
            cx.emit(out, format!("{:?}", $shown).as_str());
        }
    )+};
}

#[derive(Record, Serialize, Deserialize, Debug, Clone, Copy)]
struct Number {
    n: u64,
}

reads! {
    reads_str: &str, value => value;
    reads_text: Text<'_>, value => value.0;
    reads_bytes: &[u8], value => value;
    reads_wrapped_bytes: Bytes<'_>, value => value.0;
    reads_record: Number, value => value;
    reads_typed: Typed<Number>, value => value.0;
}

#[test]
fn values_are_read_as_they_are_or_wrapped() {
    fn read<O: Operator>(value: &[u8]) -> (String, String) {
        let mut harness = Harness::<O>::new();
        let told = match harness.process([Input::value(value)]) {
            Ok(emitted) => emitted[0].text().unwrap().to_owned(),
            Err(failure) => failure.message,
        };
        (harness.describe(), told)
    }
    let number = Input::typed("", &Number { n: 300 }).unwrap().value;
    for value in [b"a", &b"\xff"[..], &number] {
        assert_eq!(read::<reads_str>(value), read::<reads_text>(value));
        assert_eq!(read::<reads_bytes>(value), read::<reads_wrapped_bytes>(value));
        assert_eq!(read::<reads_record>(value), read::<reads_typed>(value));
    }
    assert_eq!(read::<reads_str>(b"a").1, r#""a""#);
    assert_eq!(read::<reads_str>(b"\xff").1, "the value is not UTF-8");
    assert_eq!(read::<reads_bytes>(b"\xff").1, "[255]");
    assert_eq!(read::<reads_record>(&number).1, "Number { n: 300 }");
    assert!(
        read::<reads_record>(b"\xff")
            .1
            .starts_with("the value is not a record of the declared type")
    );
}

/// Uses its states where its config says.
struct Astray {
    value: ValueState<u64>,
    map: MapState<u64, u64>,
    list: ListState<u64>,
    at: String,
}

impl Astray {
    fn touch(&mut self, at: &str) {
        match self.at.split_once(' ') {
            Some((place, "value")) if place == at => assert_eq!(self.value.update(|n| *n + 7), 7),
            Some((place, "set")) if place == at => {
                self.value.set(3);
                assert_eq!(self.value.get(), None);
            }
            Some((place, "map")) if place == at => {
                self.map.insert(&1, 1);
                self.map.clear();
                assert_eq!(
                    (self.map.get(&1), self.map.entries(), self.map.is_empty()),
                    (None, vec![], true)
                );
            }
            Some((place, "list")) if place == at => {
                self.list.push(&1);
                self.list.clear();
                assert_eq!((self.list.get(), self.list.is_empty()), (vec![], true));
            }
            _ => {}
        }
    }
}

#[operator]
impl Operator for Astray {
    fn declare(d: &mut Declare) -> Self {
        Astray {
            value: d.value("value"),
            map: d.map("map"),
            list: d.list("list"),
            at: String::new(),
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        self.at = cx.config()?;
        self.touch("open");
        Ok(())
    }

    fn restored(&mut self, _: &mut OpenContext) -> Result<()> {
        self.touch("restored");
        Ok(())
    }

    fn process(&mut self, _: &str, _: Any<'_>, _: &mut Ctx) -> Result<()> {
        self.touch("process");
        std::thread::scope(|scope| scope.spawn(|| self.touch("thread")).join()).map_err(|_| "a panic on the thread")?;
        Ok(())
    }

    fn finish_all(&mut self, _: &mut Ctx) -> Result<()> {
        self.touch("finish_all");
        Err("the state comes first".into())
    }

    fn on_watermark(&mut self, _: i64, _: &mut Ctx) -> Result<()> {
        self.touch("on_watermark");
        Ok(())
    }

    fn snapshot_private(&mut self) -> Result<Vec<u8>> {
        self.touch("snapshot_private");
        Ok(vec![])
    }

    fn restore_private(&mut self, _: Vec<Vec<u8>>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn state_without_a_key_is_an_error_that_names_it() {
    for place in [
        "open",
        "restored",
        "thread",
        "finish_all",
        "on_watermark",
        "snapshot_private",
    ] {
        for (how, state) in [("value", "value"), ("set", "value"), ("map", "map"), ("list", "list")] {
            let mut harness = Harness::<Astray>::new().config(json!("process nothing"));
            harness.process([Input::keyed("k", "")]).unwrap();
            let mut harness = Harness::<Astray>::restore(&harness.snapshot()).unwrap();
            harness = harness.config(json!(format!("{place} {how}")));
            let result = match place {
                "finish_all" => harness.finish(),
                "on_watermark" => harness.watermark(5),
                _ => harness.process([Input::keyed("k", "")]),
            };
            let failure = result.unwrap_err();
            assert_eq!(
                (failure.row, failure.message),
                (
                    None,
                    format!(
                        "state `{state}`: it was used where no key is at hand: state by key can be used in `process`, \
                         `prefetch`, `on_timer` and `finish` only, on the thread that they are called on"
                    )
                ),
                "{place} {how}"
            );
        }
    }
}

#[test]
fn a_timer_and_on_timer_belong_together() {
    struct Unheard;
    #[operator]
    impl Operator for Unheard {
        fn declare(d: &mut Declare) -> Self {
            d.timer("gap");
            Unheard
        }
        fn process(&mut self, _: &str, _: Any<'_>, _: &mut Ctx) -> Result<()> {
            Ok(())
        }
    }
    let said = std::panic::catch_unwind(Harness::<Unheard>::new).err().unwrap();
    assert_eq!(
        said.downcast_ref::<String>().unwrap(),
        "the operator declares timer `gap`, and has no method `on_timer`"
    );
}

/// Without the attribute: everything is written out.
struct Plain {
    out: Port<str>,
}

impl Operator for Plain {
    type Key<'a> = ();
    type In<'a> = Text<'a>;

    fn declare(d: &mut Declare) -> Self {
        d.on_finish();
        Plain { out: d.output("out") }
    }

    fn process(&mut self, (): (), line: Text, cx: &mut Ctx) -> Result<()> {
        cx.emit(self.out, line.0);
        Ok(())
    }

    fn finish_all(&mut self, cx: &mut Ctx) -> Result<()> {
        cx.emit(self.out, "end");
        Ok(())
    }
}

regraft_sdk::export_operator!(Plain);

#[test]
fn the_plain_trait_does_as_well() {
    let mut harness = Harness::<Plain>::new();
    assert_eq!(
        shown(&harness.process([Input::value("x")]).unwrap()),
        [("", "x", NO_TIMESTAMP)]
    );
    assert_eq!(shown(&harness.finish().unwrap()), [("", "end", NO_TIMESTAMP)]);
}
