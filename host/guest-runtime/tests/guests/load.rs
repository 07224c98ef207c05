//! Modules and other files: each refusal with its whole text; the cache; the custom section.

use regraft_guest_runtime::componentize::encode;
use regraft_guest_runtime::describe;
use regraft_guest_runtime::engine::{EngineSettings, GuestEngine};
use regraft_model::error_kind::ErrorKind;

use crate::support::{BATCH, HEADER, KEYED, context, engine, hostile, hostile_component, hostile_core, settings};

fn refused(bytes: &[u8], expected: &str) {
    let error = engine().load(bytes).expect_err(expected);
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.kind(), ErrorKind::Usage);
}

/// The component with some text replaced by one of the same length, without a custom section.
fn patched(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = encode(hostile_core()).expect("a component");
    let mut found = false;
    for at in 0..bytes.len() - from.len() {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
            found = true;
        }
    }
    assert!(found, "no {from} in the component");
    bytes
}

#[test]
fn not_wasm() {
    refused(
        b"#!/bin/sh\n",
        "not a WebAssembly file: expected it to begin with \\0asm, found #!/bin/s",
    );
    refused(
        b"",
        "not a WebAssembly file: expected it to begin with \\0asm, found an empty file",
    );
}

#[test]
fn core_module() {
    refused(
        hostile_core(),
        "a core WebAssembly module, not a component; build it with `regraft build`",
    );
}

#[test]
fn damaged() {
    let component = encode(hostile_core()).expect("a component");
    let error = engine()
        .load(&component[..component.len() / 2])
        .expect_err("half a file")
        .to_string();
    assert!(error.starts_with("not a valid component: "), "{error}");
}

#[test]
fn other_world() {
    refused(
        b"\0asm\x0d\0\x01\0",
        "not an operator of Regraft: expected the export `regraft:operator/guest@0.2.0`, found no export",
    );
    refused(
        &patched("regraft:operator/guest@0.2.0", "regraft:operator/other@0.2.0"),
        "not an operator of Regraft: expected the export `regraft:operator/guest@0.2.0`, found \
         `regraft:operator/timers@0.2.0`, `regraft:operator/watermarks@0.2.0`, `regraft:operator/ending@0.2.0`, \
         `regraft:operator/operator-state@0.2.0`, `regraft:operator/migration@0.2.0`, `regraft:operator/other@0.2.0`",
    );
}

#[test]
fn imports_that_are_not_given() {
    // Names of the same length, so that nothing else of the file changes.
    refused(
        &patched("regraft:operator/host@0.2.0", "wasi:cli-x/environmen@0.2.0"),
        "it imports `wasi:cli-x/environmen@0.2.0`, and WASI is not granted to a module; build it for \
         wasm32-unknown-unknown with `regraft build`, which needs none of it (granting is not supported yet)",
    );
    refused(
        &patched("regraft:operator/host@0.2.0", "another:operator/host@0.2.0"),
        "it imports `another:operator/host@0.2.0`, which no operator is given: expected only `regraft:operator/host` \
         and `regraft:operator/state`",
    );
}

