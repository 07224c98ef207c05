//! The operators of `examples/` and `guests/`, native or as components. Components are built as `regraft build` builds them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use regraft::dataflow::element::PreparedOperator;
use regraft::dataflow::node::{open_context, plain_header};
use regraft::dataflow::operator::Operator as HostOperator;
use regraft_bench_arithmetic::Arithmetic;
use regraft_bench_passing::Passing;
use regraft_guest_runtime::componentize::componentize;
use regraft_guest_runtime::engine::{EngineSettings, GuestEngine};
use regraft_guest_runtime::events::NoEvents;
use regraft_guest_runtime::instance::InstanceSettings;
use regraft_guest_runtime::module::GuestModule;
use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;
use regraft_model::key_group::MAX_PARALLELISM_DEFAULT;
use regraft_model::time::NO_TIMESTAMP;
use regraft_sdk::{Operator, native};
use rolling_count_count::Count as CountRecords;
use serde_json::Value;
use word_count_count::Count as CountWords;
use word_count_split::split;

use crate::Failure;
use crate::native::NativeOperator;

/// Memory limit of an instance: the default of a job file.
const MEMORY_MAX: u64 = 256 << 20;
/// Time limit of a call, far above what any call takes.
const TIME_PER_BATCH_MAX: Duration = Duration::from_secs(10);

/// An operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Op {
    /// Splits lines into words.
    Split,
    /// Counts words.
    CountWords,
    /// Counts and sums records.
    CountRecords,
    /// Maps or filters records, by its config.
    Arithmetic,
    /// Counts records, and passes them on.
    Passing,
}

impl Op {
    const ALL: [Self; 5] = [
        Self::Split,
        Self::CountWords,
        Self::CountRecords,
        Self::Arithmetic,
        Self::Passing,
    ];

    const fn krate(self) -> &'static str {
        match self {
            Self::Split => "word-count-split",
            Self::CountWords => "word-count-count",
            Self::CountRecords => "rolling-count-count",
            Self::Arithmetic => "regraft-bench-arithmetic",
            Self::Passing => "regraft-bench-passing",
        }
    }
}

/// The form in which an operator runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Compiled into this program.
    Native,
    /// As a component.
    Wasm,
}

/// The components of all operators.
#[derive(Debug)]
pub(crate) struct Guests {
    engine: GuestEngine,
    components: HashMap<Op, Vec<u8>>,
    modules: HashMap<Op, GuestModule>,
}

impl Guests {
    /// Builds all components.
    pub(crate) fn load() -> Result<Self, Failure> {
        let engine = GuestEngine::new(&EngineSettings { cache_dir: None })?;
        let built = build()?;
        let (mut components, mut modules) = (HashMap::new(), HashMap::new());
        for op in Op::ALL {
            let name = format!("{}.wasm", op.krate().replace('-', "_"));
            let path = built
                .iter()
                .find(|path| path.file_name().is_some_and(|file| file == name.as_str()));
            let path = path.ok_or_else(|| format!("cargo made no {name}"))?;
            let component = componentize(&engine, &std::fs::read(path)?)?;
            modules.insert(op, engine.load(component.clone())?.module);
            components.insert(op, component);
        }
        Ok(Self {
            engine,
            components,
            modules,
        })
    }

    /// Returns two modules of an operator that do the same and have different digests: the second one has a custom section
    /// more.
    pub(crate) fn versions(&self, op: Op) -> Result<[GuestModule; 2], Failure> {
        let mut second = self.components.get(&op).ok_or("no such component")?.clone();
        // A section of id 0 and three bytes: the length of its name, and the name.
        second.extend([0, 3, 2, b'v', b'2']);
        let first = self.modules.get(&op).ok_or("no such module")?.clone();
        Ok([first, self.engine.load(self.engine.embed(&second)?)?.module])
    }

    /// Returns an opened instance for the only subtask of an operator. `config` is JSON.
    pub(crate) fn open(&self, op: Op, kind: Kind, config: &str) -> Result<PreparedOperator, Failure> {
        let (mut operator, description) = match kind {
            Kind::Native => match op {
                Op::Split => native::<split>(config)?,
                Op::CountWords => native::<CountWords>(config)?,
                Op::CountRecords => native::<CountRecords>(config)?,
                Op::Arithmetic => native::<Arithmetic>(config)?,
                Op::Passing => native::<Passing>(config)?,
            },
            Kind::Wasm => {
                let module = self.modules.get(&op).ok_or("no such module")?;
                let settings = InstanceSettings {
                    memory_max: MEMORY_MAX,
                    host_memory_max: 4 * MEMORY_MAX,
                    time_per_batch_max: TIME_PER_BATCH_MAX,
                    config: config.into(),
                    arguments: [].into(),
                    sink: Arc::new(NoEvents),
                    log_budget: Arc::default(),
                    profiler: Arc::default(),
                };
                let instance: Box<dyn HostOperator> = Box::new(module.instantiate(&settings)?);
                (instance, module.description().clone())
            }
        };
        let uid = OperatorUid::new(op.krate())?;
        let context = open_context(&uid, 0, 1, MAX_PARALLELISM_DEFAULT);
        operator.open(plain_header(0, NO_TIMESTAMP), &context)?;
        Ok(PreparedOperator {
            operator,
            description: Arc::new(description),
            context,
        })
    }
}

fn native<O: Operator + Send>(config: &str) -> Result<(Box<dyn HostOperator>, Description), Failure> {
    let description = serde_json::from_str(&native::describe::<O>())?;
    Ok((Box::new(NativeOperator::<O>::new(config)), description))
}

/// Compiles all guests to wasm, with the flags of `regraft build`. Returns the paths of the core modules.
fn build() -> Result<Vec<PathBuf>, Failure> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(cargo)
        .args(["build", "--release", "--lib", "--target", "wasm32-unknown-unknown"])
        .args([
            "--config",
            "target.wasm32-unknown-unknown.rustflags=[\"-Ctarget-feature=+simd128\"]",
        ])
        .args(Op::ALL.iter().flat_map(|op| ["-p", op.krate()]))
        .args(["--message-format", "json-render-diagnostics"])
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the guests do not build; rustup target add wasm32-unknown-unknown may be missing".into());
    }
    let messages = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok());
    let files = messages.flat_map(|message: Value| message["filenames"].as_array().cloned().unwrap_or_default());
    let paths = files.filter_map(|file| file.as_str().map(PathBuf::from));
    Ok(paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "wasm"))
        .collect())
}
