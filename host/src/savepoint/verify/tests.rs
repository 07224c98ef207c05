//! A sound savepoint, and one with damage of every kind.

use super::*;
use crate::savepoint::show;
use crate::savepoint::test_data;

#[tokio::test]
async fn a_sound_savepoint_has_no_problems() {
    let savepoint = test_data::savepoint().await;
    let mut seen = Vec::new();
    let report = verify(&savepoint, &Budget::of_machine(), |done| seen.push(done)).await;
    assert_eq!(report.problems, []);
    assert_eq!(
        (report.files, report.entries, report.bytes),
        (3, 200, show::show(&savepoint).bytes)
    );
    assert_eq!(seen, [1, 2, 3]);
}

#[tokio::test]
async fn all_damage_is_reported_at_once() {
    let savepoint = test_data::savepoint().await;
    let files = &savepoint.metadata.operators[2].states[0].files;
    let mut bytes = savepoint.storage.read(&files[0].path).await.expect("read").to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let found = crate::savepoint::metadata::checksum(&bytes);
    savepoint.storage.put(&files[0].path, bytes).await.expect("put");
    savepoint.storage.delete(&files[1].path).await.expect("delete");
    savepoint
        .storage
        .put(&savepoint.metadata.modules[0].path, "TEST")
        .await
        .expect("put");
    let report = verify(&savepoint, &Budget::of_machine(), |_| {}).await;
    let messages: Vec<_> = report.problems.iter().map(|problem| problem.message.clone()).collect();
    let url = |path: &str| savepoint.storage.url_of(path);
    assert_eq!(messages.len(), 3);
    let (expected, path) = (&files[0].checksum, url(&files[0].path));
    assert_eq!(
        messages[0],
        format!("{path} is damaged: expected checksum {expected}, found {found}. Use another copy of it.")
    );
    let path = url(&files[1].path);
    assert_eq!(
        messages[1],
        format!("{path} is missing, but _metadata lists it. A savepoint is moved or copied as a whole directory.")
    );
    assert!(messages[2].contains("modules/") && messages[2].contains("is damaged"));
}

/// Every flipped bit and every truncation of a state file is reported, even if its decoder would accept it.
#[tokio::test]
async fn no_damage_of_a_state_file_passes() {
    let savepoint = test_data::savepoint().await;
    let state = &savepoint.metadata.operators[2].states[0];
    let file = &state.files[0];
    let whole = savepoint.storage.read(&file.path).await.expect("read").to_vec();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        savepoint.storage.put(&file.path, damaged).await.expect("put");
        assert!(is_refused(&savepoint, state, file).await, "bit of byte {at}");
        savepoint
            .storage
            .put(&file.path, whole[..at].to_vec())
            .await
            .expect("put");
        assert!(is_refused(&savepoint, state, file).await, "cut at {at}");
    }
}

async fn is_refused(savepoint: &Savepoint, state: &StateEntry, file: &StateFile) -> bool {
    let budget = Budget::unlimited();
    OfFile::new(savepoint, state, file, &budget).check().await.is_err()
}

#[tokio::test]
async fn rows_in_a_wrong_key_group_are_found() {
    let storage = test_data::storage();
    let mut metadata = test_data::write_files(&storage).await;
    metadata.max_parallelism = 256;
    let state = &mut metadata.operators[2].states[0];
    state.empty = vec![regraft_model::key_group::KeyGroupRange { first: 128, last: 255 }];
    test_data::publish(&storage, &metadata)
        .await
        .expect("sound as far as can be told");
    let report = verify(&Savepoint { storage, metadata }, &Budget::of_machine(), |_| {}).await;
    assert!(report.problems.len() > 2);
    assert!(
        report
            .problems
            .iter()
            .all(|problem| problem.message.contains("belongs to key group")),
        "{report:?}"
    );
}
