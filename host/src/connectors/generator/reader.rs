//! Makes up records. A record is a function of (seed, split, offset), so it can be replayed anywhere.

use std::sync::Arc;

use regraft_model::batch::Batch;
use regraft_model::origin::Origin;
use regraft_model::schema::Type;
use regraft_model::value::{Value, encode};
use serde_json::json;

use super::settings::{GeneratorField, GeneratorSource, GeneratorValues};
use crate::connector::source::{Assigned, Polled, SourceError, SourceReader, SplitState};

/// The greatest offset in a saved position, so that more records can be counted.
const OFFSET_MAX: u64 = u64::MAX >> 2;

/// A batch with this many bytes is handed on, however few its records are.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Returns the names of all splits, sorted.
#[must_use]
pub fn list(settings: &GeneratorSource) -> Vec<String> {
    (0..settings.splits).map(split_name).collect()
}

fn split_name(number: u32) -> String {
    format!("{number:05}")
}

#[derive(Debug)]
struct Split {
    number: u32,
    name: Arc<str>,
    offset: u64,
    /// Number of its records in all.
    rows: u64,
}

/// Makes the records of one subtask's splits, a batch of each in turn.
#[derive(Debug)]
pub struct GeneratorReader {
    settings: GeneratorSource,
    fields: Vec<FieldMaker>,
    splits: Vec<Split>,
    next: usize,
    scratch: Vec<u8>,
    /// The value is one raw field rather than a record.
    raw: bool,
    /// Position of the field that is the event time.
    timestamp: Option<usize>,
}

#[derive(Debug)]
struct FieldMaker {
    field: GeneratorField,
    zipf: Option<Zipf>,
}

impl GeneratorReader {
    /// Opens a reader of these splits.
    ///
    /// # Errors
    /// [`SourceError::Position`] where a saved position is none.
    pub fn new(settings: GeneratorSource, splits: Vec<Assigned>) -> Result<Self, SourceError> {
        let total = u64::from(settings.splits.max(1));
        let mut own = vec![];
        for (name, saved) in splits {
            let wrong = |position: String| SourceError::Position {
                split: name.clone(),
                position,
                connector: super::CONNECTOR.name,
            };
            let number: Option<u32> = name.parse().ok();
            let number = number.filter(|number| u64::from(*number) < total && split_name(*number) == name);
            let number = number.ok_or_else(|| wrong("its name".to_owned()))?;
            let offset = match &saved {
                None => Some(0),
                Some(saved) => saved["offset"].as_u64().filter(|offset| *offset <= OFFSET_MAX),
            };
            let offset = offset.ok_or_else(|| wrong(saved.unwrap_or_default().to_string()))?;
            let rows = settings.rows.map_or(u64::MAX, |rows| {
                rows / total + u64::from(u64::from(number) < rows % total)
            });
            own.push(Split {
                number,
                name: name.as_str().into(),
                offset,
                rows,
            });
        }
        own.sort_by(|a, b| a.name.cmp(&b.name));
        let maker = |field: &GeneratorField| FieldMaker {
            zipf: match field.values {
                GeneratorValues::Zipf { n, exponent } => Some(Zipf::new(n, exponent)),
                _ => None,
            },
            field: field.clone(),
        };
        let fields: Vec<FieldMaker> = settings.fields.iter().map(maker).collect();
        let raw = settings.value_is_raw();
        Ok(Self {
            settings,
            fields,
            splits: own,
            next: 0,
            scratch: vec![],
            raw,
            timestamp: None,
        })
    }

    /// Gives each record the event time that its field at this position has, in milliseconds since the Unix epoch.
    #[must_use]
    pub const fn with_timestamps(mut self, field: Option<usize>) -> Self {
        self.timestamp = field;
        self
    }

