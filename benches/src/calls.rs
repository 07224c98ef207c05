//! The cost of a batch in the node of a keyed operator: group, look up, call, write back. Without exchange and second
//! thread.

use std::fmt::Write as _;
use std::time::Instant;

use regraft::dataflow::node::OperatorNode;
use regraft_model::batch::Batch;

use crate::Failure;
use crate::guests::{Guests, Kind, Op};
use crate::pipeline;
use crate::records::batches;
use crate::report::Spread;
use crate::settings::Settings;

/// Records in a measured pass.
const RECORDS: u64 = 2_000_000;
/// Batch sizes, in records.
const BATCHES: [usize; 2] = [1024, 4096];
/// Numbers of keys.
const KEYS: [u64; 2] = [1000, 1_000_000];

/// Measures nanoseconds per record, as a table.
pub(crate) fn table(settings: &Settings, guests: &Guests) -> Result<String, Failure> {
    let mut text = String::from(
        "| keyed count, ns per record: median (min to max) | wasm | native in host | native / wasm |\n|---|---|---|---|\n",
    );
    for keys in KEYS {
        for of in BATCHES {
            // Only the hashes of keys are needed, which come with the keys from the exchange.
            let mut batches = batches(RECORDS, keys, of)?;
            batches.iter_mut().for_each(|batch| batch.keys.ensure_hashes());
            let mut nodes = [Kind::Wasm, Kind::Native].map(|kind| -> Result<OperatorNode, Failure> {
                pipeline::node(
                    "keyed",
                    guests.open(Op::CountRecords, kind, r#"{"emit":"none"}"#)?,
                    true,
                )
            });
            let mut times = [vec![], vec![]];
            // The first pass fills the tables.
            for round in 0..=settings.rounds {
                for (node, times) in nodes.iter_mut().zip(&mut times) {
                    let ns = pass(node.as_mut().map_err(|error| error.to_string())?, &batches)?;
                    if round > 0 {
                        times.push(ns);
                    }
                }
            }
            let [wasm, native] = times.map(Spread::of);
            let ratio = native.median / wasm.median;
            let _ = writeln!(
                text,
                "| {keys} keys, batches of {of} | {} | {} | {ratio:.2} |",
                wasm.text(0),
                native.text(0)
            );
        }
    }
    Ok(text)
}

/// Returns nanoseconds per record, without the time to copy the batches.
fn pass(node: &mut OperatorNode, batches: &[Batch]) -> Result<f64, Failure> {
    let (mut out, mut ns, mut records) = (vec![], 0, 0);
    for batch in batches {
        let batch = batch.clone();
        records += batch.len();
        let start = Instant::now();
        node.process(0, batch, false, false, &mut out)
            .map_err(|failure| failure.to_string())?;
        ns += start.elapsed().as_nanos();
    }
    Ok(ns as f64 / records as f64)
}
