//! Each misbehaviour, and the whole text it is told by. After a trap only that instance is of no more use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use regraft_guest_runtime::call::{Failure, Outcome};
use regraft_guest_runtime::componentize::encode;
use regraft_guest_runtime::engine::{EngineSettings, GuestEngine};
use regraft_guest_runtime::profile::{COPIES_IN, COPIES_OUT, Profile, ProfileNode, Profiler};
use regraft_guest_runtime::trap::{GuestError, TrapCause};

use crate::support::{
    BATCH, HEADER, KEYED, context, engine, hostile, hostile_component, hostile_core, opened, settings,
};

fn process(behaviour: &str) -> Result<Outcome, GuestError> {
    opened(behaviour).process(HEADER, BATCH, *KEYED)
}

fn check(behaviour: &str, expected: &str) -> GuestError {
    let error = process(behaviour).expect_err(behaviour);
    assert_eq!(error.to_string(), expected, "{behaviour}");
    error
}

/// Function names of the backtrace, outermost last, with the file where the guest's own.
fn functions(error: &GuestError) -> Vec<String> {
    error.backtrace().iter().map(ToString::to_string).collect()
}

fn assert_in(error: &GuestError, function: &str, file: &str) {
    let found = error
        .backtrace()
        .iter()
        .find(|frame| frame.function.ends_with(function));
    let found = found.unwrap_or_else(|| panic!("no {function} in {:#?}", functions(error)));
    assert!(
        found.file.as_deref().is_some_and(|name| name.ends_with(file)) && found.line > Some(0),
        "{found}"
    );
}

#[test]
fn trap() {
    let error = check("trap", "the module trapped: wasm `unreachable` instruction executed");
    assert_in(&error, "Guest>::process", "hostile/src/lib.rs");
    assert_eq!(error.row(), None);
}

