//! Builds the guests of `tests/guests` and makes components, engines and calls of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, OnceLock};
use std::time::Duration;

use regraft_guest_runtime::call::{BatchView, CellColumn, Header, KeyedView, OpenContext};
use regraft_guest_runtime::componentize::componentize;
use regraft_guest_runtime::engine::{EngineSettings, GuestEngine};
use regraft_guest_runtime::events::{GuestEvents, LogLevel};
use regraft_guest_runtime::instance::{GuestInstance, InstanceSettings};
use regraft_guest_runtime::module::GuestModule;
use regraft_model::batch::BytesColumn;

pub const HEADER: Header = Header {
    now: 1_000,
    watermark: 500,
    seed: 7,
    first_row: 0,
};

/// The core module of a guest crate, built for wasm32-unknown-unknown.
pub fn build(package: &str) -> Vec<u8> {
    // `<target>/<profile>/deps/<test>`.
    let test = std::env::current_exe().expect("the test's path");
    let target: PathBuf = test.ancestors().nth(3).expect("a target directory").to_owned();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    cargo.args([
        "rustc",
        "--quiet",
        "--release",
        "--target",
        "wasm32-unknown-unknown",
        "--crate-type",
        "cdylib",
    ]);
    cargo.args(["--package", package, "--target-dir"]).arg(&target);
    assert!(
        cargo.status().expect("cargo runs").success(),
        "{package} does not build"
    );
    let file = format!("{}.wasm", package.replace('-', "_"));
    std::fs::read(target.join("wasm32-unknown-unknown/release").join(file)).expect("the built module")
}

/// An engine without a cache on disk, for all tests.
pub fn engine() -> &'static GuestEngine {
    static ENGINE: OnceLock<GuestEngine> = OnceLock::new();
    ENGINE.get_or_init(|| GuestEngine::new(&EngineSettings::default()).expect("an engine"))
}

/// The core module of the hostile guest.
pub fn hostile_core() -> &'static [u8] {
    static CORE: OnceLock<Vec<u8>> = OnceLock::new();
    CORE.get_or_init(|| build("regraft-test-hostile"))
}

/// The component of the hostile guest.
pub fn hostile_component() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| componentize(engine(), hostile_core()).expect("a component"))
}

/// The hostile guest, loaded.
pub fn hostile() -> GuestModule {
    static MODULE: OnceLock<GuestModule> = OnceLock::new();
    MODULE
        .get_or_init(|| engine().load(hostile_component()).expect("a module").module)
        .clone()
}

/// Keeps everything that a guest tells.
#[derive(Default)]
pub struct Recorded(pub Mutex<Vec<String>>);

impl GuestEvents for Recorded {
    fn log(&self, level: LogLevel, message: &str) {
        self.0
            .lock()
            .expect("not poisoned")
            .push(format!("{level:?} {message}"));
    }

    fn counter_add(&self, name: &str, delta: u64) {
        self.0.lock().expect("not poisoned").push(format!("{name} += {delta}"));
    }

    fn gauge_set(&self, name: &str, value: f64) {
        self.0.lock().expect("not poisoned").push(format!("{name} = {value}"));
    }
}

pub fn settings(behaviour: &str) -> InstanceSettings {
    InstanceSettings {
        memory_max: 64 << 20,
        host_memory_max: 64 << 20,
        time_per_batch_max: Duration::from_millis(200),
        config: format!("\"{behaviour}\"").into(),
        arguments: ["--limit".to_owned(), "5".to_owned()].into(),
        sink: Arc::new(Recorded::default()),
        log_budget: Arc::default(),
        profiler: Arc::default(),
    }
}

pub fn context() -> OpenContext {
    OpenContext {
        uid: "count".to_owned(),
        subtask: 0,
        parallelism: 1,
        max_parallelism: 128,
    }
}

/// An open instance that behaves so.
pub fn opened(behaviour: &str) -> GuestInstance {
    let mut instance = hostile().instantiate(&settings(behaviour)).expect("an instance");
    instance.open(HEADER, &context()).expect("it opens");
    instance
}

/// Three records `a`, `bad`, `c` of the keys `x` and `y`.
pub const BATCH: BatchView<'_> = BatchView {
    input: 0,
    key_index: &[0, 1, 0],
    value_data: b"abadc",
    value_ends: &[1, 4, 5],
    timestamps: &[10, 20, 30],
};

/// The keys of [`BATCH`]; `x` has a count of 5.
pub static KEYED: LazyLock<KeyedView<'static>> = LazyLock::new(|| {
    static CELLS: LazyLock<[CellColumn; 1]> = LazyLock::new(|| {
        [CellColumn {
            state: 0,
            present: vec![1, 0],
            values: BytesColumn {
                data: vec![5, 0, 0, 0, 0, 0, 0, 0],
                ends: vec![8, 8],
            },
        }]
    });
    KeyedView {
        key_data: b"xy",
        key_ends: &[1, 2],
        cells: &*CELLS,
    }
});
