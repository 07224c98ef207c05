//! The command line: arguments, printed results and exit status, and nothing else. The only module that uses clap.
//!
//! - [`exit_status`]: all exit statuses.
//! - [`failure`]: errors as text and as JSON.
//! - [`habits`]: spellings of arguments known from Flink and other tools.
//! - [`args`]: verbs and flags.
//! - [`output`], [`log`], [`progress`]: stdout for results, stderr for everything else.
//! - [`table`]: results in columns.
//! - `offline`: jobs that no process runs.
//! - `savepoint`: opening a savepoint, and the jobs that need it.
//! - `flame_graph`: a profile as SVG or text.
//! - [`build`], [`job`], [`show`], [`state`], [`dispose`], [`gc`], [`serve`], [`run`], [`submit`], [`profile`]: the verbs.

pub mod exit_status;
pub mod failure;
pub mod habits;
pub mod args;
pub mod output;
pub mod log;
mod signals;
pub mod progress;
pub mod table;
pub mod build;
pub mod new;
pub mod job;
mod offline;
pub mod show;
mod savepoint;
pub mod state;
pub mod gc;
pub mod dispose;
pub mod serve;
pub mod run;
pub mod submit;
mod flame_graph;
pub mod profile;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use regraft_model::error_kind::ErrorKind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::data_dir;
use crate::serve::logs::JobLogs;
use args::{Cli, Parsed, Verb};
use exit_status::ExitStatus;
use failure::Failure;
use output::Output;

/// Runs the command that the arguments ask for, the program's name first, and returns the exit status.
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
    let status = match ended.and_then(|status| output::check().map(|()| status)) {
        Ok(status) => status,
        Err(failure) => {
            if json {
                output::print(&failure.to_json());
            }
            log::line(&format!("error: {failure}"));
            failure.status()
        }
    };
    log::flush();
    status
}

fn verb(cli: &Cli) -> Result<ExitStatus, Failure> {
    let output = Output { json: cli.json };
    let data_dir = data_dir(&cli.verb)?;
    let logs = matches!(cli.verb, Verb::Serve(_)).then(|| Arc::new(JobLogs::new(&data_dir)));
    let runs_jobs = logs.is_some() || matches!(&cli.verb, Verb::Run(args) if !args.detached);
    if runs_jobs {
        log::queue();
    }
    log::start(if runs_jobs { "info" } else { "warn" }, logs.clone());
    match &cli.verb {
        Verb::New(args) => new::new(args, output)?,
        Verb::Sdk(args) => new::sdk(args, output)?,
        Verb::Build(args) => build::build(args, &data_dir, output)?,
        Verb::Validate(args) => build::validate(args, &data_dir, output)?,
        Verb::Graph(args) => build::graph(args, &data_dir, output)?,
        Verb::Inspect(args) => build::inspect(args, &data_dir, output)?,
        Verb::List(args) => show::list(args, &data_dir, output)?,
        Verb::Info(args) => show::info(args, &data_dir, output)?,
        Verb::Logs(args) => show::logs(args, &data_dir, output)?,
        Verb::Savepoint(args) => match &args.dispose {
            Some(path) => runtime()?.block_on(dispose::dispose(path, &args.host, args.force, &data_dir, output))?,
            None => {
                let job = (args.job.as_deref().unwrap_or_default(), &args.host);
                offline::acting(job, &data_dir, || job::savepoint(args, &data_dir, output))?;
            }
        },
        Verb::Gc(args) => gc::gc(args, &data_dir, output)?,
        Verb::Stop(args) => offline::acting(args.job.pair(), &data_dir, || job::stop(args, &data_dir, output))?,
        Verb::Cancel(args) => offline::acting(args.job.pair(), &data_dir, || job::cancel(args, &data_dir, output))?,
        Verb::Upgrade(args) => offline::acting(args.job.pair(), &data_dir, || job::upgrade(args, &data_dir, output))?,
        Verb::Profile(args) => {
            offline::acting(args.job.pair(), &data_dir, || profile::profile(args, &data_dir, output))?;
        }
        Verb::State(args) => runtime()?.block_on(state::state(args, &data_dir, output))?,
        Verb::Run(args) if args.detached => {
            let origin = runtime()?.block_on(run::Origin::read(args))?;
            submit::submit(args, &data_dir, origin, output)?;
        }
        Verb::Run(args) => return to_its_end(run::run(args, &data_dir, output)),
        Verb::Serve(args) => {
            let logs = logs.unwrap_or_else(|| Arc::new(JobLogs::new(&data_dir)));
            return to_its_end(serve::serve(args, &data_dir, output, logs));
        }
    }
    Ok(ExitStatus::Done)
}

/// Returns the data directory, which belongs to this user alone. Verbs that leave something there create it.
fn data_dir(verb: &Verb) -> Result<PathBuf, Failure> {
    let dir = data_dir::data_dir()?;
    let creates = match verb {
        // They take nothing from it.
        Verb::New(_) | Verb::Sdk(_) => return Ok(dir),
        Verb::Run(_) | Verb::Serve(_) | Verb::Build(_) | Verb::Validate(_) | Verb::Inspect(_) | Verb::Upgrade(_) => {
            true
        }
        _ => false,
    };
    if let Some(note) = data_dir::secure(&dir, creates)? {
        log::line(&format!("note: {note}"));
    }
    Ok(dir)
}

/// Runs jobs in this process until the given future ends.
fn to_its_end(running: impl Future<Output = Result<ExitStatus, Failure>>) -> Result<ExitStatus, Failure> {
    raise_file_limit();
    let runtime = runtime()?;
    let status = runtime.block_on(running);
    // A build or a read that hangs must not keep the process alive.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    status
}

/// Lets this process open as many files as it may: connections of clients must not take those of jobs.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorKind::Failed, format!("cannot start the runtime: {error}")))
}
