//! Holds the derived schemas to the format document, and state handles to their promises.

use regraft_sdk::testing::{Harness, Input, take_captured};
use regraft_sdk::{Compound, Ctx, Declare, Operator, Port, Result, State, Text, ValueState, codec, log, operator};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(State, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", rename = "Profile")]
struct Inner<T> {
    user_name: String,
    #[serde(alias = "mail", default)]
    #[state(alias = "e_mail")]
    email: String,
    note: Option<T>,
    #[serde(skip)]
    cached: u8,
    by_day: BTreeMap<u16, (f32, [bool; 2])>,
}

#[derive(State, Serialize, Deserialize)]
struct Wrapped(Vec<u8>);

#[derive(State, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    NotKnown,
    Point(#[allow(dead_code)] Wrapped),
    Line(i32, i64),
    #[state(alias = "Box")]
    Rect {
        width: u64,
    },
}

#[test]
fn schemas_follow_serde() {
    assert_eq!(
        Inner::<char>::schema().to_json(),
        concat!(
            r#"{"struct":{"name":"Profile","fields":[{"name":"userName","type":"string"},"#,
            r#"{"name":"email","type":"string","aliases":["e_mail","mail"],"default":true},"#,
            r#"{"name":"note","type":{"option":"char"},"default":true},"#,
            r#"{"name":"byDay","type":{"map":["u16",{"tuple":["f32",{"tuple":["bool","bool"]}]}]}}]}}"#
        )
    );
    assert_eq!(
        Shape::schema().to_json(),
        concat!(
            r#"{"enum":{"name":"Shape","variants":[{"name":"not_known"},{"name":"point","type":"bytes"},"#,
            r#"{"name":"line","tuple":["i32","i64"]},"#,
            r#"{"name":"rect","fields":[{"name":"width","type":"u64"}],"aliases":["Box"]}]}}"#
        )
    );
}

/// Sets, removes, forwards and emits, by what the line says.
struct Many {
    last: ValueState<String>,
    profile: ValueState<Inner<u8>>,
    same: Port<str>,
    keyed: Port<str, u64>,
}

#[derive(State, Serialize, Deserialize, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    x: u32,
}

#[operator]
impl Operator for Many {
    fn declare(d: &mut Declare) -> Self {
        Many {
            last: d.value("last"),
            profile: d.value("profile"),
            same: d.output("same"),
            keyed: d.output_keyed("keyed", "number"),
        }
    }

    fn process(&mut self, Compound(place): Compound<Place>, line: &str, cx: &mut Ctx) -> Result<()> {
        log::info!("at {}", place.x);
        match line {
            "remove" => drop(self.last.remove()),
            "forward" => cx.forward(self.same),
            "fail" => return Err("as told".into()),
            "keyed" => _ = cx.emit(self.keyed, "five").key(&5),
            "later" => _ = cx.emit(self.same, "late").at(99),
            text => {
                let before = self.last.get_or_default();
                self.last.set(text.to_owned());
                self.profile.update(|profile| profile.user_name += text);
                cx.emit(self.same, before.as_str());
            }
        }
        Ok(())
    }

    fn finish_all(&mut self, cx: &mut Ctx) -> Result<()> {
        cx.emit(self.keyed, "end").key(&1);
        Ok(())
    }

    fn on_watermark(&mut self, watermark: i64, cx: &mut Ctx) -> Result<()> {
        cx.emit(self.same, "tick").at(watermark);
        Ok(())
    }
}

fn lines(lines: &[&str]) -> Vec<Input> {
    lines
        .iter()
        .enumerate()
        .map(|(at, line)| Input::keyed(3u32.to_le_bytes(), line).at(at as i64))
        .collect()
}

#[test]
fn outputs_inherit_what_they_do_not_say() {
    let mut harness = Harness::<Many>::new();
    let emitted = harness
        .process(lines(&["forward", "a", "forward", "later", "b", "keyed"]))
        .unwrap();
    let seen: Vec<_> = emitted
        .iter()
        .map(|e| (e.port.as_str(), e.text().unwrap(), e.timestamp))
        .collect();
    let expected = [
        ("same", "forward", 0),
        ("same", "", 1),
        ("same", "forward", 2),
        ("same", "late", 99),
        ("same", "a", 4),
        ("keyed", "five", 5),
    ];
    assert_eq!(seen, expected);
    assert_eq!(emitted[0].key, 3u32.to_le_bytes());
    assert_eq!(emitted[5].key, 5u64.to_le_bytes());
    assert_eq!(take_captured().log.len(), 6);
    let tick = harness.watermark(50).unwrap();
    assert_eq!((tick[0].text().unwrap(), tick[0].timestamp), ("tick", 50));
    let end = harness.finish().unwrap();
    assert_eq!((end[0].text().unwrap(), end[0].timestamp), ("tick", i64::MAX));
    assert_eq!(
        (end.len(), end[1].text().unwrap(), end[1].key.as_slice()),
        (2, "end", &1u64.to_le_bytes()[..])
    );
}

