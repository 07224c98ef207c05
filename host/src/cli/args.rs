//! The command line: every verb and flag, without their implementation.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgGroup, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use regraft_model::id::OperatorUid;

use super::exit_status::EXIT_STATUS_HELP;
use super::failure::Failure;
use super::habits;
use crate::graph::units::duration;
use crate::graph::{JobFileError, Overrides, parse_module};

/// Place in the help of flags that many verbs have: behind those of the verb itself.
const COMMON_ORDER: usize = 100;

/// Hosts streaming jobs whose operators are WebAssembly components: change the code, keep the state.
#[derive(Debug, Parser)]
#[command(name = "regraft", version, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Print exactly one JSON object on stdout, also for an error.
    #[arg(long, global = true, display_order = COMMON_ORDER)]
    pub json: bool,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs of the command line.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Scaffold a job that is ready to run: a job file and one guest crate per operator.
    New(NewArgs),
    /// Put the guest SDK of this program into a job that `regraft new` made.
    Sdk(SdkArgs),
    /// Build the guest crates that a job names into components.
    Build(JobFileArgs),
    /// Run a job, building it first where needed; Ctrl-C stops it with a savepoint, a second one at once.
    Run(Box<RunArgs>),
    /// Serve many jobs in a host of its own, which brings them back after it has been killed.
    Serve(ServeArgs),
    /// List the jobs that run.
    List(ListArgs),
    /// Show a job: its status, settings and where each came from, versions, last checkpoint.
    Info(JobArgs),
    /// Show what a job of a serving host has logged.
    Logs(LogsArgs),
    /// Take a savepoint of a running job, or dispose of one.
    Savepoint(SavepointArgs),
    /// Take a savepoint and end the job.
    Stop(StopArgs),
    /// End a job at once.
    Cancel(CancelArgs),
    /// Put other modules into a running job, at one barrier, keeping its state.
    Upgrade(UpgradeArgs),
    /// Draw a flame graph of an operator's guest: the functions in which it spends its time, sampled while the job runs.
    Profile(ProfileArgs),
    /// Remove the checkpoints of jobs that have ended, as far as no job needs them; shows them, and --yes acts.
    Gc(GcArgs),
    /// Show what a component declares: states, schemas, ports, the imports that it needs.
    Inspect(InspectArgs),
    /// Show a job's graph: its chains, and how records travel between them.
    Graph(GraphArgs),
    /// Check a job file and name every problem at once.
    Validate(JobFileArgs),
    /// Look into a savepoint, offline.
    State(StateArgs),
}

/// Options that say where to look for a running job.
#[derive(Debug, Clone, Args)]
pub struct HostArgs {
    /// The host's address; without it, every host that runs on this machine is asked.
    #[arg(long, value_name = "URL", env = "REGRAFT_HOST", display_order = COMMON_ORDER + 1)]
    pub host: Option<String>,
    /// The token of a host that --host names; hosts of this data directory need none. Better put into the environment, where
    /// other users do not see it.
    #[arg(long, value_name = "TOKEN", env = "REGRAFT_TOKEN", hide_env_values = true, display_order = COMMON_ORDER + 2)]
    pub token: Option<String>,
}

impl HostArgs {
    /// Returns the host that the user names. Scripts unset a variable by setting it to the empty string.
    #[must_use]
    pub fn named(&self) -> Option<&str> {
        self.host.as_deref().filter(|host| !host.trim().is_empty())
    }
}

/// `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on. Port 0 picks a free one. An address that other machines can reach requires --token-file or
    /// REGRAFT_TOKEN.
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7878")]
    pub listen: String,
    /// Defaults of the jobs' settings, instead of config.toml in the data directory.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A file with the token that every request must bring along; without it, REGRAFT_TOKEN, or one that is made at start.
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// A file with another token, which allows requests that change nothing.
    #[arg(long, value_name = "FILE")]
    pub read_token_file: Option<PathBuf>,
    /// Its threads.
    #[command(flatten)]
    pub workers: WorkerArgs,
}