    fn make(&mut self, at: usize, count: usize) -> Batch {
        let split = &mut self.splits[at];
        let mut batch = Batch::default();
        let first = split.offset;
        for offset in first..first + count as u64 {
            if batch.keys.column.data.len() + batch.values.data.len() >= BATCH_BYTES_MAX {
                break;
            }
            let base = mix(self.settings.seed ^ mix(u64::from(split.number) ^ mix(offset)));
            let sequence = |start: u64| {
                start
                    .wrapping_add(offset.wrapping_mul(u64::from(self.settings.splits)))
                    .wrapping_add(split.number.into())
            };
            for (i, maker) in self.fields.iter().enumerate() {
                let stream = base ^ (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                if self.timestamp == Some(i) {
                    let time = maker.number(stream, &sequence).unwrap_or(0);
                    batch.timestamps.push(i64::try_from(time).unwrap_or(i64::MAX));
                }
                let is_key = self.settings.key == Some(i);
                if is_key {
                    maker.put(stream, &sequence, true, &mut self.scratch, &mut batch.keys.column.data);
                } else {
                    maker.put(stream, &sequence, self.raw, &mut self.scratch, &mut batch.values.data);
                }
            }
            if self.settings.key.is_some() {
                batch.keys.column.ends.push(batch.keys.column.data.len() as u32);
            }
            batch.values.ends.push(batch.values.data.len() as u32);
        }
        split.offset += batch.values.len() as u64;
        batch.origin = Some(Origin::sequence(split.name.clone(), first));
        batch
    }
}

impl FieldMaker {
    /// Returns the number that is drawn; `None` where bytes are.
    fn number(&self, stream: u64, sequence: &dyn Fn(u64) -> u64) -> Option<u64> {
        match &self.field.values {
            GeneratorValues::Range { first, last } => Some(first + below(stream, last - first)),
            GeneratorValues::Zipf { .. } => Some(self.zipf.as_ref().map_or(0, |zipf| zipf.rank(stream))),
            GeneratorValues::Sequence { first } => Some(sequence(*first)),
            GeneratorValues::Random { .. } => None,
        }
    }

    /// Appends the field; `raw`: as key bytes or raw value, else as part of a record.
    fn put(&self, stream: u64, sequence: &dyn Fn(u64) -> u64, raw: bool, scratch: &mut Vec<u8>, out: &mut Vec<u8>) {
        let Some(number) = self.number(stream, sequence) else {
            self.random(stream, scratch);
            return put_bytes(&self.field.ty, scratch, raw, out);
        };
        match self.field.ty {
            Type::U64 if raw => out.extend_from_slice(&number.to_le_bytes()),
            Type::U64 => {
                // Encoding an unsigned number as itself cannot fail.
                let _ = encode(&Type::U64, &Value::Unsigned(number), out);
            }
            _ => {
                scratch.clear();
                letters(number, scratch);
                put_bytes(&self.field.ty, scratch, raw, out);
            }
        }
    }
}

impl FieldMaker {
    /// Fills `scratch` with random bytes, or letters.
    fn random(&self, stream: u64, scratch: &mut Vec<u8>) {
        let GeneratorValues::Random { len } = self.field.values else {
            return;
        };
        scratch.clear();
        let mut state = stream;
        while scratch.len() < len as usize {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            scratch.extend_from_slice(&mix(state).to_le_bytes());
        }
        scratch.truncate(len as usize);
        if self.field.ty == Type::String {
            scratch.iter_mut().for_each(|b| *b = b'a' + *b % 26);
        }
    }
}

fn put_bytes(ty: &Type, bytes: &[u8], raw: bool, out: &mut Vec<u8>) {
    if raw {
        out.extend_from_slice(bytes);
    } else {
        let value = match ty {
            Type::String => Value::Text(String::from_utf8_lossy(bytes).into_owned()),
            _ => Value::Bytes(bytes.to_vec()),
        };
        let _ = encode(ty, &value, out);
    }
}

/// A number in base 26: 0 is `a`, 25 is `z`, 26 is `ba`.
fn letters(mut number: u64, out: &mut Vec<u8>) {
    let start = out.len();
    loop {
        out.push(b'a' + (number % 26) as u8);
        number /= 26;
        if number == 0 {
            break;
        }
    }
    out[start..].reverse();
}

/// The finaliser of SplitMix64.
#[inline]
const fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Uniform in `0..=most`.
#[inline]
fn below(stream: u64, most: u64) -> u64 {
    let random = mix(stream);
    if most == u64::MAX {
        random
    } else {
        ((u128::from(random) * (u128::from(most) + 1)) >> 64) as u64
    }
}

/// Zipf by rejection-inversion (Hörmann and Derflinger, 1996).
#[derive(Debug)]
struct Zipf {
    n: f64,
    exponent: f64,
    h_half: f64,
    h_n: f64,
    cut: f64,
}

impl Zipf {
    fn new(n: u64, exponent: f64) -> Self {
        let n = n.max(1) as f64;
        let h = |x: f64| h(x, exponent);
        Self {
            n,
            exponent,
            h_half: h(1.5) - 1.0,
            h_n: h(n + 0.5),
            cut: 2.0 - h_inverse(h(2.5) - 2f64.powf(-exponent), exponent),
        }
    }

