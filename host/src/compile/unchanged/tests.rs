//! Notes over the files of a small crate that were not compiled by anything.

use std::time::Duration;

use super::*;

/// A crate with a source and a component, and all that is noted of it.
struct Noted {
    root: tempfile::TempDir,
}

impl Noted {
    fn new() -> Self {
        let noted = Self {
            root: tempfile::tempdir().expect("a directory"),
        };
        let files = [
            ("job/count/Cargo.toml", "[package]\nname = \"count\"\n"),
            ("job/count/src/lib.rs", "const V: &str = env!(\"CARGO_PKG_VERSION\");"),
            ("job/sdk/Cargo.toml", "[package]\nname = \"sdk\"\n"),
            ("target/regraft/count.wasm", "component"),
            ("rust/bin/rustc", ""),
            ("rust/lib/rustlib/wasm/lib/core.rlib", ""),
        ];
        files.iter().for_each(|(name, text)| noted.write(name, text));
        let list = format!("{}: {}\n", noted.path("x.wasm"), noted.path("job/count/src/lib.rs"));
        noted.write("target/count.d", &list);
        noted
    }

    fn path(&self, name: &str) -> String {
        self.root.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn inputs(&self) -> Inputs {
        Inputs {
            module: self.path("target/count.wasm").into(),
            packages: vec![self.path("job/count").into(), self.path("job/sdk").into()],
            has_build_script: false,
            libraries: self.path("rust/lib/rustlib/wasm/lib").into(),
        }
    }

    /// Notes the crate, as a build that began a second from now.
    fn note(&self, variables: &[(&str, &str)], inputs: &Inputs) {
        self.note_begun(variables, inputs, SystemTime::now() + Duration::from_secs(1));
    }

    fn note_begun(&self, variables: &[(&str, &str)], inputs: &Inputs, began: SystemTime) {
        let dir = self.root.path().join("built");
        let component = Component {
            path: self.path("target/regraft/count.wasm").into(),
            made: true,
            bytes: 9,
        };
        notes(&dir, variables).note(&self.root.path().join("job/count"), inputs, &component, began);
    }

    fn is_known(&self, variables: &[(&str, &str)]) -> bool {
        let dir = self.root.path().join("built");
        let found = notes(&dir, variables).component(&self.root.path().join("job/count"));
        if let Some(found) = &found {
            let path = PathBuf::from(self.path("target/regraft/count.wasm"));
            assert_eq!((&found.path, found.bytes, found.made), (&path, 9, false));
        }
        found.is_some()
    }
}

fn notes<'a>(dir: &'a Path, variables: &[(&str, &str)]) -> Notes<'a> {
    let variables: Vec<(OsString, OsString)> = variables
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    Notes::new(dir, &[Path::new("cargo"), Path::new("rustc")], variables.into_iter())
}

#[test]
fn a_crate_is_unchanged_until_a_file_of_it_changes() {
    let noted = Noted::new();
    assert!(!noted.is_known(&[]), "nothing is noted yet");
    // Each of these could change the component; the last two by replacing it, and the toolchain.
    let changes = [
        "job/count/src/lib.rs",
        "job/count/Cargo.toml",
        "job/sdk/Cargo.toml",
        "job/sdk/build.rs",
        "job/Cargo.toml",
        "job/Cargo.lock",
        "job/count/.cargo/config.toml",
        "job/rust-toolchain.toml",
        "target/regraft/count.wasm",
        "rust/bin/rustc",
    ];
    for change in changes {
        let path = noted.root.path().join(change);
        noted.note(&[], &noted.inputs());
        assert!(noted.is_known(&[]), "before {change}");
        // The same bytes: times count.
        let text = fs::read_to_string(&path).unwrap_or_default();
        std::thread::sleep(Duration::from_millis(5));
        noted.write(change, &text);
        assert!(!noted.is_known(&[]), "after {change}");
    }
    noted.note(&[], &noted.inputs());
    fs::remove_file(noted.path("job/count/src/lib.rs")).expect("removed");
    assert!(!noted.is_known(&[]), "after a source is gone");
}

#[test]
fn each_environment_has_its_own_note() {
    let noted = Noted::new();
    let other = [("RUSTC_WRAPPER", "sccache")];
    noted.note(&[], &noted.inputs());
    assert!(!noted.is_known(&other));
    noted.note(&other, &noted.inputs());
    assert!(noted.is_known(&other) && noted.is_known(&[]));
    // Those that cargo sets for the program it runs, and all others, do not matter.
    assert!(noted.is_known(&[("CARGO_MANIFEST_DIR", "/x"), ("RUST_LOG", "debug"), ("TERM", "dumb")]));
}

#[test]
fn in_doubt_nothing_is_noted() {
    let noted = Noted::new();
    let refused = |inputs: &Inputs| {
        noted.note(&[], inputs);
        assert!(!noted.is_known(&[]));
    };
    refused(&Inputs {
        has_build_script: true,
        ..noted.inputs()
    });
    refused(&Inputs {
        module: noted.path("target/other.wasm").into(),
        ..noted.inputs()
    });
    noted.note_begun(&[], &noted.inputs(), SystemTime::now() - Duration::from_secs(1));
    assert!(!noted.is_known(&[]), "a source is younger than the build");
    noted.write(
        "job/count/Cargo.toml",
        "[package]\nname = \"count\"\nworkspace = \"../elsewhere\"\n",
    );
    refused(&noted.inputs());
    noted.write("job/count/Cargo.toml", "[package]\nname = \"count\"\n");
    noted.write(
        "job/count/src/lib.rs",
        "const V: Option<&str> = option_env!(\"COMMIT\");",
    );
    refused(&noted.inputs());
    noted.write("job/count/src/lib.rs", "");
    noted.note(&[], &noted.inputs());
    assert!(noted.is_known(&[]));
}

#[test]
fn names_with_spaces_are_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let module = dir.path().join("m.wasm");
    fs::write(dir.path().join("m.d"), "/t/m.wasm: /a\\ b/lib.rs /c.rs\n").expect("written");
    let expected: Vec<PathBuf> = vec!["/a b/lib.rs".into(), "/c.rs".into()];
    assert_eq!(sources(&module).expect("read"), expected);
}

#[test]
fn old_notes_are_removed() {
    let noted = Noted::new();
    for n in 0..NOTES_MAX + 3 {
        noted.write(&format!("built/{n}.json"), "");
    }
    noted.note(&[], &noted.inputs());
    assert!(noted.is_known(&[]));
    assert_eq!(fs::read_dir(noted.path("built")).expect("listed").count(), NOTES_MAX);
}
