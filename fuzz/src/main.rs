//! Fuzzes one target, or all of them in turn: `cargo run --release -p regraft-fuzz -- [TARGET] [--seconds N]
//! [--iterations N] [--iteration N] [--seed N] [--keep DIR] [--distill] [FILE…]`.
//!
//! Files are run as they are. `--keep` collects inputs that reach new code; `--distill` adds to the corpus the shortest
//! of them that together reach all of it. Both need a build with counters: `fuzz/guided.sh`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use regraft_fuzz::corpus;
use regraft_fuzz::coverage::Coverage;
use regraft_fuzz::run::{Bound, Settings, check, fuzz};
use regraft_fuzz::targets::{TARGETS, Target, find};

struct Arguments {
    targets: Vec<&'static Target>,
    settings: Settings,
    distill: bool,
    files: Vec<PathBuf>,
}

fn arguments() -> Result<Arguments, String> {
    // Any seed will do; it is printed.
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let mut given = Arguments {
        targets: Vec::new(),
        settings: Settings {
            seed,
            bound: Bound::Time(Duration::from_secs(60)),
            keep: None,
            record: true,
        },
        distill: false,
        files: Vec::new(),
    };
    let mut rest = std::env::args().skip(1);
    while let Some(argument) = rest.next() {
        let mut value = || {
            rest.next()
                .ok_or_else(|| format!("{argument}: expected a value after it"))
        };
        let number = |text: String| {
            text.parse::<u64>()
                .map_err(|_| format!("{argument} {text}: expected a number"))
        };
        match argument.as_str() {
            "--seconds" => given.settings.bound = Bound::Time(Duration::from_secs(number(value()?)?)),
            "--iterations" => given.settings.bound = Bound::Iterations(number(value()?)?),
            "--iteration" => given.settings.bound = Bound::Only(number(value()?)?),
            "--seed" => given.settings.seed = number(value()?)?,
            "--keep" => given.settings.keep = Some(value()?.into()),
            "--distill" => given.distill = true,
            name => match find(name) {
                Some(target) => given.targets.push(target),
                None if !given.targets.is_empty() => given.files.push(name.into()),
                None => {
                    let names = TARGETS.map(|target| target.name).join(", ");
                    return Err(format!("{name} is not a target; expected one of {names}"));
                }
            },
        }
    }
    if given.targets.is_empty() {
        given.targets = TARGETS.to_vec();
    }
    Ok(given)
}

fn main() -> ExitCode {
    match arguments().and_then(|arguments| all(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn all(arguments: &Arguments) -> Result<(), String> {
    for target in &arguments.targets {
        let settings = &arguments.settings;
        if arguments.distill {
            distill(target, settings).map_err(|error| error.to_string())?;
        } else if arguments.files.is_empty() {
            let guided = if Coverage::is_there() { ", guided" } else { "" };
            println!("{}: seed {}{guided}", target.name, settings.seed);
            let summary = fuzz(target, settings).map_err(|failure| failure.to_string())?;
            println!("{}: {summary:?}", target.name);
        }
        for file in &arguments.files {
            let shown = file.display();
            let input = std::fs::read(file).map_err(|error| format!("{shown}: {error}"))?;
            check(target, &input).map_err(|fault| format!("{shown}: {fault}"))?;
            println!("{shown}: nothing is wrong");
        }
    }
    Ok(())
}

/// Adds to the corpus the kept inputs that reach more than the corpus and all shorter ones.
fn distill(target: &Target, settings: &Settings) -> std::io::Result<()> {
    let dir = corpus::dir(target.name);
    let mut coverage = Coverage::default();
    let mut reach = |input: &[u8]| {
        Coverage::clear();
        let is_sound = check(target, input).is_ok();
        coverage.add() && is_sound
    };
    for (_, input) in corpus::read(&dir)? {
        reach(&input);
    }
    let mut kept = match &settings.keep {
        Some(keep) => corpus::read(keep)?,
        None => Vec::new(),
    };
    kept.sort_by_key(|(_, input)| input.len());
    let mut added = 0;
    for (_, input) in kept {
        if reach(&input) {
            corpus::write(&dir, "reach", &input)?;
            added += 1;
        }
    }
    println!("{}: {added} inputs were added to {}", target.name, dir.display());
    Ok(())
}
