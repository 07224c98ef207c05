//! W2 and W3 on timely dataflow, for `regraft-bench --only programs`:
//! `regraft-peer-timely (w2|w3) WORKERS ROWS KEYS SPLITS`.
//!
//! Workers make the records of their splits and feed them to the dataflow in batches. The emitted records are encoded
//! and hashed as Regraft's blackhole hashes them, and `records=N checksum=HEX` is printed.

#[path = "../../../src/workload.rs"]
mod workload;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Operator, Probe};
use timely::dataflow::{InputHandle, ProbeHandle};
use xxhash_rust::xxh3::xxh3_64;

/// Records that are fed at once.
const BATCH: usize = 4096;
/// Batches between two timestamps.
const BATCHES_PER_TIME: usize = 16;
/// Timestamps that the input may be ahead of the output.
const AHEAD: u64 = 4;

type Record = (u64, [u8; workload::VALUE]);
type Sums = HashMap<u64, (u64, u64), FxBuildHasher>;

/// Number of emitted records, and the sum of their hashes.
static TOTALS: (AtomicU64, AtomicU64) = (AtomicU64::new(0), AtomicU64::new(0));

fn emitted(records: u64, checksum: u64) {
    TOTALS.0.fetch_add(records, Ordering::Relaxed);
    TOTALS.1.fetch_add(checksum, Ordering::Relaxed);
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [workload, numbers @ ..] = arguments.as_slice() else {
        return Err("expected (w2|w3) WORKERS ROWS KEYS SPLITS".into());
    };
    let numbers: Result<Vec<u64>, _> = numbers.iter().map(|number| number.parse()).collect();
    let (is_w3, Ok(&[workers, rows, keys, splits])) = (workload == "w3", numbers.as_deref()) else {
        return Err("expected (w2|w3) WORKERS ROWS KEYS SPLITS".into());
    };
    let config = if workers == 1 {
        timely::Config::thread()
    } else {
        timely::Config::process(workers as usize)
    };
    let guards = timely::execute(config, move |worker| {
        let sums = Rc::new(RefCell::new(Sums::default()));
        let (mut input, probe) = (InputHandle::new(), ProbeHandle::new());
        let kept = sums.clone();
        worker.dataflow::<u64, _, _>(|scope| {
            let records = input.to_stream(scope).container::<Vec<Record>>();
            if is_w3 {
                records
                    .map(|(key, mut value): Record| {
                        workload::map(key, &mut value);
                        (key, value)
                    })
                    .filter(|(_, value): &Record| workload::keeps(value))
                    .unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(Pipeline, "blackhole", |_, _| {
                        move |input, _| {
                            let (mut records, mut checksum) = (0, 0u64);
                            input.for_each_time(|_, data| {
                                for batch in data {
                                    for (_, value) in batch.iter() {
                                        checksum = checksum.wrapping_add(xxh3_64(value));
                                    }
                                    records += batch.len() as u64;
                                }
                            });
                            emitted(records, checksum);
                        }
                    })
                    .probe_with(&probe);
            } else {
                let by_key = Exchange::new(|(key, _): &Record| workload::mix(*key) >> 32);
                records
                    .unary::<CapacityContainerBuilder<Vec<()>>, _, _, _>(by_key, "count", |_, _| {
                        move |input, _| {
                            let mut sums = kept.borrow_mut();
                            input.for_each_time(|_, data| {
                                for batch in data {
                                    for (key, value) in batch.drain(..) {
                                        let (count, sum) = sums.entry(key).or_default();
                                        *count += 1;
                                        *sum = sum.wrapping_add(workload::number(&value));
                                    }
                                }
                            });
                        }
                    })
                    .probe_with(&probe);
            }
        });
        let (me, peers) = (worker.index() as u64, worker.peers());
        let (mut buffer, mut batches, mut time) = (Vec::with_capacity(BATCH), 0, 0u64);
        for split in (me..splits).step_by(peers) {
            let mut offset = 0;
            let rows = workload::split_rows(rows, splits, split);
            while offset < rows {
                let until = rows.min(offset + BATCH as u64);
                buffer.extend((offset..until).map(|offset| workload::record(split, offset, keys)));
                offset = until;
                input.send_batch(&mut buffer);
                buffer.clear();
                worker.step();
                batches += 1;
                if batches % BATCHES_PER_TIME == 0 {
                    time += 1;
                    input.advance_to(time);
                    while time > AHEAD && probe.less_than(&(time - AHEAD)) {
                        worker.step();
                    }
                }
            }
        }
        input.close();
        while worker.step() {}
        // The total of each key is emitted once, at the end.
        let mut value = vec![];
        for (key, (count, sum)) in sums.borrow().iter() {
            value.clear();
            for number in [*key, *count, *sum] {
                put(number, &mut value);
            }
            emitted(1, xxh3_64(&value));
        }
    })?;
    for result in guards.join() {
        result?;
    }
    let (records, checksum) = (&TOTALS.0, &TOTALS.1);
    println!(
        "records={} checksum={:016x}",
        records.load(Ordering::Relaxed),
        checksum.load(Ordering::Relaxed)
    );
    Ok(())
}

/// Appends a number as the SDK's codec does: one byte up to 250, else a mark and two, four or eight bytes.
fn put(number: u64, out: &mut Vec<u8>) {
    let bytes = number.to_le_bytes();
    let (mark, len) = match number {
        0..=250 => return out.push(bytes[0]),
        251..=0xffff => (251, 2),
        0x1_0000..=0xffff_ffff => (252, 4),
        _ => (253, 8),
    };
    out.push(mark);
    out.extend_from_slice(&bytes[..len]);
}
