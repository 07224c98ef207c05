//! The hand-written loops: one thread, one map, no more than the work itself.

use std::fs::File;
use std::hint::black_box;
use std::io::Read as _;
use std::path::PathBuf;

use hashbrown::HashMap;
use regraft_model::batch::Batch;
use regraft_sdk::codec;
use rolling_count_count::Counted as CountedRecord;
use rustc_hash::FxBuildHasher;
use serde::Serialize;
use word_count_count::Counted as CountedWord;
use xxhash_rust::xxh3::xxh3_64;

use crate::Failure;
use crate::pipeline::Totals;
use crate::records::record;

/// Bytes read at once, as in the host's file source.
const CHUNK: usize = 256 * 1024;

/// W1: counts the words of files.
pub(crate) fn words(files: &[PathBuf]) -> Result<Totals, Failure> {
    let mut counts: HashMap<Box<[u8]>, u64, FxBuildHasher> = HashMap::default();
    let mut buffer = vec![0; CHUNK];
    for file in files {
        let mut file = File::open(file)?;
        // Length of the part of a word whose end has not been read yet.
        let mut open = 0;
        loop {
            if open == buffer.len() {
                buffer.resize(open * 2, 0);
            }
            let read = file.read(&mut buffer[open..])?;
            buffer[open..open + read].make_ascii_lowercase();
            let text = &buffer[..open + read];
            let letter = |byte: &u8| byte.is_ascii_lowercase();
            let whole = if read == 0 {
                text.len()
            } else {
                text.iter().rposition(|b| !letter(b)).map_or(0, |at| at + 1)
            };
            for word in text[..whole].split(|byte| !letter(byte)) {
                if word.is_empty() {
                    continue;
                }
                if let Some(count) = counts.get_mut(word) {
                    *count += 1;
                } else {
                    counts.insert(word.into(), 1);
                }
            }
            open = text.len() - whole;
            buffer.copy_within(whole..whole + open, 0);
            if read == 0 {
                break;
            }
        }
    }
    let words = counts.iter().map(|(word, count)| {
        Ok::<_, Failure>(CountedWord {
            word: std::str::from_utf8(word)?,
            count: *count,
        })
    });
    total(words)
}

/// Count and sum by key.
type Sums = HashMap<u64, (u64, u64), FxBuildHasher>;

#[inline(always)]
fn take(sums: &mut Sums, key: u64, number: u64) {
    let (count, sum) = sums.entry(key).or_default();
    *count += 1;
    *sum = sum.wrapping_add(number);
}

/// W2: counts and sums records while they are generated.
pub(crate) fn records(rows: u64, keys: u64) -> Result<Totals, Failure> {
    let mut sums = Sums::default();
    for offset in 0..rows {
        let (key, value) = record(offset, keys);
        // The whole value is made, as for the other contenders, though only its first number is used.
        let value = black_box(value);
        take(&mut sums, key, first_number(&value));
    }
    total(
        sums.iter()
            .map(|(&key, &(count, sum))| Ok(CountedRecord { key, count, sum })),
    )
}

/// W2 on records that exist already.
pub(crate) fn batches(batches: &[Batch]) -> Result<Totals, Failure> {
    let mut sums = Sums::default();
    for batch in batches {
        for i in 0..batch.len() {
            let key = batch.keys.column.get(i).first_chunk().copied().unwrap_or_default();
            take(&mut sums, u64::from_le_bytes(key), first_number(batch.values.get(i)));
        }
    }
    total(
        sums.iter()
            .map(|(&key, &(count, sum))| Ok(CountedRecord { key, count, sum })),
    )
}

#[inline(always)]
fn first_number(value: &[u8]) -> u64 {
    u64::from_le_bytes(value.first_chunk().copied().unwrap_or_default())
}

/// Sums up the records that the operators would emit.
fn total<T: Serialize>(emitted: impl Iterator<Item = Result<T, Failure>>) -> Result<Totals, Failure> {
    let mut totals = Totals::default();
    let mut value = vec![];
    for record in emitted {
        value.clear();
        codec::encode(&record?, &mut value).map_err(|error| error.to_string())?;
        totals.add(xxh3_64(&value));
    }
    Ok(totals)
}
