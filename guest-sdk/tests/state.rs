//! Holds handles of keyed state to their promises: what a call writes it sees, what it has written is there afterwards,
//! and nothing is read that need not be.

use regraft_sdk::native::{self, Entries, Found, Instance, Keyed, OpenRecord, StateReads, Values};
use regraft_sdk::testing::{Harness, Input, json};
use regraft_sdk::{
    Aggregate, AggregatingState, Ctx, Declare, ListState, MapState, OpenContext, Operator, Port, ReducingState, Result,
    State, Text, ValueState, operator,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(State, Serialize, Deserialize, Default, Clone, Debug, PartialEq)]
struct Mean {
    sum: u64,
    count: u64,
}

impl Aggregate for Mean {
    type In = u64;
    type Out = f64;
    fn add(&mut self, value: u64) {
        self.sum += value;
        self.count += 1;
    }
    fn result(&self) -> f64 {
        self.sum as f64 / self.count as f64
    }
}

/// Does what the record says, and answers with what it sees.
struct Every {
    near: ValueState<u64>,
    far: ValueState<String>,
    map: MapState<String, u64>,
    list: ListState<String>,
    highest: ReducingState<u64>,
    mean: AggregatingState<Mean>,
    out: Port<str>,
}

#[operator]
impl Operator for Every {
    fn declare(d: &mut Declare) -> Self {
        Every {
            far: d.value("far").far(),
            map: d.map("map").ttl(Duration::from_secs(60)),
            near: d.value("near"),
            list: d.list("list"),
            highest: d.reducing("highest", |a, b| *a = (*a).max(b)),
            mean: d.aggregating("mean"),
            out: d.output("out"),
        }
    }

    fn process(&mut self, _: &str, line: &str, cx: &mut Ctx) -> Result<()> {
        let mut words = line.split(' ');
        let (what, arg, number) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
            words.next().map_or(0, |number| number.parse().unwrap_or(0)),
        );
        let seen = match what {
            "near" => self.near.update(|n| {
                *n += 1;
                n.to_string()
            }),
            "far" => format!("{:?}", self.far.get()),
            "far.set" => {
                self.far.set(arg.into());
                String::new()
            }
            "far.remove" => format!("{:?}", self.far.remove()),
            "far.clear" => {
                self.far.clear();
                String::new()
            }
            "map" => format!("{:?}", self.map.get(arg)),
            "map.insert" => {
                self.map.insert(arg, number);
                String::new()
            }
            "map.update" => self.map.update(arg, |n| {
                *n += number;
                n.to_string()
            }),
            "map.remove" => format!("{:?}", self.map.remove(arg)),
            "map.delete" => {
                self.map.delete(arg);
                String::new()
            }
            "map.clear" => {
                self.map.clear();
                String::new()
            }
            "map.entries" => format!("{:?} {}", self.map.entries(), self.map.is_empty()),
            "list" => format!("{:?} {}", self.list.get(), self.list.is_empty()),
            "list.push" => {
                self.list.push(&arg.to_owned());
                String::new()
            }
            "list.set" => {
                self.list.set([&arg.to_owned()]);
                String::new()
            }
            "list.take" => format!("{:?}", self.list.take()),
            "highest" => {
                self.highest.add(number);
                format!("{:?}", self.highest.get())
            }
            "highest.remove" => format!("{:?}", self.highest.remove()),
            "mean" => {
                self.mean.add(number);
                format!("{:?}", self.mean.get())
            }
            "mean.clear" => {
                self.mean.clear();
                format!("{:?}", self.mean.get())
            }
            "fail" => return Err("as told".into()),
            other => return Err(format!("what is {other}?").into()),
        };
        cx.emit(self.out, seen.as_str());
        Ok(())
    }

    fn finish(&mut self, _: &str, cx: &mut Ctx) -> Result<()> {
        let seen = format!("{:?} {:?}", self.far.get(), self.map.keys());
        cx.emit(self.out, seen.as_str());
        Ok(())
    }
}

