//! The hand-written loops: one map for each thread, no more than the work itself.

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
use crate::settings::{Hand, Settings};
use crate::text;
use crate::workload::{number, record};

mod threads;

pub(crate) use threads::{arithmetic, chain, records_exchanged, words_shared};

/// Bytes read at once, as in the host's file source.
const CHUNK: usize = 256 * 1024;

/// Count by word.
type Words = HashMap<Box<[u8]>, u64, FxBuildHasher>;
/// Count and sum by key.
type Sums = HashMap<u64, (u64, u64), FxBuildHasher>;

/// W1: counts the words of files.
pub(crate) fn words(files: &[PathBuf]) -> Result<Totals, Failure> {
    total_words(&count_words(files)?)
}

fn count_words(files: &[PathBuf]) -> Result<Words, Failure> {
    let mut counts = Words::default();
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
    Ok(counts)
}

#[inline(always)]
fn take(sums: &mut Sums, key: u64, number: u64) {
    let (count, sum) = sums.entry(key).or_default();
    *count += 1;
    *sum = sum.wrapping_add(number);
}

/// W2: counts and sums the records of one split while they are generated.
pub(crate) fn records(rows: u64, keys: u64) -> Result<Totals, Failure> {
    let mut sums = Sums::default();
    for offset in 0..rows {
        let (key, value) = record(0, offset, keys);
        // The whole value is made, as for the other contenders, though only its first number is used.
        let value = black_box(value);
        take(&mut sums, key, number(&value));
    }
    total_sums(&sums)
}

/// Does the work of a process of its own, and prints what it emitted as the other programs do.
pub(crate) fn process(hand: Hand, settings: &Settings) -> Result<(), Failure> {
    let threads = settings.parallelism.first().copied().unwrap_or(1) as usize;
    let (rows, keys, splits) = (settings.records, settings.keys, settings.splits);
    let Totals { records, checksum } = match hand {
        Hand::W1 => words_shared(
            &text::make(&settings.dir, settings.size, settings.files)?.files,
            threads,
        )?,
        Hand::W2 => records_exchanged(rows, keys, splits, threads)?,
        Hand::W3 => arithmetic(rows, keys, splits, threads)?,
        Hand::Chain => chain(rows, keys, splits, threads, settings.maps)?,
    };
    println!("records={records} checksum={checksum:016x}");
    Ok(())
}

/// W2 on records that exist already.
pub(crate) fn batches(batches: &[Batch]) -> Result<Totals, Failure> {
    let mut sums = Sums::default();
    for batch in batches {
        for i in 0..batch.len() {
            take(&mut sums, number(batch.keys.column.get(i)), number(batch.values.get(i)));
        }
    }
    total_sums(&sums)
}

fn total_words(counts: &Words) -> Result<Totals, Failure> {
    total(counts.iter().map(|(word, count)| {
        Ok::<_, Failure>(CountedWord {
            word: std::str::from_utf8(word)?,
            count: *count,
        })
    }))
}

fn total_sums(sums: &Sums) -> Result<Totals, Failure> {
    total(
        sums.iter()
            .map(|(&key, &(count, sum))| Ok(CountedRecord { key, count, sum })),
    )
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
