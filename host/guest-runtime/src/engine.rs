//! The engine: its settings, its ticker, and how a file becomes a module.
//!
//! Decides once what a module may do: no WASI, no threads, no concurrency of components (which triples the cost
//! of a call), interruption by epochs. A file is refused by its names before it is compiled, and by its types after.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use regraft_model::describe::{Description, WIT_VERSION};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Engine, EngineWeak, WasmBacktraceDetails};

use crate::bindings::Everything;
use crate::cache::CompileCache;
use crate::call::Declared;
use crate::declared_limits::TEXT_MAX;
use crate::describe::{self, MESSAGE_MAX, ModuleDigest};
use crate::events::NoEvents;
use crate::exports::ExportIndices;
use crate::imports::GuestData;
use crate::imports::state::DeclaredState;
use crate::instance::{GuestInstance, InstanceSettings, Parts};
use crate::limits::{SAMPLE_TICK, TICK};
use crate::module::{GuestModule, Loaded};
use crate::module_error::{ModuleError, chain, shown};
use crate::profile::FRAMES_MAX;
use crate::size;
use crate::slots::{self, Slots};
use crate::symbols::DebugInfo;
use crate::trap::{GuestError, TrapCause};
use crate::world;

pub use crate::size::FILE_BYTES_MAX as COMPONENT_BYTES_MAX;

/// The most memory that `describe` may need: interpreters of other languages come with some.
const DESCRIBE_MEMORY_MAX: u64 = 256 << 20;
/// The longest that `describe` may take.
const DESCRIBE_TIME_MAX: Duration = Duration::from_secs(10);

/// The most components that are compiled at once.
const COMPILING_MAX: usize = 4;
/// The most calls of `describe` at once, each with memory of its own.
const DESCRIBING_MAX: usize = 2;

/// Settings of an engine.
#[derive(Debug, Clone, Default)]
pub struct EngineSettings {
    /// Directory for compiled modules, created if it does not exist. `None`: each process compiles them.
    pub cache_dir: Option<PathBuf>,
}

/// Loads modules. Cloning it is cheap. It has a thread of its own, which ends with the last clone and module.
#[derive(Clone)]
pub struct GuestEngine(Arc<Shared>);

struct Shared {
    engine: Engine,
    linker: Linker<GuestData>,
    cache: Option<CompileCache>,
    loaded: Mutex<HashMap<ModuleDigest, Weak<Loaded>>>,
    ticker: Arc<Ticker>,
    compiling: Arc<Slots>,
    describing: Arc<Slots>,
}

/// A module, and what loading it took.
#[derive(Debug, Clone)]
pub struct LoadedModule {
    /// The module.
    pub module: GuestModule,
    /// True if it had to be compiled: it was neither in this process nor in the cache.
    pub compiled: bool,
    /// Time that loading took in all.
    pub took: Duration,
}

impl GuestEngine {
    /// Makes an engine and starts its ticker.
    ///
    /// # Errors
    /// [`ModuleError::Engine`] where the cache's directory cannot be made, or this machine cannot run the engine.
    pub fn new(settings: &EngineSettings) -> Result<Self, ModuleError> {
        let engine = Engine::new(&config()).map_err(failed("setting up the engine"))?;
        let mut linker = Linker::new(&engine);
        Everything::add_to_linker::<_, HasSelf<GuestData>>(&mut linker, |data| data)
            .map_err(failed("setting up the linker"))?;
        let cache = settings.cache_dir.as_deref().map(|dir| {
            CompileCache::new(dir, &engine).map_err(|error| ModuleError::Engine {
                doing: "making the directory of compiled modules",
                message: format!("{}: {error}", dir.display()),
            })
        });
        let ticker = Arc::new(Ticker::start(engine.weak())?);
        Ok(Self(Arc::new(Shared {
            engine,
            linker,
            cache: cache.transpose()?,
            loaded: Mutex::default(),
            ticker,
            compiling: Slots::new(COMPILING_MAX),
            describing: Slots::new(DESCRIBING_MAX),
        })))
    }

    /// Makes a module of a component's bytes: checks it, compiles it where that has not been done before, runs its
    /// `describe`, and compares that with its custom section.
    ///
    /// # Errors
    /// [`ModuleError`], case by case.
    pub fn load(&self, bytes: impl Into<Arc<[u8]>>) -> Result<LoadedModule, ModuleError> {
        let started = Instant::now();
        let bytes = bytes.into();
        let digest = ModuleDigest::of(&bytes);
        if let Some(loaded) = self.loaded().get(&digest).and_then(Weak::upgrade) {
            return Ok(LoadedModule {
                module: GuestModule(loaded),
                compiled: false,
                took: started.elapsed(),
            });
        }
        let section = describe::read(&bytes)?;
        if let Some(section) = &section {
            describe::verify(&bytes, section)?;
        }
        let (mut parts, compiled) = self.link(&bytes, digest)?;
        let description = self.describe(&parts)?;
        if let Some(section) = section {
            let section = describe::complete(section.description, &parts.exports.names)?;
            describe::compare(&section, &description)?;
        }
        parts.declared = Arc::new(Declared::from(&description));
        parts.states = DeclaredState::all(&description);
        let loaded = Arc::new(Loaded {
            digest,
            description,
            bytes,
            parts,
            keep: self.keep(),
        });
        let mut all = self.loaded();
        all.retain(|_, loaded| loaded.strong_count() > 0);
        all.insert(digest, Arc::downgrade(&loaded));
        drop(all);
        let took = started.elapsed();
        tracing::debug!(%digest, compiled, ?took, "module loaded");
        Ok(LoadedModule {
            module: GuestModule(loaded),
            compiled,
            took,
        })
    }