/// One batch of records of key `k`, or of the key before a colon.
fn run(harness: &mut Harness<Every>, lines: &[&str]) -> Vec<String> {
    let records = lines.iter().map(|line| match line.split_once(':') {
        Some((key, line)) => Input::keyed(key, line),
        None => Input::keyed("k", line),
    });
    let emitted = harness.process(records).unwrap();
    emitted.iter().map(|record| record.text().unwrap().to_owned()).collect()
}

#[test]
fn declares_all_kinds() {
    assert!(Harness::<Every>::new().describe().contains(concat!(
        r#""states":[{"name":"far","kind":"value","schema":"string","travels":false},"#,
        r#"{"name":"map","kind":"map","schema":"u64","map_key":"string","travels":false,"ttl_ms":60000},"#,
        r#"{"name":"near","kind":"value","schema":"u64","travels":true},"#,
        r#"{"name":"list","kind":"list","schema":"string","travels":false},"#,
        r#"{"name":"highest","kind":"reducing","schema":"u64","travels":true},"#,
        r#"{"name":"mean","kind":"aggregating","schema":{"struct":{"name":"Mean","fields":["#,
        r#"{"name":"sum","type":"u64"},{"name":"count","type":"u64"}]}},"travels":true}]"#
    )));
}

#[test]
fn a_call_sees_its_own_writes_and_the_next_one_too() {
    let mut harness = Harness::<Every>::new();
    let seen = run(
        &mut harness,
        &[
            "map",
            "map.insert a 1",
            "map.update a 2",
            "map a",
            "map.update b 7",
            "other:map.update a 1",
            "map.entries",
            "list.push x",
            "list",
            "list.push y",
            "near",
            "near",
            "far",
            "far.set v",
            "far",
        ],
    );
    assert_eq!(
        seen,
        [
            "None",
            "",
            "3",
            "Some(3)",
            "7",
            "1",
            r#"[("a", 3), ("b", 7)] false"#,
            "",
            r#"["x"] false"#,
            "",
            "1",
            "2",
            "None",
            "",
            r#"Some("v")"#,
        ]
    );
    let seen = run(
        &mut harness,
        &[
            "near",
            "far",
            "map.entries",
            "map.remove b",
            "map.entries",
            "map.insert aa 5",
            "list",
            "list.take",
            "list",
        ],
    );
    assert_eq!(
        seen,
        [
            "3",
            r#"Some("v")"#,
            r#"[("a", 3), ("b", 7)] false"#,
            "Some(7)",
            r#"[("a", 3)] false"#,
            "",
            r#"["x", "y"] false"#,
            r#"["x", "y"]"#,
            "[] true",
        ]
    );
    let maps = harness.map_state::<String, String, u64>("map").unwrap();
    assert_eq!(maps["k"], BTreeMap::from([("a".into(), 3), ("aa".into(), 5)]));
    assert_eq!(maps["other"], BTreeMap::from([("a".into(), 1)]));
    assert!(harness.list_state::<String, String>("list").unwrap().is_empty());
    assert_eq!(harness.state::<String, String>("far").unwrap()["k"], "v");

    let seen = run(
        &mut harness,
        &[
            "map.clear",
            "map a",
            "map.insert c 1",
            "map.entries",
            "far.remove",
            "far",
            "list.push z",
            "list.set w",
            "list",
        ],
    );
    assert_eq!(
        seen,
        [
            "",
            "None",
            "",
            r#"[("c", 1)] false"#,
            r#"Some("v")"#,
            "None",
            "",
            "",
            r#"["w"] false"#
        ]
    );
    let maps = harness.map_state::<String, String, u64>("map").unwrap();
    assert_eq!(maps["k"], BTreeMap::from([("c".into(), 1)]));
    assert!(harness.state::<String, String>("far").unwrap().is_empty());
    assert_eq!(harness.list_state::<String, String>("list").unwrap()["k"], ["w"]);
    let finished = harness.finish().unwrap();
    assert_eq!(finished[0].text().unwrap(), r#"None ["c"]"#);
}

#[test]
fn values_fold() {
    let mut harness = Harness::<Every>::new();
    let seen = run(&mut harness, &["highest - 3", "highest - 1", "mean - 1", "mean - 2"]);
    assert_eq!(seen, ["Some(3)", "Some(3)", "Some(1.0)", "Some(1.5)"]);
    let seen = run(
        &mut harness,
        &["highest - 9", "mean - 3", "highest.remove", "highest - 2", "mean.clear"],
    );
    assert_eq!(seen, ["Some(9)", "Some(2.0)", "Some(9)", "Some(2)", "None"]);
    assert_eq!(harness.state::<String, u64>("highest").unwrap()["k"], 2);
    assert!(harness.state::<String, Mean>("mean").unwrap().is_empty());
}

#[test]
fn a_failed_call_keeps_no_entry() {
    let mut harness = Harness::<Every>::new();
    run(&mut harness, &["map.insert a 1", "list.push x", "far.set v"]);
    let before = harness.snapshot();
    let told = ["map.clear", "list.push y", "far.clear", "fail"].map(|line| Input::keyed("k", line));
    assert_eq!(harness.process(told).unwrap_err().row, Some(3));
    assert_eq!(harness.snapshot(), before);
    assert_eq!(
        run(&mut harness, &["map a", "list", "far"]),
        ["Some(1)", r#"["x"] false"#, r#"Some("v")"#]
    );
}

#[test]
fn entries_expire() {
    let mut harness = Harness::<Every>::new();
    run(&mut harness, &["map.insert a 1"]);
    harness.set_now(59_999);
    assert_eq!(
        run(&mut harness, &["map.insert b 2", "map.entries"])[1],
        r#"[("a", 1), ("b", 2)] false"#
    );
    harness.set_now(60_000);
    assert_eq!(
        run(&mut harness, &["map a", "map.entries"]),
        ["None", r#"[("b", 2)] false"#]
    );
}

/// Many random operations against plain collections, in batches of many sizes.
#[test]
fn agrees_with_plain_collections() {
    for seed in 1..=20u64 {
        let mut x = seed;
        let mut draw = |below: u64| {
            x = x
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (x >> 33) % below
        };
        let mut harness = Harness::<Every>::new();
        let mut maps: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut fars: BTreeMap<String, String> = BTreeMap::new();
        for _ in 0..30 {
            let (mut lines, mut expected) = (vec![], vec![]);
            for _ in 0..=draw(40) {
                let (key, entry, number) = (format!("k{}", draw(5)), format!("e{}", draw(12)), draw(100));
                let (map, list) = (
                    maps.entry(key.clone()).or_default(),
                    lists.entry(key.clone()).or_default(),
                );
                let (line, seen) = match draw(16) {
                    0 | 1 => (format!("map {entry}"), format!("{:?}", map.get(&entry))),
                    2 | 3 => {
                        map.insert(entry.clone(), number);
                        (format!("map.insert {entry} {number}"), String::new())
                    }
                    4 | 5 => {
                        let value = map.entry(entry.clone()).or_default();
                        *value += number;
                        (format!("map.update {entry} {number}"), value.to_string())
                    }
                    6 => (format!("map.remove {entry}"), format!("{:?}", map.remove(&entry))),
                    7 => {
                        map.remove(&entry);
                        (format!("map.delete {entry}"), String::new())
                    }
                    8 => {
                        map.clear();
                        ("map.clear".into(), String::new())
                    }
                    9 => {
                        let entries: Vec<_> = map.iter().collect();
                        ("map.entries".into(), format!("{entries:?} {}", map.is_empty()))
                    }
                    10 | 11 => {
                        list.push(entry.clone());
                        (format!("list.push {entry}"), String::new())
                    }
                    12 => ("list".into(), format!("{list:?} {}", list.is_empty())),
                    13 => ("list.take".into(), format!("{:?}", std::mem::take(list))),
                    14 => {
                        fars.insert(key.clone(), entry.clone());
                        (format!("far.set {entry}"), String::new())
                    }
                    _ => match draw(3) {
                        0 => ("far.remove".into(), format!("{:?}", fars.remove(&key))),
                        1 => {
                            fars.remove(&key);
                            ("far.clear".into(), String::new())
                        }
                        _ => ("far".into(), format!("{:?}", fars.get(&key))),
                    },
                };
                lines.push(format!("{key}:{line}"));
                expected.push(seen);
            }
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            assert_eq!(run(&mut harness, &lines), expected, "seed {seed}: {lines:?}");
            maps.retain(|_, map| !map.is_empty());
            lists.retain(|_, list| !list.is_empty());
            assert_eq!(
                harness.map_state::<String, String, u64>("map").unwrap(),
                maps,
                "seed {seed}"
            );
            assert_eq!(
                harness.list_state::<String, String>("list").unwrap(),
                lists,
                "seed {seed}"
            );
            assert_eq!(harness.state::<String, String>("far").unwrap(), fars, "seed {seed}");
            harness = Harness::restore(&harness.snapshot()).unwrap();
        }
    }
}

/// Answers nothing but what it is told, and remembers what it was asked.
#[derive(Default)]
struct Told {
    asked: Mutex<Vec<String>>,
    /// Each value and 1, or 0 for none.
    value: (Vec<u8>, u8),
}

impl Told {
    fn asked(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn found(&self, count: usize) -> Found {
        Found {
            present: vec![self.value.1; count],
            data: self.value.0.repeat(count),
            ends: (1..=count).map(|n| (n * self.value.0.len()) as u32).collect(),
        }
    }
}

impl StateReads for Told {
    fn value_get_many(&self, state: u32, keys: &[u32]) -> Result<Found, String> {
        self.asked(format!("value {state} {keys:?}"));
        Ok(self.found(keys.len()))
    }
    fn map_get_many(&self, state: u32, keys: &[u32], data: &[u8], ends: &[u32]) -> Result<Found, String> {
        self.asked(format!(
            "map {state} {keys:?} {} {ends:?}",
            String::from_utf8_lossy(data)
        ));
        Ok(self.found(keys.len()))
    }
    fn map_scan(&self, _: u32, _: u32, _: Option<&[u8]>, _: u32) -> Result<Entries, String> {
        Err("the disk is gone".into())
    }
    fn list_scan(&self, _: u32, _: u32, _: u32, _: u32) -> Result<Values, String> {
        let Found { data, ends, .. } = self.found(1);
        Ok(Values { data, ends })
    }
}

/// One value per key that does not travel, and a map; records touch both, the config says in which way.
struct Reads {
    far: ValueState<u64>,
    map: MapState<String, u64>,
    list: ListState<u64>,
    what: String,
}

impl Operator for Reads {
    type Key<'a> = &'a str;
    type In<'a> = Text<'a>;

    fn declare(d: &mut Declare) -> Self {
        d.prefetch();
        Reads {
            far: d.value("far").far(),
            map: d.map("map"),
            list: d.list("list"),
            what: String::new(),
        }
    }

    fn open(&mut self, cx: &mut OpenContext) -> Result<()> {
        self.what = cx.config()?;
        Ok(())
    }

    fn prefetch(&mut self, _: &str, page: Text) -> Result<()> {
        if self.what == "prefetch" && page.0 != "x" {
            self.map.prefetch(page.0);
        }
        Ok(())
    }

    fn process(&mut self, _: &str, page: Text, _: &mut Ctx) -> Result<()> {
        match self.what.as_str() {
            "far" => _ = self.far.get(),
            "scan" => _ = self.map.entries(),
            "list" => _ = self.list.get(),
            "replace" => {
                self.map.clear();
                self.map.update(page.0, |n| *n += 1);
                self.map.update(page.0, |n| *n += 1);
            }
            _ => self.map.update(page.0, |n| *n += 1),
        }
        Ok(())
    }
}

/// A batch of records with the keys 0, 1, … and these values.
fn told(what: &str, told: &Arc<Told>, values: &[&str]) -> Result<native::Outcome, native::Failure> {
    let context = OpenRecord {
        uid: "reads".into(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
    };
    let mut instance = Instance::<Reads>::open(native::header(), &context, &json!(what).to_string(), &[]).unwrap();
    instance.set_state(Some(told.clone()));
    let ends = |lengths: Vec<usize>| -> Vec<u32> {
        let mut end = 0;
        lengths.iter().map(|len| (end += *len as u32, end).1).collect()
    };
    let keys: Vec<String> = (0..values.len()).map(|key| key.to_string()).collect();
    let records = native::Batch {
        input: 0,
        key_index: (0..keys.len() as u32).collect(),
        value_data: values.concat().into_bytes(),
        value_ends: ends(values.iter().map(|value| value.len()).collect()),
        timestamps: vec![0; values.len()],
    };
    let keyed = Keyed {
        key_data: keys.concat().into_bytes(),
        key_ends: ends(keys.iter().map(String::len).collect()),
        cells: vec![],
    };
    instance.process(native::header(), records, keyed)
}

#[test]
fn values_are_read_ahead_while_each_key_is_touched_in_turn() {
    let reads = Arc::new(Told::default());
    told("far", &reads, &["x"; 100]).unwrap();
    let asked = reads.asked.lock().unwrap();
    let counts: Vec<usize> = asked.iter().map(|what| what.split(", ").count()).collect();
    assert_eq!(counts, [1, 2, 4, 8, 16, 32, 32, 5]);
    assert_eq!(asked[1], "value 0 [1, 2]");
}

#[test]
fn large_values_are_not_read_ahead() {
    let reads = Arc::new(Told {
        value: ([vec![255; 1], vec![0; 40_000]].concat(), 0),
        ..Told::default()
    });
    told("far", &reads, &["x"; 6]).unwrap();
    let asked = reads.asked.lock().unwrap();
    assert!(asked.iter().all(|what| what.split(", ").count() <= 2), "{asked:?}");
}

#[test]
fn entries_that_are_announced_are_read_at_once() {
    let reads = Arc::new(Told::default());
    told("touch", &reads, &["a", "bb", "c"]).unwrap();
    assert_eq!(
        *reads.asked.lock().unwrap(),
        ["map 1 [0] a [1]", "map 1 [1] bb [2]", "map 1 [2] c [1]"]
    );
    let reads = Arc::new(Told::default());
    told("prefetch", &reads, &["a", "bb", "x", "c"]).unwrap();
    assert_eq!(
        *reads.asked.lock().unwrap(),
        ["map 1 [0, 1, 3] abbc [1, 3, 4]", "map 1 [2] x [1]"]
    );
}

#[test]
fn what_a_call_has_replaced_is_not_read() {
    let reads = Arc::new(Told::default());
    let outcome = told("replace", &reads, &["a", "b"]).unwrap();
    assert!(reads.asked.lock().unwrap().is_empty());
    let writes = outcome.entries.unwrap();
    assert_eq!((writes.ops, writes.keys), (vec![3, 3, 0, 0], vec![0, 1, 0, 1]));
    assert_eq!(
        (writes.entry_key_data, writes.entry_key_ends),
        (b"ab".to_vec(), vec![0, 0, 1, 2])
    );
    assert_eq!((writes.value_data, writes.value_ends), (vec![2, 2], vec![0, 0, 1, 2]));
}

#[test]
fn state_that_cannot_be_read_is_no_rows_fault() {
    let told = |what: &str, value: &[u8]| {
        let reads = Arc::new(Told {
            value: (value.to_vec(), 1),
            ..Told::default()
        });
        let failure = told(what, &reads, &["x", "y"]).unwrap_err();
        assert_eq!(failure.row, None, "{what}");
        failure.message
    };
    let broken = "it has 2 bytes, of which only 1 belong to it";
    for (what, text) in [
        ("far", "state `far`: a value is broken"),
        ("touch", "state `map`: a value is broken"),
        ("list", "state `list`: its items cannot be read"),
    ] {
        assert_eq!(told(what, b"\x01\x02"), format!("{text}: {broken}"));
    }
    assert_eq!(
        told("scan", b""),
        "state `map`: its entries cannot be read: the disk is gone"
    );
}

#[test]
fn state_without_a_key_is_refused() {
    struct Keyless;
    impl Operator for Keyless {
        type Key<'a> = ();
        type In<'a> = Text<'a>;
        fn declare(d: &mut Declare) -> Self {
            let _: MapState<u64, u64> = d.map("pages");
            Keyless
        }
        fn process(&mut self, (): (), _: Text, _: &mut Ctx) -> Result<()> {
            Ok(())
        }
    }
    let said = std::panic::catch_unwind(native::describe::<Keyless>).unwrap_err();
    assert_eq!(
        said.downcast_ref::<String>().unwrap(),
        "the operator declares state `pages`, which is kept by key, but its `Key` is `()`"
    );
}