#[test]
fn panic() {
    let error = process("panic").expect_err("a panic");
    let GuestError::Trapped {
        cause: TrapCause::Panic { line, column, .. },
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(
        error.to_string(),
        format!(
            "the module panicked at tests/guests/hostile/src/lib.rs:{line}:{column}, in row 1: cannot parse \"bad\""
        )
    );
    assert_eq!(error.row(), Some(1));
    // The frames of the panic itself are not shown.
    assert!(
        functions(&error)[0].starts_with("panic_at_bad_value"),
        "{:#?}",
        functions(&error)
    );
    assert_in(&error, "panic_at_bad_value", "hostile/src/lib.rs");
}

#[test]
fn endless_loop() {
    let started = Instant::now();
    check(
        "loop",
        "the module computed for more than 200ms in one call; raise `limits.time-per-batch` if it needs that long",
    );
    assert!(started.elapsed() > Duration::from_millis(200));
}

#[test]
fn a_profile_shows_where_a_guest_spends_its_time() {
    let profiler = Arc::new(Profiler::default());
    let profiled = regraft_guest_runtime::instance::InstanceSettings {
        profiler: profiler.clone(),
        ..settings("loop")
    };
    let mut instance = hostile().instantiate(&profiled).expect("an instance");
    instance.open(HEADER, &context()).expect("opened");
    let sampling = engine().sampling();
    assert!(profiler.start());
    let error = instance.process(HEADER, BATCH, *KEYED).expect_err("it takes too long");
    let profile = profiler.stop().expect("it was started");
    drop(sampling);
    // The guest may compute as long as without.
    assert!(error.is_too_slow(), "{error}");
    assert!(profile.computed > Duration::from_millis(180), "{profile:?}");
    assert!(
        (profile.samples, profile.calls) > (5, 1) && profile.cut == 0,
        "{profile:?}"
    );
    let is_hot = |name: &str| {
        let of = |node: &ProfileNode| profile.functions[node.function as usize].contains(name);
        let all: u64 = profile
            .nodes
            .iter()
            .filter(|node| of(node))
            .map(|node| node.samples)
            .sum();
        all * 10 > profile.samples * 9
    };
    assert!(is_hot("endless") || is_hot("black_box"), "{profile:#?}");
}

#[test]
fn a_profile_tells_copies_of_the_host_from_the_guest() {
    let profiler = Arc::new(Profiler::default());
    let profiled = regraft_guest_runtime::instance::InstanceSettings {
        profiler: profiler.clone(),
        ..settings("echo")
    };
    let mut instance = hostile().instantiate(&profiled).expect("an instance");
    instance.open(HEADER, &context()).expect("opened");
    let _sampling = engine().sampling();
    assert!(profiler.start());
    let started = Instant::now();
    let is_seen = |profile: &Profile| {
        let name = |node: &ProfileNode| profile.functions[node.function as usize].as_str();
        let mut names = profile.nodes.iter().map(name);
        names.any(|name| name == COPIES_IN || name == COPIES_OUT)
    };
    loop {
        for _ in 0..1_000 {
            instance.process(HEADER, BATCH, *KEYED).expect("an echo");
        }
        let profile = profiler.stop().expect("it was started");
        assert_eq!(profile.calls, 1_000);
        if is_seen(&profile) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{profile:?}");
        assert!(profiler.start());
    }
}

#[test]
fn memory_without_bound() {
    // A busy machine takes more than the usual 200 ms to give 64 MiB.
    let patient = regraft_guest_runtime::instance::InstanceSettings {
        time_per_batch_max: Duration::from_secs(60),
        ..settings("grow")
    };
    let mut instance = hostile().instantiate(&patient).expect("an instance");
    instance.open(HEADER, &context()).expect("opened");
    let error = instance.process(HEADER, BATCH, *KEYED).expect_err("too much memory");
    let GuestError::Trapped {
        cause: TrapCause::OutOfMemory { asked, limit },
        ..
    } = error
    else {
        panic!("{error}");
    };
    assert!(asked > limit && asked < 2 * limit, "{asked}");
    assert_eq!(limit, 64 << 20);
    assert_eq!(
        TrapCause::OutOfMemory {
            asked: (65 << 20) + 65_536,
            limit
        }
        .to_string(),
        "the module ran out of memory: it asked for 65.1 MiB, and the limit is 64 MiB; raise `limits.memory` if it \
         needs that much"
    );
}

#[test]
fn memory_that_never_suffices() {
    let small = regraft_guest_runtime::instance::InstanceSettings {
        memory_max: 1 << 20,
        ..settings("echo")
    };
    let error = hostile()
        .instantiate(&small)
        .expect_err("too little memory")
        .to_string();
    assert!(
        error.starts_with("the module ran out of memory: it asked for 1.")
            && error.ends_with(" MiB, and the limit is 1 MiB; raise `limits.memory` if it needs that much"),
        "{error}"
    );
}

#[test]
fn stack_overflow() {
    let error = check(
        "stack",
        "the module's stack overflowed: a function calls itself without end, or too deep",
    );
    assert_in(&error, "regraft_test_hostile::deep", "hostile/src/lib.rs");
}

#[test]
fn declared_failure() {
    let mut instance = opened("fail");
    let error = instance.process(HEADER, BATCH, *KEYED).expect_err("a failure");
    let failure = Failure {
        row: Some(1),
        message: "not a number: \"x\"".to_owned(),
    };
    assert_eq!(error, GuestError::Failed { failure });
    assert_eq!(error.to_string(), "row 1: not a number: \"x\"");
    // It is not a trap: the instance goes on.
    assert!(!instance.is_poisoned());
    assert_eq!(instance.process(HEADER, BATCH, *KEYED).expect_err("again"), error);
}

#[test]
fn lies() {
    let wrong = |behaviour: &str, what: &str| {
        check(behaviour, &format!("the module returned a wrong outcome: {what}"));
    };
    wrong(
        "lie-ends",
        "outputs[0].value-ends: end offset 1 is 1, less than the one before it (2)",
    );
    wrong(
        "lie-length",
        "outputs[0].value-ends has 4 entries: expected 3, as many as parents",
    );
    wrong(
        "lie-parents",
        "outputs[0].parents[2] is 3: expected less than 3 (3 rows of the call)",
    );
    wrong(
        "lie-port",
        "outputs[0].port is 7: expected less than 1, the number of declared outputs",
    );
    wrong(
        "lie-timestamps",
        "outputs[0].timestamps has 1 entries: expected 3, as many as parents",
    );
    wrong(
        "lie-keys",
        "outputs[0].key-ends has 0 entries: expected 3, as many as parents",
    );
    wrong("lie-cells", "cells[0].keys[1] is 99: expected less than 2 (2 keys)");
    wrong(
        "lie-cells-twice",
        "cells[0].keys[2] is key 1 again: expected each key at most once in `keys` and `cleared` together",
    );
    wrong(
        "lie-cleared",
        "cells[0].cleared[0] is key 0 again: expected each key at most once in `keys` and `cleared` together",
    );
    wrong(
        "lie-cells-state",
        "cells[0].state is 1, a state that does not travel: expected its writes in `entries`",
    );
    wrong(
        "lie-cells-no-state",
        "cells[0].state is 2: expected less than 2 (2 declared states)",
    );
    wrong(
        "lie-cells-state-twice",
        "cells[1].state is 0 again: expected each state at most once",
    );
    wrong("lie-timers", "timer-ops[0] is 2: expected 0 (register) or 1 (delete)");
    wrong(
        "lie-timer-columns",
        "timer-keys has 1 entries: expected 2, as many as timer-ops",
    );
    wrong(
        "lie-entries",
        "entries.states[0] is 0, a state that travels: expected its writes in `cells`",
    );
    wrong(
        "lie-large",
        "it is larger than the instance's whole memory may be (64 MiB)",
    );
    wrong(
        "fail-beyond",
        "failure.row is 9: expected less than 3 (rows of the call); its message: no such row",
    );
    let error = opened("lie-snapshot").snapshot(HEADER, 1).expect_err("a lie");
    assert_eq!(
        error.to_string(),
        "the module returned a wrong outcome: operator state \"seen\": item-ends: the last end offset is 3, but there \
         are 2 bytes of data"
    );
    let error = opened("lie-snapshot-state").snapshot(HEADER, 1).expect_err("a lie");
    assert_eq!(
        error.to_string(),
        "the module returned a wrong outcome: states[0].state is 1: expected less than 1 (the declared operator states)"
    );
}

#[test]
fn a_lie_that_was_read_keeps_the_instance() {
    let mut instance = opened("lie-ends");
    instance.process(HEADER, BATCH, *KEYED).expect_err("a lie");
    assert!(!instance.is_poisoned());
    assert!(instance.finish_keys(HEADER, *KEYED).is_ok());
}

#[test]
fn others_go_on_after_a_trap_and_reset_helps() {
    let mut other = opened("echo");
    let mut instance = opened("panic");
    instance.process(HEADER, BATCH, *KEYED).expect_err("a panic");
    assert!(instance.is_poisoned());
    let again = instance.process(HEADER, BATCH, *KEYED).expect_err("poisoned");
    assert_eq!(
        again.to_string(),
        "the instance cannot be called: an earlier call of it trapped, and it has not been reset"
    );
    assert!(other.process(HEADER, BATCH, *KEYED).is_ok());
    instance.reset().expect("a new instance");
    instance.open(HEADER, &context()).expect("it opens");
    let good = regraft_guest_runtime::call::BatchView {
        value_data: b"aokcc",
        ..BATCH
    };
    assert!(instance.process(HEADER, good, *KEYED).is_ok());
}

#[test]
fn open_may_refuse_or_trap() {
    let mut instance = hostile().instantiate(&settings("refuse")).expect("an instance");
    let error = instance.open(HEADER, &context()).expect_err("refused");
    assert_eq!(error.to_string(), "refused with [\"--limit\", \"5\"]");
    let mut instance = hostile().instantiate(&settings("trap-in-open")).expect("an instance");
    let error = instance.open(HEADER, &context()).expect_err("a trap");
    assert_eq!(
        error.to_string(),
        "the module trapped: wasm `unreachable` instruction executed"
    );
}

/// Places of the component's debug information.
fn debug_sections(component: &[u8]) -> Vec<std::ops::Range<usize>> {
    let payloads = wasmparser::Parser::new(0).parse_all(component);
    let sections = payloads.filter_map(|payload| match payload.expect("a component") {
        wasmparser::Payload::CustomSection(section) if section.name().starts_with(".debug_") => Some(section),
        _ => None,
    });
    sections
        .map(|section| section.data_offset()..section.data_offset() + section.data().len())
        .collect()
}

#[test]
fn debug_information_may_lie() {
    // Without its description, which has a checksum of all the rest.
    let good = &encode(hostile_core()).expect("a component");
    let sections = debug_sections(good);
    assert!(!sections.is_empty(), "the guest has debug information");
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for round in 0..8 {
        let mut bad = good.clone();
        for section in &sections {
            match round {
                0 => bad[section.clone()].fill(0),
                1 => bad[section.clone()].fill(0xff),
                _ => {
                    for _ in 0..section.len().div_ceil(64) {
                        bad[section.start + random() % section.len()] = random() as u8;
                    }
                }
            }
        }
        let module = engine().load(bad).expect("its code is whole").module;
        let mut instance = module.instantiate(&settings("panic")).expect("an instance");
        instance.open(HEADER, &context()).expect("it opens");
        let error = instance.process(HEADER, BATCH, *KEYED).expect_err("a panic");
        assert!(error.to_string().contains("cannot parse \"bad\""), "{error}");
        // The function's names are not of the debug information.
        assert!(
            functions(&error).iter().any(|frame| frame.contains("::process")),
            "{:#?}",
            functions(&error)
        );
    }
}

#[test]
fn the_second_trap_is_told_as_the_first_was() {
    let first = process("panic").expect_err("a panic");
    let again = process("panic").expect_err("a panic");
    assert_eq!(first, again);
    let fresh = GuestEngine::new(&EngineSettings::default()).expect("an engine");
    let module = fresh.load(hostile_component()).expect("a module").module;
    let mut instance = module.instantiate(&settings("panic")).expect("an instance");
    instance.open(HEADER, &context()).expect("it opens");
    assert_eq!(first, instance.process(HEADER, BATCH, *KEYED).expect_err("a panic"));
}
