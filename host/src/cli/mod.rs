//! The command line, and nothing but it: what is typed, what is printed, how the process ends. Only this knows clap.
//!
//! - [`exit_status`]: every status.
//! - [`failure`]: an error for people and for scripts.
//! - [`habits`]: spellings from elsewhere.
//! - [`args`]: verbs and flags.
//! - [`output`], [`log`], [`progress`]: stdout for results, stderr for everything else.
//! - [`build`], [`job`], [`state`], [`run`]: the verbs.

pub mod exit_status;
pub mod failure;
pub mod habits;
pub mod args;
pub mod output;
pub mod log;
pub mod progress;
pub mod build;
pub mod job;
pub mod state;
pub mod run;

use std::ffi::OsString;

use regraft_model::error_kind::ErrorKind;

use args::{Cli, Parsed, Verb};
use exit_status::ExitStatus;
use failure::Failure;
use output::Output;

/// Does what the arguments ask for, the program's name first, and answers how the process ends.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitStatus {
    let json = args::wants_json(&args);
    let ended = args::parse(args).and_then(|parsed| match parsed {
        Parsed::Print(text) => {
            output::print(text.trim_end());
            Ok(ExitStatus::Done)
        }
        Parsed::Run(cli) => verb(&cli),
    });
    match ended {
        Ok(status) => status,
        Err(failure) => {
            if json {
                output::print(&failure.to_json());
            }
            log::line(&format!("error: {failure}"));
            failure.status()
        }
    }
}

fn verb(cli: &Cli) -> Result<ExitStatus, Failure> {
    let output = Output { json: cli.json };
    let data_dir = crate::data_dir::data_dir()?;
    log::start(if matches!(cli.verb, Verb::Run(_)) {
        "info"
    } else {
        "warn"
    });
    match &cli.verb {
        Verb::New(args) => build::new(args, &data_dir, output)?,
        Verb::Build(args) => build::build(args, &data_dir, output)?,
        Verb::Validate(args) => build::validate(args, &data_dir, output)?,
        Verb::Graph(args) => build::graph(args, &data_dir, output)?,
        Verb::Inspect(args) => build::inspect(args, &data_dir, output)?,
        Verb::List(args) => job::list(args, &data_dir, output)?,
        Verb::Info(args) => job::info(args, &data_dir, output)?,
        Verb::Savepoint(args) => job::savepoint(args, &data_dir, output)?,
        Verb::Stop(args) => job::stop(args, &data_dir, output)?,
        Verb::Cancel(args) => job::cancel(args, &data_dir, output)?,
        Verb::Upgrade(args) => job::upgrade(args, &data_dir, output)?,
        Verb::State(args) => runtime()?.block_on(state::state(args, output))?,
        Verb::Run(args) => {
            let runtime = runtime()?;
            let status = runtime.block_on(run::run(args, &data_dir, output));
            // A build or a read that hangs must not keep the process.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            return status;
        }
    }
    Ok(ExitStatus::Done)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorKind::Failed, format!("cannot start the runtime: {error}")))
}