/// The number of threads that a host computes on.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Number of threads on which the jobs compute, however many subtasks they have. Default: the cores that the process may
    /// use.
    #[arg(long, value_name = "N", env = "REGRAFT_WORKERS", value_parser = workers)]
    pub workers: Option<NonZeroUsize>,
}

/// Limit of workers: far more than a machine has cores.
const WORKERS_MAX: usize = 1024;

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count: &NonZeroUsize| count.get() <= WORKERS_MAX);
    count.ok_or_else(|| format!("expected a number from 1 to {WORKERS_MAX}"))
}

/// `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Host of the jobs.
    #[command(flatten)]
    pub host: HostArgs,
    /// Also those that have ended.
    #[arg(short, long)]
    pub all: bool,
    /// Only those that run, without those that wait for their host or their start.
    #[arg(short, long, conflicts_with = "all")]
    pub running: bool,
    /// Instead, the checkpoints and savepoints of this job.
    #[arg(long, value_name = "JOB", conflicts_with_all = ["all", "running"])]
    pub snapshots: Option<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// How many of the last lines.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub lines: usize,
    /// Go on with what is logged from now on, until the job ends.
    #[arg(short, long)]
    pub follow: bool,
}

/// `sdk`.
#[derive(Debug, Args)]
pub struct SdkArgs {
    /// The job's directory.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
}

/// `new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The directory to make; its last part is the job's name.
    pub name: PathBuf,
    /// What to start from.
    #[arg(long, value_enum, default_value = "word-count")]
    pub template: Template,
}

/// Templates of `new`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// Lines of text, split into words and counted.
    WordCount,
    /// Clicks, gathered into sessions by event time: state, timers and watermarks.
    Sessions,
    /// Orders, joined with a table of users: an operator with two inputs.
    Join,
    /// One operator that passes lines on.
    Empty,
}

/// A job file and the options that override it.
#[derive(Debug, Args)]
pub struct JobFileArgs {
    /// The job file.
    #[arg(value_name = "JOB.toml", default_value = "job.toml")]
    pub job: PathBuf,
    /// The job to take, by its name, where the file holds several.
    #[arg(short = 'c', long = "entry", alias = "class", value_name = "NAME")]
    pub entry: Option<String>,
    /// Call the job something else.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The default parallelism.
    #[arg(short, long, value_name = "N")]
    pub parallelism: Option<u64>,
    /// Change a setting of the job file: count.config.min=3, checkpoint.interval=1s. Repeatable.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Use another module: a component file, or a guest crate's directory, which is then built. Repeatable.
    #[arg(long, value_name = "UID=PATH")]
    pub module: Vec<String>,
}

impl JobFileArgs {
    /// Returns all that the command line, the environment and the host's configuration add to the job file. `arguments`
    /// are those after `--`.
    ///
    /// # Errors
    /// A `--module` that is not `UID=PATH`, or a host configuration that cannot be read.
    pub fn overrides(&self, data_dir: &Path, arguments: &[String]) -> Result<Overrides, Failure> {
        let process = Overrides::from_process(data_dir)?;
        let modules: Result<Vec<_>, String> = self
            .module
            .iter()
            .map(|text| parse_module(text, &process.current_dir))
            .collect();
        Ok(Overrides {
            name: self.name.clone(),
            entry: self.entry.clone(),
            parallelism: self.parallelism,
            set: self.set.clone(),
            modules: modules.map_err(Failure::usage)?,
            arguments: arguments.to_vec(),
            ..process
        })
    }

    /// Reads and checks the job file.
    ///
    /// # Errors
    /// Those of [`Self::overrides`] and [`crate::graph::load_job`].
    pub fn load(&self, data_dir: &Path, arguments: &[String]) -> Result<LoadedJob, Failure> {
        let overrides = self.overrides(data_dir, arguments)?;
        crate::graph::load_job(&self.job, &overrides, crate::connectors::BUILT_IN)
            .map_err(|error: JobFileError| error.into())
    }
}

