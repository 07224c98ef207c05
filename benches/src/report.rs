//! Medians with minimum and maximum, as Markdown tables.

use std::fmt::Write as _;

use crate::rounds::{Measured, Run};
use crate::settings::Contender;

/// Median, minimum and maximum of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The middle number, or the mean of the two in the middle.
    pub(crate) median: f64,
    /// The minimum.
    pub(crate) min: f64,
    /// The maximum.
    pub(crate) max: f64,
}

impl Spread {
    /// Summarises numbers, of which there must be at least one.
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (first, last) = (
            sorted.first().copied().unwrap_or(f64::NAN),
            sorted.last().copied().unwrap_or(f64::NAN),
        );
        let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
        let median = f64::midpoint(at(sorted.len().saturating_sub(1) / 2), at(sorted.len() / 2));
        Self {
            median,
            min: first,
            max: last,
        }
    }

    /// Renders the numbers with this many decimals.
    pub(crate) fn text(self, decimals: usize) -> String {
        format!(
            "{:.decimals$} ({:.decimals$} to {:.decimals$})",
            self.median, self.min, self.max
        )
    }
}

/// Returns the bounds of the 95 % confidence interval of the median, by order statistics; minimum and maximum of fewer
/// than six numbers, which have no such interval.
fn interval(numbers: &[f64]) -> (f64, f64) {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    // The probability that at most so many of them are below the true median, as half of the draws are.
    let (mut below, mut term, mut drop) = (0.0, 0.5f64.powi(sorted.len() as i32), 0);
    for at in 0..sorted.len() {
        below += term;
        if below > 0.025 {
            break;
        }
        drop = at;
        term *= (sorted.len() - at) as f64 / (at + 1) as f64;
    }
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    (at(drop), at(sorted.len().saturating_sub(1 + drop)))
}

/// Renders the median of ratios and its 95 % confidence interval with this many decimals.
pub(crate) fn with_interval(ratios: &[f64], decimals: usize) -> String {
    let (from, to) = interval(ratios);
    let median = Spread::of(ratios.iter().copied()).median;
    format!("{median:.decimals$} ({from:.decimals$} to {to:.decimals$})")
}

/// Renders median, 99th percentile and maximum with this many decimals.
pub(crate) fn percentiles(mut numbers: Vec<f64>, decimals: usize) -> String {
    numbers.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let position = (numbers.len() * percent).div_ceil(100).saturating_sub(1);
        numbers.get(position).copied().unwrap_or(f64::NAN)
    };
    format!("{:.decimals$}, {:.decimals$}, {:.decimals$}", at(50), at(99), at(100))
}

/// Renders throughput and CPU time of every contender.
pub(crate) fn table(measured: &[Measured]) -> String {
    let mut text = String::from(
        "| workload | contender | M records/s: median (min to max) | CPU s | CPU ns per record | of it, busiest thread |\n\
         |---|---|---|---|---|---|\n",
    );
    for workload in measured {
        for (contender, runs) in &workload.runs {
            let spread = |each: &dyn Fn(&Run) -> f64| Spread::of(runs.iter().map(each));
            let records = workload.records as f64;
            let rate = spread(&|run| records / run.wall.as_secs_f64() / 1e6).text(2);
            let cpu = spread(&|run| run.cpu.as_secs_f64()).text(2);
            let all = spread(&|run| run.cpu.as_secs_f64() * 1e9 / records).median;
            let busiest = spread(&|run| run.busiest.as_secs_f64() * 1e9 / records).median;
            let (name, contender) = (&workload.name, words(*contender));
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {name} | {contender} | {rate} | {cpu} | {all:.0} | {busiest:.0} |"
            );
        }
    }
    text
}

/// Renders the ratios between contenders, taken round by round: noise that lasts longer than a round does not change
/// them.
pub(crate) fn ratios(measured: &[Measured]) -> String {
    let mut text = String::from(
        "| ratio of throughput: median (min to max) | by wall clock | by CPU time, busiest thread | by CPU time, all threads |\n\
         |---|---|---|---|\n",
    );
    let pairs = [
        (Contender::Wasm, Contender::Native),
        (Contender::Wasm, Contender::Loop),
        (Contender::Native, Contender::Loop),
    ];
    for workload in measured {
        let runs = |wanted| {
            workload
                .runs
                .iter()
                .find(|(contender, _)| *contender == wanted)
                .map(|(_, runs)| runs)
        };
        for (of, to) in pairs {
            let (Some(a), Some(b)) = (runs(of), runs(to)) else {
                continue;
            };
            let ratio = |by: fn(&Run) -> f64| Spread::of(a.iter().zip(b).map(|(a, b)| by(b) / by(a))).text(2);
            let wall = ratio(|run| run.wall.as_secs_f64());
            let (busiest, all) = (
                ratio(|run| run.busiest.as_secs_f64()),
                ratio(|run| run.cpu.as_secs_f64()),
            );
            let (name, of, to) = (&workload.name, words(of), words(to));
            let _ = writeln!(text, "| {name}: {of} / {to} | {wall} | {busiest} | {all} |");
        }
    }
    text
}

const fn words(contender: Contender) -> &'static str {
    match contender {
        Contender::Loop => "hand-written loop",
        Contender::Native => "native in host",
        Contender::Wasm => "wasm in host",
        Contender::Timely => "timely",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_the_median() {
        let numbers = |count: u32| -> Vec<f64> { (1..=count).map(f64::from).collect() };
        // By tables of the sign test.
        for (count, bounds) in [
            (5, (1.0, 5.0)),
            (6, (1.0, 6.0)),
            (9, (2.0, 8.0)),
            (15, (4.0, 12.0)),
            (25, (8.0, 18.0)),
        ] {
            assert_eq!(interval(&numbers(count)), bounds, "{count}");
        }
        assert_eq!(with_interval(&[2.0, 1.0, 3.0], 1), "2.0 (1.0 to 3.0)");
    }

    #[test]
    fn spreads() {
        assert_eq!(
            Spread::of([3.0, 1.0, 2.0]),
            Spread {
                median: 2.0,
                min: 1.0,
                max: 3.0
            }
        );
        assert_eq!(
            Spread::of([4.0, 1.0]),
            Spread {
                median: 2.5,
                min: 1.0,
                max: 4.0
            }
        );
        assert_eq!(Spread::of([4.0, 1.0]).text(1), "2.5 (1.0 to 4.0)");
    }
}
