//! The same loops on several threads, over the splits that the other programs read.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread;

use xxhash_rust::xxh3::xxh3_64;

use super::{Sums, count_words, take, total_sums, total_words};
use crate::Failure;
use crate::pipeline::Totals;
use crate::workload::{self, mix, number, record, split_rows};

/// Records that are sent at once.
const BATCH: usize = 4096;
/// Batches that a channel holds.
const CHANNEL: usize = 16;

/// Key, and the number of the value.
type Sent = Vec<(u64, [u8; workload::VALUE])>;

/// Adds up the totals of threads.
fn sum(parts: impl IntoIterator<Item = Result<Totals, Failure>>) -> Result<Totals, Failure> {
    parts.into_iter().try_fold(Totals::default(), |sum, part| {
        let part = part?;
        Ok(Totals {
            records: sum.records + part.records,
            checksum: sum.checksum.wrapping_add(part.checksum),
        })
    })
}

/// Runs a function for the number of each thread.
fn each<T: Send>(threads: usize, run: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if threads == 1 {
        return vec![run(0)];
    }
    thread::scope(|scope| {
        let run = &run;
        let started: Vec<_> = (0..threads).map(|me| scope.spawn(move || run(me))).collect();
        started
            .into_iter()
            .map(|thread| thread.join().expect("a loop that does not panic"))
            .collect()
    })
}

/// W1: every thread counts the words of its files, and the maps are merged at the end.
pub(crate) fn words_shared(files: &[PathBuf], threads: usize) -> Result<Totals, Failure> {
    let mut maps = each(threads, |me| {
        let own: Vec<PathBuf> = files.iter().skip(me).step_by(threads).cloned().collect();
        count_words(&own)
    })
    .into_iter();
    let mut all = maps.next().ok_or("no thread")??;
    for map in maps {
        for (word, count) in map? {
            *all.entry(word).or_default() += count;
        }
    }
    total_words(&all)
}

/// W2: every thread makes the records of its splits and counts those of its keys; batches of the others go to their
/// thread over a bounded channel, as in any shuffle.
pub(crate) fn records_exchanged(rows: u64, keys: u64, splits: u64, threads: usize) -> Result<Totals, Failure> {
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| sync_channel(CHANNEL)).unzip();
    thread::scope(|scope| {
        let mut started = vec![];
        for (me, receiver) in receivers.into_iter().enumerate() {
            let counter = Counter {
                me,
                sums: Sums::default(),
                buffers: vec![Sent::with_capacity(BATCH); threads],
                senders: senders.clone(),
                receiver,
            };
            started.push(scope.spawn(move || counter.run(rows, keys, splits)));
        }
        drop(senders);
        sum(started
            .into_iter()
            .map(|thread| thread.join().expect("a loop that does not panic")))
    })
}

/// One thread of W2.
struct Counter {
    me: usize,
    sums: Sums,
    buffers: Vec<Sent>,
    senders: Vec<SyncSender<Sent>>,
    receiver: Receiver<Sent>,
}

impl Counter {
    fn run(mut self, rows: u64, keys: u64, splits: u64) -> Result<Totals, Failure> {
        let threads = self.buffers.len();
        for split in (self.me as u64..splits).step_by(threads) {
            for offset in 0..split_rows(rows, splits, split) {
                let (key, value) = record(split, offset, keys);
                let value = black_box(value);
                let to = if threads == 1 {
                    0
                } else {
                    (mix(key) >> 32) as usize % threads
                };
                if to == self.me {
                    take(&mut self.sums, key, number(&value));
                    continue;
                }
                self.buffers[to].push((key, value));
                if self.buffers[to].len() == BATCH {
                    self.send(to)?;
                }
            }
        }
        for to in 0..threads {
            if !self.buffers[to].is_empty() {
                self.send(to)?;
            }
        }
        self.senders.clear();
        while let Ok(batch) = self.receiver.recv() {
            self.count(&batch);
        }
        total_sums(&self.sums)
    }

    fn send(&mut self, to: usize) -> Result<(), Failure> {
        let mut batch = std::mem::replace(&mut self.buffers[to], Sent::with_capacity(BATCH));
        while let Err(error) = self.senders[to].try_send(batch) {
            batch = match error {
                TrySendError::Full(batch) => batch,
                TrySendError::Disconnected(_) => return Err("a thread of the loop has ended".into()),
            };
            match self.receiver.try_recv() {
                Ok(received) => self.count(&received),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => thread::yield_now(),
            }
        }
        while let Ok(received) = self.receiver.try_recv() {
            self.count(&received);
        }
        Ok(())
    }

    fn count(&mut self, batch: &Sent) {
        for (key, value) in batch {
            take(&mut self.sums, *key, number(value));
        }
    }
}

/// W3: map and filter.
pub(crate) fn arithmetic(rows: u64, keys: u64, splits: u64, threads: usize) -> Result<Totals, Failure> {
    generated(rows, keys, splits, threads, |key, value| {
        workload::map(key, value);
        workload::keeps(value)
    })
}

/// So many maps of every record.
pub(crate) fn chain(rows: u64, keys: u64, splits: u64, threads: usize, maps: u32) -> Result<Totals, Failure> {
    generated(rows, keys, splits, threads, |key, value| {
        (0..maps).for_each(|_| workload::map(key, value));
        true
    })
}

/// Makes records, and emits those that the function returns true for.
fn generated(
    rows: u64,
    keys: u64,
    splits: u64,
    threads: usize,
    step: impl Fn(u64, &mut [u8; workload::VALUE]) -> bool + Sync,
) -> Result<Totals, Failure> {
    sum(each(threads, |me| {
        let mut totals = Totals::default();
        for split in (me as u64..splits).step_by(threads) {
            for offset in 0..split_rows(rows, splits, split) {
                let (key, value) = record(split, offset, keys);
                let mut value = black_box(value);
                if step(key, &mut value) {
                    totals.add(xxh3_64(&value));
                }
            }
        }
        Ok(totals)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_find_what_one_finds() {
        for threads in [2, 3] {
            assert_eq!(
                records_exchanged(50_000, 700, 4, threads).expect("totals"),
                records_exchanged(50_000, 700, 4, 1).expect("totals")
            );
            assert_eq!(
                arithmetic(50_000, 700, 4, threads).expect("totals"),
                arithmetic(50_000, 700, 4, 1).expect("totals")
            );
        }
        assert_eq!(
            records_exchanged(5000, 70, 1, 1).expect("totals"),
            super::super::records(5000, 70).expect("totals")
        );
    }
}
