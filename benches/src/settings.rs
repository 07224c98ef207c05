//! The command line of the benchmark.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Word count.
    W1,
    /// Keyed count and sum of generated records.
    W2,
    /// Map and filter of generated records.
    W3,
    /// Chains of stateless operators: within this process, and as whole programs.
    Chain,
    /// Single calls of a keyed operator.
    Calls,
    /// Whole programs: Regraft, the hand-written loop, timely dataflow, Flink.
    Programs,
    /// Latency of a whole job within this process.
    Latency,
    /// Whole jobs with and without checkpoints.
    Checkpoints,
    /// Bytes that checkpoints write where little changes.
    Increments,
    /// A whole job whose guest panics now and then.
    Isolation,
    /// The latency of a job whose neighbour misbehaves.
    Neighbours,
}

/// Measures Regraft beside a hand-written loop and other systems, and wasm beside the same operators native in the host.
#[derive(Debug, Parser)]
#[command(name = "regraft-bench")]
pub(crate) struct Settings {
    /// The parts to run.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "w1,w2,w3,calls")]
    only: Vec<Part>,
    /// Runs of each contender.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// W1: how much text.
    #[arg(long, default_value = "128MB", value_parser = bytes)]
    pub(crate) size: u64,
    /// W1: in how many files.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) files: u32,
    /// W2: how many records.
    #[arg(long, default_value_t = 20_000_000)]
    pub(crate) records: u64,
    /// W3, chain: how many records.
    #[arg(long, default_value_t = 20_000_000)]
    pub(crate) map_records: u64,
    /// Whole programs, latency: parallelism of jobs and number of threads, each in turn.
    #[arg(long, value_delimiter = ',', default_value = "1,2", value_parser = clap::value_parser!(u32).range(1..=4))]
    pub(crate) parallelism: Vec<u32>,
    /// Whole programs: measure Flink too. Fetches it with pip, and needs Java 17.
    #[arg(long)]
    pub(crate) flink: bool,
    /// Latency: seconds of each measurement.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Checkpoints, isolation: how many records.
    #[arg(long, default_value_t = 100_000_000)]
    pub(crate) job_records: u64,
    /// W2 and whole jobs: how many keys.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) keys: u64,
    /// W2: make the records before the clock starts, so that only their copy is measured. Takes memory for all of them.
    #[arg(long)]
    pub(crate) pregenerated: bool,
    /// Leave a contender out.
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) without: Vec<Contender>,
    /// Directory that keeps texts from run to run.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-data"))]
    pub(crate) dir: PathBuf,
    /// Markdown file to put the tables into as well: each between `<!-- bench: NAME -->` and `<!-- /bench -->`.
    #[arg(long)]
    pub(crate) into: Option<PathBuf>,
    /// Be the hand-written loop, as a process of its own.
    #[arg(long, value_enum, hide = true)]
    pub(crate) hand: Option<Hand>,
    /// Of the loop: splits of the generator.
    #[arg(long, default_value_t = 4, hide = true)]
    pub(crate) splits: u64,
    /// Of the loop: number of maps in the chain.
    #[arg(long, default_value_t = 0, hide = true)]
    pub(crate) maps: u32,
}

/// The work of a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hand {
    /// Word count.
    W1,
    /// Keyed count and sum of generated records.
    W2,
    /// Map and filter.
    W3,
    /// A chain of maps.
    Chain,
}

/// A contender of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contender {
    /// A hand-written loop.
    Loop,
    /// The operators compiled natively, in the host's dataflow.
    Native,
    /// The operators as components, in the host's dataflow.
    Wasm,
    /// Timely dataflow, as a whole program.
    Timely,
}

impl Settings {
    pub(crate) fn does(&self, part: Part) -> bool {
        self.only.contains(&part)
    }

    /// Returns the contenders within this process that take part, in order.
    pub(crate) fn contenders(&self) -> Vec<Contender> {
        let all = [Contender::Loop, Contender::Native, Contender::Wasm];
        all.into_iter()
            .filter(|contender| !self.without.contains(contender))
            .collect()
    }
}

/// Parses a size in the usual forms: `64MB`, `1GB`, `1000`.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a number of bytes such as 64MB or 1GB, found {text:?}");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "" | "B" => 1,
        "KB" => 1000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes() {
        assert_eq!(bytes("64MB"), Ok(64_000_000));
        assert_eq!(bytes("1GB"), Ok(1_000_000_000));
        assert_eq!(bytes("12"), Ok(12));
        assert!(bytes("MB").is_err() && bytes("1TB").is_err() && bytes("0").is_err());
    }
}