/// A job and the warnings about it for its author.
pub type LoadedJob = (crate::graph::job_graph::JobGraph, Vec<crate::graph::Warning>);

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobFileArgs,
    /// Restore options.
    #[command(flatten)]
    pub restore: RestoreArgs,
    /// Hand the job to a host that serves, and leave it to run there.
    #[arg(short, long, visible_alias = "detach")]
    pub detached: bool,
    /// The host, with --detached.
    #[command(flatten)]
    pub host: HostArgs,
    /// When the input ends, take a savepoint of the state before final results are drawn from it.
    #[arg(long, value_name = "DIR")]
    pub savepoint_at_end: Option<String>,
    /// The threads of an attached run.
    #[command(flatten)]
    pub workers: WorkerArgs,
    /// Start although a job of this name runs already.
    #[arg(long)]
    pub allow_same_name: bool,
    /// Start although another job writes to one of this job's output directories.
    #[arg(long)]
    pub allow_shared_output: bool,
    /// Restore although an output directory holds parts of a later state than the savepoint's.
    #[arg(long)]
    pub allow_later_output: bool,
    /// Arguments of the job, handed to its guests.
    #[arg(last = true, value_name = "ARGS")]
    pub arguments: Vec<String>,
}

/// The restore options of `run`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// Start from a savepoint or checkpoint: its directory, or its _metadata file.
    #[arg(short = 's', long, alias = "fromSavepoint", value_name = "SAVEPOINT")]
    pub from_savepoint: Option<String>,
    /// Drop the state of every uid that the job does not have.
    #[arg(short = 'n', long, alias = "allowNonRestoredState")]
    pub allow_non_restored_state: bool,
    /// Drop the state of one uid, or one of its states. Repeatable.
    #[arg(long, value_name = "UID[/STATE]", requires = "from_savepoint")]
    pub drop_state: Vec<DropState>,
    /// Whose the savepoint is while the job runs: no-claim (it stays yours).
    #[arg(
        long,
        aliases = ["claimMode", "restoreMode"],
        visible_alias = "restore-mode",
        value_name = "MODE",
        default_value = "no-claim"
    )]
    pub claim_mode: ClaimMode,
}

/// Ownership of a savepoint after a restore, as in Flink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimMode {
    /// The savepoint stays the user's.
    NoClaim,
    /// Flink's old mode. Treated as `NoClaim`, with the warning [`ClaimMode::warning`].
    Legacy,
}

impl ClaimMode {
    /// Returns the warning to print for this mode, if any.
    #[must_use]
    pub const fn warning(self) -> Option<&'static str> {
        match self {
            Self::NoClaim => None,
            Self::Legacy => Some("claim mode legacy is deprecated and taken as no-claim; write --claim-mode no-claim"),
        }
    }
}

impl FromStr for ClaimMode {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "no-claim" => Ok(Self::NoClaim),
            "legacy" => Ok(Self::Legacy),
            "claim" => Err(
                "claim is not implemented yet; use no-claim: the savepoint stays yours, and you may remove it \
                            after the job's first checkpoint"
                    .to_owned(),
            ),
            _ => Err("expected no-claim".to_owned()),
        }
    }
}

/// `UID[/STATE]`, the value of `--drop-state` and `--entries`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropState {
    /// The operator.
    pub uid: OperatorUid,
    /// Name of the state; `None` for all states of the operator.
    pub state: Option<String>,
}

impl std::fmt::Display for DropState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.state {
            Some(state) => write!(f, "{}/{state}", self.uid),
            None => self.uid.fmt(f),
        }
    }
}