    fn rank(&self, mut stream: u64) -> u64 {
        loop {
            stream = mix(stream);
            let uniform = (stream >> 11) as f64 / (1u64 << 53) as f64;
            let u = self.h_n + uniform * (self.h_half - self.h_n);
            let x = h_inverse(u, self.exponent);
            let k = (x + 0.5).floor().clamp(1.0, self.n);
            if k - x <= self.cut || u >= h(k + 0.5, self.exponent) - k.powf(-self.exponent) {
                return k as u64 - 1;
            }
        }
    }
}

fn h(x: f64, s: f64) -> f64 {
    if (s - 1.0).abs() < 1e-9 {
        x.ln()
    } else {
        (x.powf(1.0 - s) - 1.0) / (1.0 - s)
    }
}

fn h_inverse(u: f64, s: f64) -> f64 {
    if (s - 1.0).abs() < 1e-9 {
        u.exp()
    } else {
        (1.0 + u * (1.0 - s)).powf(1.0 / (1.0 - s))
    }
}

/// Returns a split as it is saved.
fn state_of(split: &Split) -> SplitState {
    SplitState {
        split: split.name.to_string(),
        position: json!({ "offset": split.offset }),
    }
}

impl SourceReader for GeneratorReader {
    fn poll(&mut self, records_max: usize, _: u64) -> Result<Polled, SourceError> {
        let count = self.splits.len();
        for turn in 0..count {
            let at = (self.next + turn) % count;
            let left = self.splits[at].rows.saturating_sub(self.splits[at].offset);
            if left > 0 {
                self.next = (at + 1) % count;
                let batch = self.make(at, records_max.min(usize::try_from(left).unwrap_or(usize::MAX)));
                return Ok(Polled::Batch(batch));
            }
        }
        // An endless source without a split has nothing now, and may have after a rescale only.
        Ok(Polled::Exhausted)
    }

    fn snapshot(&self) -> Vec<SplitState> {
        self.splits.iter().map(state_of).collect()
    }

    fn split_count(&self) -> usize {
        self.splits.len()
    }

    fn changed(&mut self) -> Vec<Arc<str>> {
        self.splits.iter().map(|split| split.name.clone()).collect()
    }

    fn position(&self, split: &str) -> Option<SplitState> {
        let at = self.splits.binary_search_by(|other| (*other.name).cmp(split)).ok()?;
        Some(state_of(&self.splits[at]))
    }

