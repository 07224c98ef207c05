//! The byte vectors of `docs/formats/vectors.json`, one by one and in their order, against the SDK's schemas and codecs.

use regraft_sdk::key::{FromKey, ToKey};
use regraft_sdk::{Compound, State, codec};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Debug;

/// The vectors that have not been checked yet.
struct Vectors(std::vec::IntoIter<Value>);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Vectors {
    fn read() -> Self {
        let all: Vec<Value> = serde_json::from_str(include_str!("../../docs/formats/vectors.json")).unwrap();
        Vectors(all.into_iter())
    }

    /// Checks the next vector's kind and type, and returns its bytes in hex.
    fn next(&mut self, kind: &str, schema: &str) -> String {
        let vector = self.0.next().expect("a vector for each value");
        let ty: Value = serde_json::from_str(schema).unwrap();
        assert_eq!((&vector["as"], &vector["type"]), (&Value::from(kind), &ty), "{vector}");
        vector["hex"].as_str().unwrap().to_owned()
    }

    fn value<T: State + Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, value: T) {
        let expected = self.next("value", &T::schema().to_json());
        let mut bytes = Vec::new();
        codec::encode(&value, &mut bytes).unwrap();
        assert_eq!(hex(&bytes), expected, "{value:?}");
        assert_eq!(codec::decode::<T>(&bytes).unwrap(), value);
        let mut short = Vec::new();
        if value.write_plain(&mut short) {
            assert_eq!(hex(&short), expected, "{value:?}, the shorter way");
            assert_eq!(T::read_plain(&bytes), Some(value));
        }
    }

    fn values<T: State + Serialize + DeserializeOwned + PartialEq + Debug>(
        &mut self,
        values: impl IntoIterator<Item = T>,
    ) {
        values.into_iter().for_each(|value| self.value(value));
    }

    /// `K` is what an operator reads the key as.
    fn key<'a, K: FromKey<'a>>(&mut self, key: &(impl ToKey + ?Sized)) {
        let expected = self.next("key", &K::key_type().to_json());
        let mut bytes = Vec::new();
        key.write(&mut bytes).unwrap();
        assert_eq!(hex(&bytes), expected);
    }
}

#[derive(State, Serialize, Deserialize, PartialEq, Debug)]
struct Session {
    clicks: u64,
    last: Option<i64>,
    pages: Vec<String>,
    token: Vec<u8>,
}

#[derive(State, Serialize, Deserialize, PartialEq, Debug)]
struct Plain {
    a: u32,
    b: f64,
    c: bool,
    d: i16,
}

#[derive(State, Serialize, Deserialize, PartialEq, Debug)]
enum Event {
    Idle,
    Click(u64),
    Move(i32, i32),
    Text { of: String },
}

#[derive(State, Serialize, Deserialize, PartialEq, Debug)]
struct Place {
    country: String,
    zip: u32,
}

fn scalars(vectors: &mut Vectors) {
    vectors.value(());
    vectors.values([false, true]);
    vectors.values([0u8, 255]);
    vectors.values([-1i8, -128]);
    vectors.values([0u16, 250, 251, 65_535]);
    vectors.values([250u32, 251, 65_536, u32::MAX]);
    vectors.values([0u64, 250, 251, 65_535, 65_536, u32::MAX.into(), 1 << 32, u64::MAX]);
    vectors.values([0i16, -1, 1, i16::MIN, i16::MAX]);
    vectors.values([-125i32, 125, -126, i32::MIN, i32::MAX]);
    vectors.values([0i64, -1, 1, -125, 125, -126, i64::MIN, i64::MAX]);
    vectors.values([0.0f32, 1.5, -1.0]);
    vectors.values([0.0f64, 0.1, -1e300]);
    vectors.values(['a', 'é', '€', '😀']);
    vectors.values([String::new(), "né".to_owned(), "x".repeat(251)]);
    vectors.values([vec![], vec![0u8, 255], vec![0xab; 251]]);
}

fn composites(vectors: &mut Vectors) {
    vectors.values([None, Some(251u64)]);
    vectors.values([vec![], vec![1u64, 251, 2]]);
    vectors.value(vec!["a".to_owned(), String::new()]);
    vectors.value(vec![vec![1u8], vec![]]);
    vectors.value(BTreeMap::from([("a".to_owned(), 1u32), ("b".to_owned(), 300)]));
    vectors.value(BTreeMap::from([(7u16, true)]));
    vectors.value((300u64, "x".to_owned(), true));
    vectors.value([1u16, 2, 300]);
    vectors.values([
        Session {
            clicks: 3,
            last: Some(-2),
            pages: vec!["/".to_owned(), "/a".to_owned()],
            token: vec![0xc0, 0xff, 0xee],
        },
        Session {
            clicks: 0,
            last: None,
            pages: vec![],
            token: vec![],
        },
    ]);
    vectors.value(Plain {
        a: 70_000,
        b: 2.5,
        c: true,
        d: -300,
    });
    vectors.values([
        Event::Idle,
        Event::Click(1000),
        Event::Move(-1, 1),
        Event::Text { of: "hi".to_owned() },
    ]);
}

fn keys(vectors: &mut Vectors) {
    vectors.key::<bool>(&true);
    vectors.key::<u8>(&7u8);
    vectors.key::<u16>(&300u16);
    vectors.key::<u32>(&70_000u32);
    vectors.key::<u64>(&u64::MAX);
    vectors.key::<i8>(&-1i8);
    vectors.key::<i16>(&-2i16);
    vectors.key::<i32>(&-70_000i32);
    vectors.key::<i64>(&i64::MIN);
    vectors.key::<char>(&'é');
    vectors.key::<&str>("");
    vectors.key::<&str>("né");
    vectors.key::<&[u8]>(&[][..]);
    vectors.key::<&[u8]>(&[0, 255][..]);
    vectors.key::<Compound<String>>(&Compound("né".to_owned()));
    vectors.key::<Compound<Vec<u8>>>(&Compound(vec![0u8, 255]));
    vectors.key::<(u64, String)>(&(300u64, "x".to_owned()));
    vectors.key::<(u16, i64, bool)>(&(1u16, -1i64, false));
    vectors.key::<Compound<Place>>(&Compound(Place {
        country: "LV".to_owned(),
        zip: 1010,
    }));
}

#[test]
fn every_vector_is_the_sdks_encoding() {
    let mut vectors = Vectors::read();
    scalars(&mut vectors);
    composites(&mut vectors);
    keys(&mut vectors);
    assert_eq!(vectors.0.len(), 0, "all have been checked");
}
