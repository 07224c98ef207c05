//! Round trips of `_metadata`, damage of every kind, and the findings of [`Metadata::problems`].

use regraft_model::key_group::KeyGroupRange;

use super::*;
use crate::savepoint::test_data;
use crate::storage::paths;

async fn sample() -> Metadata {
    test_data::write_files(&test_data::storage()).await
}

#[tokio::test]
async fn text_round_trips_and_is_plain_json() {
    let metadata = sample().await;
    let text = metadata.to_text("p").expect("sound");
    assert_eq!(
        Metadata::from_text(text.as_bytes(), "p").expect("just written"),
        metadata
    );
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["format_version"], 3);
    assert_eq!(json["payload"]["format"], "canonical");
    assert_eq!(json["payload"]["kind"], "savepoint");
    assert_eq!(json["payload"]["operators"][2]["states"][0]["schema"], "u64");
}

#[tokio::test]
async fn every_truncation_and_every_flipped_bit_is_told() {
    let text = sample().await.to_text("p").expect("sound").into_bytes();
    for len in 0..text.len() {
        let error = Metadata::from_text(&text[..len], "p").expect_err("truncated");
        assert!(
            matches!(error, MetadataError::Truncated { bytes, .. } if bytes == len),
            "{len}: {error}"
        );
    }
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut damaged = text.clone();
            damaged[at] ^= 1 << bit;
            assert!(Metadata::from_text(&damaged, "p").is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[tokio::test]
async fn errors_in_full() {
    let text = sample().await.to_text("p").expect("sound");
    let error = |text: &str| {
        Metadata::from_text(text.as_bytes(), "file:///s/_metadata")
            .expect_err("wrong")
            .to_string()
    };
    assert_eq!(
        error(&text.replacen(":3,", ":4,", 1)),
        "file:///s/_metadata has format version 4; this host reads 1 to 3. Use a newer Regraft."
    );
    assert_eq!(
        error("<html>"),
        "file:///s/_metadata is not a Regraft _metadata file: expected {\"format_version\":… at its beginning"
    );
    assert_eq!(
        error(&text[..100]),
        "file:///s/_metadata is truncated: it ends after 100 bytes. Use another copy of it."
    );
    let sum = &text[32..48];
    let damaged = text.replacen("word-count", "word-kount", 1);
    let found = xxhash_rust::xxh3::xxh3_64_with_seed(&damaged.as_bytes()[60..text.len() - 2], 3);
    assert_eq!(
        error(&damaged),
        format!("file:///s/_metadata is damaged: expected checksum {sum}, found {found:016x}. Use another copy of it.")
    );
}

#[tokio::test]
async fn the_digest_of_a_list_of_u8_as_earlier_releases_wrote_it_is_accepted() {
    let mut metadata = sample().await;
    let list = Type::List(Box::new(Type::U8));
    assert_ne!(list.digest_as_written(), list.digest());
    let state = &mut metadata.operators[2].states[0];
    state.digest = list.digest_as_written().to_string();
    (state.schema, state.schemas) = (list.clone(), vec![list]);
    assert_eq!(metadata.problems(), [""; 0]);
}

#[tokio::test]
async fn contradictions_are_found_all_at_once() {
    let sound = sample().await;
    assert_eq!(sound.problems(), [""; 0]);
    let check = |expected: &[&str], change: fn(&mut Metadata)| {
        let mut metadata = sound.clone();
        change(&mut metadata);
        assert_eq!(metadata.problems(), expected);
        assert!(matches!(metadata.to_text("p"), Err(MetadataError::Invalid { .. })));
    };
    check(&["max_parallelism is 0, expected 1 to 32768"], |m| {
        m.max_parallelism = 0;
    });
    check(&["uid out is listed twice"], |m| {
        m.operators.push(m.operators[3].clone());
    });
    check(&["uid new is not in the graph"], |m| {
        m.operators[1].uid = test_data::uid("new");
    });
    check(&["count/count: no file has key groups 64 to 127"], |m| {
        m.operators[2].states[0].files.pop();
    });
    check(&["count/count: two subtasks have key group 50"], |m| {
        m.operators[2].states[0].files[1].key_groups.first = 50;
    });
    check(
        &[
            "count/count: no file has key groups 0 to 63",
            "count/count: two subtasks have key group 100",
        ],
        |m| {
            let state = &mut m.operators[2].states[0];
            state.files.remove(0);
            state.empty = vec![KeyGroupRange { first: 100, last: 127 }];
        },
    );
    check(
        &[
            "path \"../x\" is not a relative path into the savepoint",
            "path \"operators//x\" is not a relative path into the savepoint",
        ],
        |m| {
            m.operators[2].states[0].files[0].path = "../x".into();
            m.operators[2].states[0].files[1].path = "operators//x".into();
        },
    );
    check(
        &["count/count: its schema is not the last in its list of schemas"],
        |m| {
            m.operators[2].states[0].schemas.push(Type::Bool);
        },
    );
    check(&["count/count: digest 0 is not that of its schema"], |m| {
        m.operators[2].states[0].digest = "0".into();
    });
    check(&["count: expected 2 watermarks, one for each subtask, found 1"], |m| {
        m.operators[2].watermarks = vec![1];
    });
    check(&["lines: split \"a.txt\" is listed twice"], |m| {
        m.operators[0].source.as_mut().expect("source").splits[0].split = "a.txt".into();
    });
    check(
        &[
            "checkpoint_id is 18446744073709551615, expected less than 2^62, so that later ones fit",
            "attempt is 2147483648, expected less than 2^30, so that later ones fit",
        ],
        |m| {
            m.checkpoint_id.0 = u64::MAX;
            m.attempt.0 = 1 << 31;
        },
    );
    check(
        &[
            "count/count: operators/count-1-00000000-0000-4000-8000-000000000001.count.parquet names no schema, and canonical rows do not either",
        ],
        |m| m.operators[2].states[0].files[1].schema = 0,
    );
    check(&["the sum of the bytes of its files does not fit in 64 bits"], |m| {
        m.modules[0].bytes = u64::MAX;
    });
    check(&["graph: split reads count, which is not listed before it"], |m| {
        m.graph[1].inputs[0].from = test_data::uid("count");
    });
    check(&["count: expected records of 2 subtasks, found 1"], |m| {
        m.operators[2].subtasks = vec![SubtaskRecord::default()];
    });
    check(
        &[
            "count/count: value state with a map key",
            "count/count: value state with names of timers",
        ],
        |m| {
            m.operators[2].states[0].map_key = Some(Type::U8);
            m.operators[2].states[0].timers = vec!["gap".into()];
        },
    );
    let sha256 = "0".repeat(64);
    let mut metadata = sound.clone();
    metadata.operators[2].module = Some(sha256.clone());
    assert_eq!(
        metadata.problems(),
        [format!("count: module {sha256} is not among the modules")]
    );
}

#[tokio::test]
async fn only_a_checkpoint_shares_files_and_has_increments() {
    let mut sound = sample().await;
    (sound.owner, sound.format) = (Owner::Host, Layout::Native);
    let state = &mut sound.operators[2].states[0];
    for file in &mut state.files {
        file.schema = 0;
        file.path = paths::to_shared(&file.path);
    }
    let mut change = state.files[0].clone();
    (change.path, change.increment) = ("../shared/change.parquet".into(), true);
    state.files.insert(1, change);
    assert_eq!(sound.problems(), [""; 0]);
    let path = sound.operators[2].states[0].files[0].path.clone();

    let check = |expected: &[&str], change: &dyn Fn(&mut Metadata)| {
        let mut metadata = sound.clone();
        change(&mut metadata);
        assert_eq!(metadata.problems(), expected);
    };
    let moved = "path \"../shared/x/y\" leads out of the savepoint, which must hold all of its files";
    check(&[moved], &|m| {
        m.operators[2].states[0].files[0].path = "../shared/x/y".into()
    });
    check(
        &["path \"../shared/..\" is not a relative path into the savepoint"],
        &|m| {
            m.operators[2].states[0].files[0].path = "../shared/..".into();
        },
    );
    let behind = format!("count/count: {path} is listed after changes to it");
    check(&[&behind], &|m| m.operators[2].states[0].files.swap(0, 1));
    check(&["count/count: subtask 0 has two files of schema 0"], &|m| {
        m.operators[2].states[0].files[1].increment = false
    });
    let parts = format!("count/count: {path}: its parts are out of place");
    check(&[&parts], &|m| m.operators[2].states[0].files[0].groups[0].place = None);
    check(&[&parts], &|m| m.operators[2].states[0].files[0].footer = None);
    let size = sound.operators[2].states[0].files[0].bytes;
    check(
        &[&format!(
            "count/count: {path} lists {} bytes, and its parts end at {size}",
            size + 1
        )],
        &|m| {
            m.operators[2].states[0].files[0].bytes += 1;
        },
    );

    let mut user = sound.clone();
    user.owner = Owner::User;
    let problems = user.problems();
    assert_eq!(problems.len(), 4, "{problems:?}");
    assert!(problems.iter().any(|problem| {
        problem.ends_with("is an increment; only keyed state and positions of a checkpoint may have one")
    }));
    assert_eq!(
        problems
            .iter()
            .filter(|problem| problem.contains("leads out of the savepoint"))
            .count(),
        3
    );
}

/// The previous format version is read (`tests/golden/savepoint/` has whole savepoints of it).
#[tokio::test]
async fn the_version_before_is_read() {
    let metadata = sample().await;
    let payload = serde_json::to_string(&metadata).expect("JSON");
    let text = |version: u32, checksum: &str| {
        format!("{{\"format_version\":{version},\"checksum\":\"{checksum}\",\"payload\":{payload}}}\n")
    };
    let unseeded = checksum(payload.as_bytes());
    for version in [1, 2] {
        let text = text(version, &unseeded);
        assert_eq!(Metadata::from_text(text.as_bytes(), "p").expect("read"), metadata);
    }
    for version in [0, 3] {
        let text = text(version, &unseeded);
        assert!(Metadata::from_text(text.as_bytes(), "p").is_err(), "{version}");
    }
}

/// The entries of states may be as many as fit in the bytes.
#[tokio::test]
async fn very_many_row_groups_are_read_again() {
    const GROUPS: u32 = 150_000;
    let mut metadata = sample().await;
    let file = &mut metadata.operators[2].states[0].files[0];
    let first = file.key_groups.first;
    let place = |n: u32| Place {
        offset: 4 + 10 * u64::from(n),
        bytes: 10,
        checksum: "0".repeat(16),
    };
    let extent = |n: u32| GroupExtent {
        first_group: first,
        last_group: first,
        row_group: n,
        rows: 1,
        place: Some(place(n)),
    };
    file.groups = (0..GROUPS).map(extent).collect();
    (file.entries, file.footer) = (u64::from(GROUPS), Some(place(GROUPS)));
    file.bytes = place(GROUPS).range().end;
    let text = metadata.to_text("p").expect("it can be written");
    assert_eq!(Metadata::from_text(text.as_bytes(), "p").expect("read"), metadata);
}

#[test]
fn declarations_take_what_they_take_in_a_snapshot() {
    let states = |count: usize| {
        let states = (0..count).map(|n| format!(r#"{{"name":"s{n}","kind":"value","schema":"u8"}}"#));
        let states = states.collect::<Vec<_>>().join(",");
        let json = format!(r#"{{"wit":"0.2.0","key":{{"name":"k","type":"u8"}},"states":[{states}]}}"#);
        serde_json::from_str::<Description>(&json).expect("a description")
    };
    assert!(declared_bytes(&states(10), 1000) < DECLARED_BYTES_MAX / 4);
    assert!(declared_bytes(&states(1), 4096) < DECLARED_BYTES_MAX / 4);
    assert!(declared_bytes(&states(100), 1000) > DECLARED_BYTES_MAX);
}