    /// The component with its own description as the custom section: what `regraft build` writes.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn embed(&self, component: &[u8]) -> Result<Vec<u8>, ModuleError> {
        let (parts, _) = self.link(&component.into(), ModuleDigest::of(component))?;
        Ok(describe::embed(component, &self.describe(&parts)?))
    }

    fn link(&self, bytes: &Arc<[u8]>, digest: ModuleDigest) -> Result<(Parts, bool), ModuleError> {
        let Shared {
            engine, linker, cache, ..
        } = &*self.0;
        // What is in the cache has been checked, but the cache outlives versions of this program.
        world::check(bytes)?;
        let (component, compiled) = match cache.as_ref().and_then(|cache| cache.get(engine, digest)) {
            Some(component) => (component, false),
            None => {
                size::check(bytes)?;
                let component = slots::compile(&self.0.compiling, engine, bytes)?;
                if let Some(cache) = cache {
                    cache.put(digest, &component);
                }
                (component, true)
            }
        };
        let mismatch = |error: wasmtime::Error| ModuleError::WorldMismatch {
            expected: WIT_VERSION.into(),
            message: chain(&error),
        };
        let pre = linker.instantiate_pre(&component).map_err(mismatch)?;
        Ok((
            Parts {
                exports: ExportIndices::new(&pre).map_err(mismatch)?,
                pre,
                declared: Arc::default(),
                states: [].into(),
                debug: Arc::new(DebugInfo::new(Arc::clone(bytes))),
            },
            compiled,
        ))
    }

    fn describe(&self, parts: &Parts) -> Result<Description, ModuleError> {
        let _slot = self.0.describing.take()?;
        let settings = InstanceSettings {
            memory_max: DESCRIBE_MEMORY_MAX,
            host_memory_max: TEXT_MAX as u64,
            log_budget: Arc::default(),
            profiler: Arc::default(),
            time_per_batch_max: DESCRIBE_TIME_MAX,
            config: "null".into(),
            arguments: [].into(),
            sink: Arc::new(NoEvents),
        };
        let live = GuestInstance::new(parts.clone(), settings, self.keep())
            .and_then(|mut instance| instance.describe())
            .map_err(|error| match error {
                GuestError::Engine { doing, message } => ModuleError::Engine { doing, message },
                GuestError::Trapped {
                    cause: TrapCause::HostMemory { .. },
                    ..
                } => ModuleError::DescribeFailed {
                    message: format!("it returned, or logged, more than {TEXT_MAX} bytes at once"),
                },
                GuestError::Trapped {
                    cause: TrapCause::OutOfMemory { .. },
                    ..
                } => ModuleError::DescribeFailed {
                    message: format!(
                        "it needs more memory than the {} MiB that it may have",
                        DESCRIBE_MEMORY_MAX >> 20
                    ),
                },
                error => ModuleError::DescribeFailed {
                    message: shown(&error.to_string(), MESSAGE_MAX),
                },
            })?;
        describe::complete(describe::parse(&live)?, &parts.exports.names)
    }

    /// Ticks fast enough to profile guests (see [`Profiler`](crate::profile::Profiler)) until the returned guard is dropped.
    #[must_use]
    pub fn sampling(&self) -> Sampling {
        let samplings = Arc::clone(&self.0.ticker.samplings);
        samplings.fetch_add(1, Ordering::Relaxed);
        Sampling(samplings)
    }

    fn keep(&self) -> Arc<dyn Send + Sync> {
        Arc::<Ticker>::clone(&self.0.ticker)
    }

    fn loaded(&self) -> std::sync::MutexGuard<'_, HashMap<ModuleDigest, Weak<Loaded>>> {
        self.0.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for GuestEngine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestEngine").finish_non_exhaustive()
    }
}

fn config() -> Config {
    let mut config = Config::new();
    config.concurrency_support(false);
    config.epoch_interruption(true);
    // Files and lines are read once for a module, not for each trap: see `symbols`.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    // Profiles show stacks from their root as far as possible.
    config.wasm_backtrace_max_frames(NonZeroUsize::new(FRAMES_MAX));
    // The same answer on every machine, where that costs nothing: NaN bits are the one thing left open.
    config.relaxed_simd_deterministic(true);
    config
}

fn failed(doing: &'static str) -> impl Fn(wasmtime::Error) -> ModuleError {
    move |error| ModuleError::Engine {
        doing,
        message: chain(&error),
    }
}

/// Makes an engine tick every [`SAMPLE_TICK`] until it is dropped.
#[derive(Debug)]
pub struct Sampling(Arc<AtomicUsize>);

impl Drop for Sampling {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Advances the engine's epoch every [`TICK`], or [`SAMPLE_TICK`] while there are samplings, on a thread of its own, until it
/// is dropped.
struct Ticker {
    /// Number of samplings.
    samplings: Arc<AtomicUsize>,
    /// Closing it stops the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    fn start(engine: EngineWeak) -> Result<Self, ModuleError> {
        let (stop, stopped) = channel::<()>();
        let samplings = Arc::new(AtomicUsize::new(0));
        let sampled = Arc::clone(&samplings);
        let interval = move || match sampled.load(Ordering::Relaxed) {
            0 => TICK,
            _ => SAMPLE_TICK,
        };
        let tick = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval()) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
            }
        };
        let thread = std::thread::Builder::new()
            .name("guest-ticker".into())
            .spawn(tick)
            .map_err(|error| ModuleError::Engine {
                doing: "starting the ticker's thread",
                message: error.to_string(),
            })?;
        Ok(Self {
            samplings,
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It cannot panic; and a ticker that is gone is what is wanted.
            let _ = thread.join();
        }
    }
}
