//! Measures what the wasm boundary and the host's dataflow cost: `cargo run --release -p regraft-bench`.
//!
//! Three contenders do the same work in one run, in turn: a hand-written loop, the operators of `examples/` compiled
//! natively inside the host's dataflow, and the same operators as components in it. Every result is checksummed, and a
//! difference is an error.
//!
//! - [`settings`]: the command line.
//! - [`usage`]: CPU time of the process.
//! - [`text`], [`records`]: the inputs.
//! - [`hand`]: the hand-written loops.
//! - [`native`]: an operator of the SDK as one of the host, without wasm.
//! - [`guests`]: the operators, native or as components.
//! - [`pipeline`]: wires and runs two subtasks, as a deployment does.
//! - [`rounds`]: runs contenders in turn and compares what they found.
//! - [`calls`]: the cost of one call of a keyed operator.
//! - [`report`]: medians and tables.

mod settings;
mod usage;
mod text;
mod records;
mod hand;
mod native;
mod guests;
mod pipeline;
mod report;
mod rounds;
mod calls;

use std::process::ExitCode;

use clap::Parser as _;

use guests::Guests;
use settings::{Part, Settings};

/// Anything that ends a run, in words.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match run(&Settings::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &Settings) -> Result<(), Failure> {
    let guests = Guests::load()?;
    let mut measured = vec![];
    if settings.does(Part::W1) {
        measured.push(rounds::words(settings, &guests)?);
    }
    if settings.does(Part::W2) {
        measured.push(rounds::records(settings, &guests)?);
    }
    if !measured.is_empty() {
        println!("{}", report::table(&measured));
        println!("{}", report::ratios(&measured));
    }
    if settings.does(Part::Calls) {
        println!("{}", calls::table(settings, &guests)?);
    }
    Ok(())
}