#[test]
fn other_version() {
    refused(
        &patched("@0.2.0", "@0.9.0"),
        "built for version 0.9.0 of the package regraft:operator, this host offers 0.2.0; build it again with an \
         SDK of this version, which `regraft sdk` puts into a job, and `regraft build`",
    );
    refused(
        &patched(r#""wit":"0.2.0""#, r#""wit":"0.3.0""#),
        "built for version 0.3.0 of the package regraft:operator, this host offers 0.2.0; build it again with an \
         SDK of this version, which `regraft sdk` puts into a job, and `regraft build`",
    );
}

#[test]
fn other_types() {
    let error = engine()
        .load(patched("counter-add", "counter-sub"))
        .expect_err("another import")
        .to_string();
    assert!(
        error.starts_with("its imports or exports are of other types than the package regraft:operator 0.2.0 has: ")
            && error.contains("counter-sub"),
        "{error}"
    );
}

#[test]
fn describe_that_is_malformed() {
    let error = engine()
        .load(patched(r#"{"wit":"#, r#"{"wut":"#))
        .expect_err("malformed")
        .to_string();
    assert!(
        error.starts_with("its `describe` returned JSON that is not a description: missing field `wit` at ")
            && error.contains("; found: {\"wut\":\"0.2.0\",\"sdk\":\"none\","),
        "{error}"
    );
}

#[test]
fn section_that_lies() {
    let component = encode(hostile_core()).expect("a component");
    let mut description = hostile().description().clone();
    description.sdk = "another".to_owned();
    refused(
        &describe::embed(&component, &description),
        "its section `regraft:describe` differs from what its `describe` returns: the section has \
         …wit\":\"0.2.0\",\"sdk\":\"another\",\"encoding\":\"bincode2\",\"calls\":[\"timers\",\"watermarks\",\"ending\",\"operator…, \
         `describe` returned \
         …wit\":\"0.2.0\",\"sdk\":\"none\",\"encoding\":\"bincode2\",\"calls\":[\"timers\",\"watermarks\",\"ending\",\"operator-st…; \
         build it again with `regraft build`",
    );
    let mut longer = hostile_component().to_vec();
    longer.push(0);
    let error = engine().load(longer).expect_err("changed").to_string();
    assert!(error.starts_with("it was changed after it was built: "), "{error}");
}

#[test]
fn core_module_of_no_world() {
    let error = encode(b"\0asm\x01\0\0\0\x05").expect_err("damaged").to_string();
    assert!(error.starts_with("cannot make a component of it: "), "{error}");
}

#[test]
fn section_round_trip() {
    let section = describe::read(hostile_component())
        .expect("well formed")
        .expect("a section");
    assert_eq!(&section.description, hostile().description());
    assert_eq!(
        section.digest,
        describe::ModuleDigest::of(&encode(hostile_core()).expect("a component"))
    );
    assert_eq!(hostile().description().states[0].name, "count");
    assert_eq!(hostile().declared().travels, [true, false]);
    // Making it again makes the same bytes.
    assert_eq!(
        engine().embed(hostile_component()).expect("embedded"),
        hostile_component()
    );
    assert_eq!(hostile().digest(), describe::ModuleDigest::of(hostile_component()));
    assert_eq!(hostile().bytes().as_ref(), hostile_component());
}

#[test]
fn an_unchanged_module_compiles_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let fresh = || {
        GuestEngine::new(&EngineSettings {
            cache_dir: Some(dir.path().join("compiled")),
        })
        .expect("an engine")
    };
    let engine = fresh();
    let first = engine.load(hostile_component()).expect("a module");
    assert!(first.compiled);
    assert!(
        !engine.load(hostile_component()).expect("a module").compiled,
        "still in this process"
    );
    assert!(
        !fresh().load(hostile_component()).expect("a module").compiled,
        "on disk"
    );
    let entries: Vec<_> = std::fs::read_dir(dir.path().join("compiled"))
        .expect("the cache")
        .flatten()
        .filter(|entry| entry.file_name() != "key")
        .collect();
    let name = entries[0].file_name().into_string().expect("a name");
    assert_eq!(entries.len(), 1);
    assert!(
        name.starts_with(&format!("{}-", hostile().digest())) && name.ends_with(".cwasm"),
        "{name}"
    );
    // Damaged at the end, cut short, empty: each compiles again, and once.
    let path = entries[0].path();
    let good = std::fs::read(&path).expect("the entry");
    let mut flipped = good.clone();
    *flipped.last_mut().expect("not empty") ^= 1;
    for damaged in [&flipped[..], &good[..good.len() / 2], &[]] {
        std::fs::write(&path, damaged).expect("written");
        assert!(fresh().load(hostile_component()).expect("a module").compiled);
        assert!(!fresh().load(hostile_component()).expect("a module").compiled);
    }
    // What comes from the cache runs, and outlives its engine.
    let module = fresh().load(hostile_component()).expect("a module").module;
    let mut instance = module.instantiate(&settings("loop")).expect("an instance");
    drop(module);
    instance.open(HEADER, &context()).expect("it opens");
    let error = instance
        .process(HEADER, BATCH, *KEYED)
        .expect_err("a deadline")
        .to_string();
    assert!(error.starts_with("the module computed for more than 200ms"), "{error}");
}

#[test]
fn a_cache_that_cannot_be_made() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let error = GuestEngine::new(&EngineSettings {
        cache_dir: Some(file.path().to_owned()),
    })
    .expect_err("a file");
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert_eq!(
        error.to_string(),
        format!(
            "making the directory of compiled modules failed: {}: File exists (os error 17)",
            file.path().display()
        )
    );
}