#[test]
fn a_failed_call_keeps_nothing() {
    let mut harness = Harness::<Many>::new();
    harness.process(lines(&["a"])).unwrap();
    let before = harness.snapshot();
    let failure = harness.process(lines(&["b", "fail"])).unwrap_err();
    assert_eq!((failure.row, failure.message.as_str()), (Some(1), "as told"));
    assert_eq!(harness.snapshot(), before);
    harness.process(lines(&["remove"])).unwrap();
    assert!(harness.state::<Vec<u8>, String>("last").unwrap().is_empty());
    let profiles = harness.state::<Compound<Place>, Inner<u8>>("profile").unwrap();
    assert_eq!(profiles[&Compound(Place { x: 3 })].user_name, "a");
}

/// Another version, in which `last` is a number.
struct Other {
    _last: ValueState<u64>,
    _profile: ValueState<Inner<u8>>,
}

impl Operator for Other {
    type Key<'a> = Compound<Place>;
    type In<'a> = Text<'a>;
    fn declare(d: &mut Declare) -> Self {
        Other {
            _last: d.value("last"),
            _profile: d.value("profile"),
        }
    }
    fn process(&mut self, _: Compound<Place>, _: Text, _: &mut Ctx) -> Result<()> {
        Ok(())
    }
}

#[test]
fn state_of_another_schema_is_never_guessed() {
    let mut harness = Harness::<Many>::new();
    harness.process(lines(&["a"])).unwrap();
    let refused = Harness::<Other>::restore(&harness.snapshot()).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "state `last` has values of \"u64\", it had values of \"string\"; a harness does not change them"
    );
}

#[test]
fn instances_go_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<regraft_sdk::native::Instance<Many>>();
}

/// Nothing but numbers and truth values: such a type is read and written without serde.
#[derive(State, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
struct Numbers {
    a: bool,
    b: u8,
    c: u16,
    d: u32,
    e: u64,
    f: i8,
    #[serde(default, rename = "gee")]
    g: i16,
    h: i32,
    i: i64,
    j: f32,
    k: f64,
}

#[test]
fn numbers_are_encoded_as_the_codec_does() {
    fn check<T: State + Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug>(value: T) {
        let (mut plain, mut by_codec) = (vec![7], vec![7]);
        assert!(value.write_plain(&mut plain), "{value:?} has no shorter way");
        codec::encode(&value, &mut by_codec).unwrap();
        assert_eq!(plain, by_codec, "{value:?}");
        let bytes = &plain[1..];
        assert_eq!(T::read_plain(bytes).as_ref(), Some(&value));
        // One byte less or more is no value, to either.
        assert_eq!(T::read_plain(&bytes[..bytes.len() - 1]), None);
        by_codec.push(0);
        assert_eq!(T::read_plain(&by_codec[1..]), None);
        assert!(codec::decode::<T>(&by_codec[1..]).is_err());
    }
    let mut x = 1u64;
    for round in 0..20_000u64 {
        x = x
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // All lengths, and the edges between them.
        let n = if round < 2_000 {
            round.wrapping_sub(1_000)
        } else {
            ((x >> 3) ^ x.rotate_left(40)) >> (round % 64)
        };
        for n in [n, n.wrapping_neg(), (1u64 << (round % 64)).wrapping_sub(round & 3)] {
            check(n);
            check(n as u32);
            check(n as u16);
            check(n as u8);
            check(n as i64);
            check(n as i32);
            check(n as i16);
            check(n as i8);
            check(n & 1 == 1);
            check(n as f64 / 3.0);
            check(n as f32 / 3.0);
            check(Numbers {
                a: n & 2 == 2,
                b: n as u8,
                c: (n >> 1) as u16,
                d: (n >> 2) as u32,
                e: n >> 3,
                f: (n >> 4) as i8,
                g: (n >> 5) as i16,
                h: (n >> 6) as i32,
                i: (n >> 7) as i64,
                j: n as f32,
                k: -(n as f64),
            });
        }
    }
    // What one refuses, so does the other: a number that is too large, a truth value that is none, an unknown length.
    fn refused<T: State + Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
        assert_eq!(T::read_plain(bytes), None);
        assert!(codec::decode::<T>(bytes).is_err());
    }
    refused::<u16>(&[252, 0, 0, 1, 0]);
    refused::<i32>(&[253, 1, 0, 0, 0, 1, 0, 0, 0]);
    refused::<bool>(&[2]);
    refused::<u64>(&[254, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    refused::<u64>(&[255]);
    refused::<u8>(&[]);
    // Longer than it need be: nobody writes it, and both read it.
    for bytes in [&[251, 5, 0][..], &[252, 5, 0, 0, 0], &[253, 5, 0, 0, 0, 0, 0, 0, 0]] {
        assert_eq!(
            (u64::read_plain(bytes), codec::decode::<u64>(bytes).unwrap()),
            (Some(5), 5)
        );
    }
    assert_eq!(Numbers::read_plain(&[0; 11]), None);
}