impl FromStr for DropState {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, state) = match text.split_once('/') {
            Some((_, "")) => return Err("expected UID or UID/STATE".to_owned()),
            Some((uid, state)) => (uid, Some(state.to_owned())),
            None => (text, None),
        };
        Ok(Self {
            uid: OperatorUid::new(uid).map_err(|error| error.to_string())?,
            state,
        })
    }
}

/// A running job.
#[derive(Debug, Args)]
pub struct JobArgs {
    /// The job: its id, a unique prefix of it, or its name.
    pub job: String,
    /// Host of the job.
    #[command(flatten)]
    pub host: HostArgs,
}

impl JobArgs {
    /// Returns the job and its host.
    #[must_use]
    pub fn pair(&self) -> (&str, &HostArgs) {
        (&self.job, &self.host)
    }
}

/// The form of a savepoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SavepointType {
    /// Parquet: independent of the backend, readable by ordinary tools.
    Canonical,
    /// The backend's own files.
    Native,
}

/// The flag that chooses a savepoint's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct FormatArgs {
    /// The savepoint's form.
    #[arg(
        long = "type",
        value_enum,
        default_value = "canonical",
        ignore_case = true,
        value_name = "TYPE"
    )]
    format: SavepointType,
}

impl FormatArgs {
    /// Returns true for the backend's own files, false for Parquet.
    #[must_use]
    pub fn is_native(self) -> bool {
        self.format == SavepointType::Native
    }
}

/// `savepoint`.
#[derive(Debug, Args)]
pub struct SavepointArgs {
    /// The job: its id, a unique prefix of it, or its name.
    #[arg(required_unless_present = "dispose", conflicts_with = "dispose")]
    pub job: Option<String>,
    /// Host of the job.
    #[command(flatten)]
    pub host: HostArgs,
    /// Where to put it; without it, the job's savepoint directory.
    pub dir: Option<String>,
    /// Remove this savepoint, and nothing else.
    #[arg(short, long, value_name = "SAVEPOINT")]
    pub dispose: Option<String>,
    /// Remove it although a running job still needs it.
    #[arg(long, requires = "dispose", conflicts_with = "job")]
    pub force: bool,
    /// Its form.
    #[command(flatten)]
    pub format: FormatArgs,
}

/// `stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// Where to put the savepoint; without it, the job's savepoint directory.
    #[arg(short = 'p', long, alias = "savepointPath", value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub savepoint_path: Option<Option<String>>,
    /// The savepoint's form.
    #[command(flatten)]
    pub format: FormatArgs,
    /// Let the job finish as if its input ended here: windows close, timers fire, final results are emitted.
    #[arg(short, long)]
    pub drain: bool,
}

/// `cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// Take a savepoint first, in this directory or the job's own; `stop` does it as one step and is preferred.
    #[arg(short = 's', long, alias = "withSavepoint", value_name = "DIR", num_args = 0..=1, require_equals = true)]
    pub with_savepoint: Option<Option<String>>,
}

/// `upgrade`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("new").args(["module", "new_job"]).required(true),
    override_usage = "regraft upgrade [OPTIONS] <JOB> <NEW-JOB.toml>\n       regraft upgrade [OPTIONS] <JOB> --module <UID=PATH>..."
)]
pub struct UpgradeArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// The job file with the new modules.
    #[arg(value_name = "NEW-JOB.toml")]
    pub new_job: Option<PathBuf>,
    /// A new module: a component file, or a guest crate's directory, which is then built. Repeatable.
    #[arg(long, value_name = "UID=PATH")]
    pub module: Vec<String>,
    /// States to drop. Refused by name, with what to do instead: an upgrade cannot drop state yet.
    #[arg(long, value_name = "UID[/STATE]", hide = true)]
    pub drop_state: Vec<DropState>,
}

/// `profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobArgs,
    /// The operator whose guest is sampled.
    #[arg(long, value_name = "UID")]
    pub uid: String,
    /// How long to sample: 100ms to 10m.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = time)]
    pub duration: Duration,
    /// Only this subtask, counted from 0; without it, all of them.
    #[arg(long, value_name = "N")]
    pub subtask: Option<u32>,
    /// File to write, `-` for stdout; without it, UID.svg or UID.folded in the current directory.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Its format; without it, that of the file's ending, else svg.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<ProfileFormat>,
}