    fn open_splits(&self) -> Vec<Arc<str>> {
        let open = self.splits.iter().filter(|split| split.offset < split.rows);
        open.map(|split| split.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> GeneratorSource {
        let field = |name: &str, ty, values| GeneratorField {
            name: name.into(),
            ty,
            values,
        };
        GeneratorSource {
            seed: 7,
            splits: 3,
            rows: Some(100),
            fields: vec![
                field("user", Type::U64, GeneratorValues::Zipf { n: 50, exponent: 1.1 }),
                field("payload", Type::Bytes, GeneratorValues::Random { len: 5 }),
            ],
            key: Some(0),
        }
    }

    fn all(settings: &GeneratorSource, step: usize, owners: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = vec![];
        for owner in 0..owners {
            let splits = list(settings)
                .into_iter()
                .skip(owner as usize)
                .step_by(owners as usize)
                .map(|s| (s, None))
                .collect();
            let mut reader = GeneratorReader::new(settings.clone(), splits).expect("reader");
            while let Ok(Polled::Batch(batch)) = reader.poll(step, 0) {
                records.extend((0..batch.len()).map(|i| (batch.key(i).to_vec(), batch.values.get(i).to_vec())));
            }
        }
        records.sort();
        records
    }

    #[test]
    fn records_depend_on_seed_split_and_offset_only() {
        let expected = all(&settings(), 7, 1);
        assert_eq!(expected.len(), 100);
        assert!(expected.iter().all(|(key, value)| key.len() == 8 && value.len() == 5));
        assert_eq!(all(&settings(), 64, 3), expected);
        assert_ne!(all(&GeneratorSource { seed: 8, ..settings() }, 7, 1), expected);
    }

    #[test]
    fn a_field_may_be_the_event_time() {
        let mut settings = settings();
        settings.fields.push(GeneratorField {
            name: "time".into(),
            ty: Type::U64,
            values: GeneratorValues::Sequence { first: 1000 },
        });
        let mut reader = GeneratorReader::new(settings, vec![("00001".to_owned(), None)])
            .expect("reader")
            .with_timestamps(Some(2));
        let Ok(Polled::Batch(batch)) = reader.poll(4, 0) else {
            panic!("no batch");
        };
        assert_eq!(batch.timestamps, [1001, 1004, 1007, 1010]);
    }

    #[test]
    fn a_position_goes_on_where_it_was() {
        let settings = settings();
        let splits = || list(&settings).into_iter().map(|s| (s, None)).collect();
        let mut reader = GeneratorReader::new(settings.clone(), splits()).expect("reader");
        let mut records: Vec<Vec<u8>> = vec![];
        for _ in 0..4 {
            if let Ok(Polled::Batch(batch)) = reader.poll(9, 0) {
                records.extend(batch.values.iter().map(<[u8]>::to_vec));
            }
        }
        let saved = reader
            .snapshot()
            .into_iter()
            .map(|s| (s.split, Some(s.position)))
            .collect();
        let mut again = GeneratorReader::new(settings.clone(), saved).expect("reader");
        while let Ok(Polled::Batch(batch)) = again.poll(9, 0) {
            records.extend(batch.values.iter().map(<[u8]>::to_vec));
        }
        records.sort();
        let mut expected: Vec<Vec<u8>> = all(&settings, 5, 1).into_iter().map(|(_, value)| value).collect();
        expected.sort();
        assert_eq!(records, expected);
    }

    #[test]
    fn zipf_falls_off_as_it_should() {
        let zipf = Zipf::new(1000, 1.0);
        let mut counts = [0u32; 1000];
        for i in 0..200_000 {
            counts[zipf.rank(mix(i)) as usize] += 1;
        }
        // Rank 0 has weight 1 of H(1000) = 7.485.
        assert!((26_000..27_500).contains(&counts[0]), "{}", counts[0]);
        assert!((12_900..13_900).contains(&counts[1]), "{}", counts[1]);
    }

    #[test]
    fn numbers_as_letters() {
        let text = |n| {
            let mut out = vec![];
            letters(n, &mut out);
            String::from_utf8(out).expect("letters")
        };
        assert_eq!(
            [0, 25, 26, 703].map(text),
            ["a", "z", "ba", "bbb"].map(str::to_owned).map(|s| s)
        );
    }

    #[test]
    fn each_position_is_found_by_its_name() {
        let splits = (0..300)
            .rev()
            .map(|n| (format!("{n:05}"), Some(json!({ "offset": n }))));
        let settings = GeneratorSource {
            splits: 300,
            ..settings()
        };
        let reader = GeneratorReader::new(settings.clone(), splits.collect()).expect("a reader");
        for (name, offset) in [("00300", 1), ("0", 1), ("x", 1), ("00001", u64::MAX)] {
            let foreign = vec![(name.to_owned(), Some(json!({ "offset": offset })))];
            assert!(GeneratorReader::new(settings.clone(), foreign).is_err(), "{name}");
        }
        assert_eq!(reader.split_count(), 300);
        let all = reader.snapshot();
        for state in &all {
            assert_eq!(reader.position(&state.split).as_ref(), Some(state));
        }
        assert_eq!(all[7].position, json!({ "offset": 7 }));
        assert_eq!(reader.position("00300"), None);
    }
}
