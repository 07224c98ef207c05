//! Builds with stand-ins for the Rust tools, which fail in every way that the real ones can.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use regraft_guest_runtime::engine::EngineSettings;

use super::*;

#[derive(Default)]
struct Recorded(Mutex<Vec<String>>);

impl BuildReport for Recorded {
    fn line(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
    fn doing(&self, _: &str) {}
}

struct Bench {
    dir: tempfile::TempDir,
    report: Recorded,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("count")).unwrap();
        std::fs::write(dir.path().join("count/Cargo.toml"), "").unwrap();
        // The stand-in for rustc has the target once the directory `added` exists.
        let libdir = dir.path().join("added");
        let bench = Self {
            dir,
            report: Recorded::default(),
        };
        bench.tool("rustc", &format!("echo {}", libdir.display()));
        bench
    }

    fn tool(&self, name: &str, script: &str) {
        let path = self.dir.path().join(name);
        // Written under another name first: a file that is open for writing anywhere cannot be executed.
        let temporary = self.dir.path().join("script");
        std::fs::write(&temporary, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(temporary, path).unwrap();
    }

    fn tools(&self) -> Tools {
        let tool = |name| self.dir.path().join(name);
        Tools {
            cargo: tool("cargo"),
            rustc: tool("rustc"),
            rustup: tool("rustup"),
            build_dir: Some(self.dir.path().join("shared")),
            shared_dir: Some(self.dir.path().join("shared")),
            notes: self.dir.path().join("built"),
            always_ask: false,
        }
    }

    fn has_target(&self) {
        std::fs::create_dir(self.dir.path().join("added")).unwrap();
    }

    fn build(&self, dir: &str) -> Result<Vec<Built>, BuildError> {
        let guest = GuestCrate {
            uid: OperatorUid::new("count").unwrap(),
            dir: self.dir.path().join(dir),
        };
        let engine = GuestEngine::new(&EngineSettings::default()).unwrap();
        build_guests(&[guest], &self.tools(), &engine, &self.report)
    }

    /// Returns the error's message, with the bench's own directory written as `DIR`.
    #[track_caller]
    fn refused(&self, dir: &str) -> String {
        let error = self.build(dir).unwrap_err().to_string();
        error.replace(self.dir.path().to_str().unwrap(), "DIR")
    }

    fn lines(&self) -> Vec<String> {
        let here = self.dir.path().to_str().unwrap();
        self.report
            .0
            .lock()
            .unwrap()
            .iter()
            .map(|line| line.replace(here, "DIR"))
            .collect()
    }
}

const ADDING: &str = "adding the Rust target wasm32-unknown-unknown (rustup target add wasm32-unknown-unknown)";

#[test]
fn a_directory_without_a_crate() {
    assert_eq!(
        Bench::new().refused("nothing"),
        "cannot build operator \"count\": DIR/nothing has no Cargo.toml; expected the directory of a guest crate"
    );
}

#[test]
fn no_rust_at_all() {
    let bench = Bench::new();
    std::fs::remove_file(bench.dir.path().join("rustc")).unwrap();
    assert_eq!(
        bench.refused("count"),
        "cannot run DIR/rustc: No such file or directory (os error 2); install Rust from https://rustup.rs, or set RUSTC to its path"
    );
}

#[test]
fn a_missing_target_is_added_and_said_in_one_line() {
    let bench = Bench::new();
    bench.tool(
        "rustup",
        &format!(
            "test \"$*\" = 'target add wasm32-unknown-unknown' && mkdir {}/added",
            bench.dir.path().display()
        ),
    );
    bench.tool("cargo", "exit 1");
    assert_eq!(
        bench.refused("count"),
        "cannot build operator \"count\" from DIR/count:\ncargo ended with exit status: 1"
    );
    assert_eq!(bench.lines(), [ADDING]);
}

#[test]
fn a_target_that_cannot_be_added() {
    let bench = Bench::new();
    assert_eq!(
        bench.refused("count"),
        "the Rust target wasm32-unknown-unknown is missing, and there is no rustup to add it: install Rust from https://rustup.rs, or the target with the package manager that Rust came from"
    );
    bench.tool("rustup", "echo 'error: could not download' >&2; exit 1");
    assert_eq!(
        bench.refused("count"),
        "cannot add the Rust target wasm32-unknown-unknown:\nerror: could not download\nrun `rustup target add wasm32-unknown-unknown` yourself, then try again"
    );
}

#[test]
fn what_the_compiler_says_is_shown_in_full() {
    let bench = Bench::new();
    bench.has_target();
    bench.tool(
        "cargo",
        r#"printf '%s\n' '{"reason":"compiler-message","message":{"level":"error","rendered":"error[E1]: no\n --> src/lib.rs:1\n"}}'; echo 'error: could not compile' >&2; exit 101"#,
    );
    assert_eq!(
        bench.refused("count"),
        "cannot build operator \"count\" from DIR/count:\nerror[E1]: no\n --> src/lib.rs:1"
    );
    bench.tool(
        "cargo",
        "echo 'error: no matching package named `x`' >&2; echo 'location searched: y' >&2; exit 101",
    );
    assert_eq!(
        bench.refused("count"),
        "cannot build operator \"count\" from DIR/count:\nerror: no matching package named `x`\nlocation searched: y"
    );
}

#[test]
fn a_crate_that_makes_no_operator() {
    let bench = Bench::new();
    bench.has_target();
    bench.tool("cargo", "exit 0");
    assert_eq!(
        bench.refused("count"),
        "cannot build operator \"count\" from DIR/count: the crate made no wasm module; expected a library with `#[operator]` in src/lib.rs"
    );
    let release = bench.dir.path().join("target/wasm32-unknown-unknown/release");
    std::fs::create_dir_all(&release).unwrap();
    std::fs::write(release.join("count.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let message = format!(
        r#"{{"reason":"compiler-artifact","manifest_path":"{0}/count/Cargo.toml","filenames":["{0}/target/wasm32-unknown-unknown/release/count.wasm"],"fresh":false}}"#,
        bench.dir.path().display()
    );
    bench.tool("cargo", &format!("echo '{message}'"));
    let error = bench.build("count").unwrap_err();
    assert!(matches!(&error, BuildError::Component { .. }), "{error}");
    assert!(
        bench
            .refused("count")
            .starts_with("cannot make a component of operator \"count\" from DIR/count: ")
    );
    assert_eq!(bench.lines()[0], "building count (DIR/count)");
    assert!(!bench.dir.path().join("target/regraft/count.wasm").exists());
}