/// Formats of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProfileFormat {
    /// A flame graph, for a browser.
    Svg,
    /// A line for each stack with the number of its samples, for other tools.
    Folded,
}

impl ProfileFormat {
    /// Returns the ending of files in this format.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Folded => "folded",
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "expected a number and a unit, such as 10s, 500ms or 2m".to_owned())
}

/// `gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Remove what is shown otherwise.
    #[arg(short, long)]
    pub yes: bool,
    /// Host of jobs that may need a checkpoint.
    #[command(flatten)]
    pub host: HostArgs,
}

/// `inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The component.
    #[arg(value_name = "MODULE.wasm")]
    pub module: PathBuf,
}

/// `graph`.
#[derive(Debug, Args)]
pub struct GraphArgs {
    /// The job.
    #[command(flatten)]
    pub job: JobFileArgs,
    /// As a Mermaid diagram.
    #[arg(long)]
    pub mermaid: bool,
}

/// `state`.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// The verb of `state`.
    #[command(subcommand)]
    pub verb: StateVerb,
}

/// The verbs of `state`, about savepoints.
#[derive(Debug, Subcommand)]
pub enum StateVerb {
    /// Read every file of it and compare sizes and checksums.
    Verify(StatePathArgs),
    /// List its uids with their states, keys and bytes, and the entries of states.
    Show(StateShowArgs),
}

/// `state show`.
#[derive(Debug, Args)]
pub struct StateShowArgs {
    /// The savepoint's directory, or its _metadata file.
    #[arg(value_name = "SAVEPOINT")]
    pub path: String,
    /// Show the entries too: of all states, or of one uid, or of one of its states. Their order is the same at any
    /// parallelism.
    #[arg(long, value_name = "UID[/STATE]", num_args = 0..=1, require_equals = true)]
    pub entries: Option<Option<DropState>>,
    /// Host of the jobs that may need the savepoint.
    #[command(flatten)]
    pub host: HostArgs,
}

/// A savepoint.
#[derive(Debug, Args)]
pub struct StatePathArgs {
    /// The savepoint's directory, or its _metadata file.
    #[arg(value_name = "SAVEPOINT")]
    pub path: String,
}

/// The outcome of parsing the arguments.
#[derive(Debug)]
pub enum Parsed {
    /// A command to run.
    Run(Cli),
    /// Text for stdout: `--help`, `--version`.
    Print(String),
}

/// Returns true if `--json` is among the arguments, also where they cannot be parsed.
#[must_use]
pub fn wants_json(args: &[OsString]) -> bool {
    args.iter().take_while(|arg| *arg != "--").any(|arg| arg == "--json")
}

/// Ends the help of a command and of all its subcommands with the exit statuses.
fn with_exit_status(command: clap::Command) -> clap::Command {
    command.after_help(EXIT_STATUS_HELP).mut_subcommands(with_exit_status)
}

/// Parses the arguments, the program's name first.
///
/// # Errors
/// A mistake in the arguments, as [`regraft_model::error_kind::ErrorKind::Usage`].
pub fn parse(args: Vec<OsString>) -> Result<Parsed, Failure> {
    let args = habits::rewrite(args)?;
    let command = with_exit_status(Cli::command());
    match command
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
    {
        Ok(cli) => Ok(Parsed::Run(cli)),
        Err(error) if !error.use_stderr() => Ok(Parsed::Print(error.render().to_string())),
        Err(error) => {
            let text = error.render().to_string();
            if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
                return Err(Failure::usage(format!("no command is given\n\n{}", text.trim_end())));
            }
            Err(Failure::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end()))
        }
    }
}

#[cfg(test)]
mod tests;
