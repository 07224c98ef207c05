//! Names of all objects that are read or written; see `docs/formats/savepoint.md`.
//!
//! Names are made nowhere else.

use std::fmt::Write;

use regraft_model::id::{CheckpointId, JobId, OperatorUid, SubtaskIndex};
use regraft_model::key_group::MAX_PARALLELISM_MAX;

/// The object whose presence means that a savepoint or checkpoint is complete.
pub const METADATA: &str = "_metadata";

/// Directory of state files within a savepoint or checkpoint.
pub const OPERATORS: &str = "operators";

/// Directory of components within a savepoint or checkpoint.
pub const MODULES: &str = "modules";

/// Path prefix of files that several checkpoints of a job share, relative to a checkpoint.
const SHARED: &str = "../shared/";

/// The content of a state file, as part of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFileName<'a> {
    /// A keyed state in its newest schema.
    State(&'a str),
    /// Values of a keyed state that still have an older schema, with the number of that schema.
    OlderSchema(&'a str, u16),
    /// Timers of an operator.
    Timers,
    /// Positions of a source.
    Positions,
    /// Operator state, which is not keyed.
    Operator(&'a str),
}

/// Returns `savepoint-<first 6 of JobID>-<12 hex>`, with the low 48 bits of `random`.
#[must_use]
pub fn savepoint(job: JobId, random: u64) -> String {
    format!("savepoint-{}-{:012x}", job.short(), random & 0xffff_ffff_ffff)
}

/// Returns `operators/<uid>-<subtask>-<uuid>.<state>.parquet`, where the UUID (version 4) is made of `random`.
#[must_use]
pub fn state_file(uid: &OperatorUid, subtask: SubtaskIndex, random: u128, what: StateFileName<'_>) -> String {
    let what = match what {
        StateFileName::State(name) => file_word(name),
        StateFileName::OlderSchema(name, schema) => format!("{}.v{schema}", file_word(name)),
        StateFileName::Timers => "timers".to_owned(),
        StateFileName::Positions => "positions".to_owned(),
        StateFileName::Operator(name) => format!("{}.operator", file_word(name)),
    };
    format!("{OPERATORS}/{uid}-{subtask}-{}.{what}.parquet", uuid(random))
}

/// Longest file name that may be needed for a state, in bytes. File systems take 255, of which a store may need some more
/// for the name under which it writes.
pub const FILE_NAME_MAX: usize = 220;

/// Returns the length of the longest file name of a state, or operator state, of this operator, in bytes.
#[must_use]
pub fn longest_file_name(uid: &OperatorUid, state: &str) -> usize {
    let subtask = SubtaskIndex(MAX_PARALLELISM_MAX - 1);
    let name = |what| state_file(uid, subtask, 0, what).len() - OPERATORS.len() - 1;
    name(StateFileName::OlderSchema(state, u16::MAX)).max(name(StateFileName::Operator(state)))
}

/// Returns `modules/<sha256>.wasm`.
#[must_use]
pub fn module(sha256: &str) -> String {
    format!("{MODULES}/{sha256}.wasm")
}

/// Returns `../shared/<sha256>.wasm`, the path of a component that checkpoints share.
#[must_use]
pub fn shared_module(sha256: &str) -> String {
    format!("{SHARED}{sha256}.wasm")
}

/// Returns `../shared/<name>`, the shared path of a state file named `operators/<name>`.
#[must_use]
pub fn to_shared(state_file: &str) -> String {
    format!(
        "{SHARED}{}",
        state_file.trim_start_matches(OPERATORS).trim_start_matches('/')
    )
}

/// Returns the name within the shared directory if the path points there.
#[must_use]
pub fn in_shared(path: &str) -> Option<&str> {
    path.strip_prefix(SHARED)
}

/// Returns true if a name in the shared directory has the form of those made here: a component, or a state file with
/// its UUID.
#[must_use]
pub fn is_shared_name(name: &str) -> bool {
    let hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if let Some(sha256) = name.strip_suffix(".wasm") {
        return sha256.len() == 64 && hex(sha256);
    }
    let Some((stem, what)) = name.strip_suffix(".parquet").and_then(|name| name.split_once('.')) else {
        return false;
    };
    let Some((subtask, uuid)) = stem.len().checked_sub(37).and_then(|at| stem.split_at_checked(at)) else {
        return false;
    };
    let number = subtask.rsplit_once('-').map(|(_, number)| number);
    let groups: Vec<usize> = uuid.split('-').map(str::len).collect();
    !what.is_empty()
        && groups == [0, 8, 4, 4, 4, 12]
        && hex(&uuid.replace('-', ""))
        && number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// Returns `<JobID>/chk-<n>`, a path within the checkpoint directory.
#[must_use]
pub fn checkpoint(job: JobId, checkpoint: CheckpointId) -> String {
    format!("{job}/chk-{checkpoint}")
}

/// Returns `chk-<n>`, a name within the directory of a job.
#[must_use]
pub fn checkpoint_name(checkpoint: CheckpointId) -> String {
    format!("chk-{checkpoint}")
}

/// Name of the directory, within that of a job, for files that several of its checkpoints share.
pub const SHARED_DIR: &str = "shared";

/// Returns `<JobID>/taskowned`, the directory for files that subtasks own.
#[must_use]
pub fn taskowned(job: JobId) -> String {
    format!("{job}/taskowned")
}

/// Parses the name of a checkpoint's directory, `chk-<n>`.
#[must_use]
pub fn parse_checkpoint(name: &str) -> Option<CheckpointId> {
    let digits = name.strip_prefix("chk-")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok().map(CheckpointId)).flatten()
}

/// Formats 128 random bits as a version 4 UUID.
#[must_use]
pub fn uuid(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

/// Encodes the name of a state as part of a file name.
///
/// Bytes other than ASCII letters, digits, `_` and `-` become `~` and two hex digits.
/// So does the first letter of `timers` and `operator`, since these words name other files.
fn file_word(name: &str) -> String {
    let mut word = String::with_capacity(name.len());
    for (i, byte) in name.bytes().enumerate() {
        let reserved = i == 0 && matches!(name, "timers" | "operator");
        if !reserved && (byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-') {
            word.push(char::from(byte));
        } else {
            let _ = write!(word, "~{byte:02x}");
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let job = JobId::from_bits(0xa1b2_c3d4_e5f6_0718_293a_4b5c_6d7e_8f90);
        let uid = OperatorUid::new("count").expect("uid");
        assert_eq!(savepoint(job, 0xffff_0123_4567_89ab), "savepoint-a1b2c3-0123456789ab");
        assert_eq!(
            checkpoint(job, CheckpointId(42)),
            "a1b2c3d4e5f60718293a4b5c6d7e8f90/chk-42"
        );
        assert_eq!(checkpoint_name(CheckpointId(42)), "chk-42");
        assert_eq!(taskowned(job), "a1b2c3d4e5f60718293a4b5c6d7e8f90/taskowned");
        assert_eq!(module("00ff"), "modules/00ff.wasm");
        let name = |what| state_file(&uid, SubtaskIndex(3), u128::MAX, what);
        let stem = "operators/count-3-ffffffff-ffff-4fff-bfff-ffffffffffff";
        assert_eq!(name(StateFileName::State("sum")), format!("{stem}.sum.parquet"));
        assert_eq!(
            name(StateFileName::State("a.b/ä")),
            format!("{stem}.a~2eb~2f~c3~a4.parquet")
        );
        assert_eq!(name(StateFileName::State("timers")), format!("{stem}.~74imers.parquet"));
        assert_eq!(
            name(StateFileName::OlderSchema("sum", 2)),
            format!("{stem}.sum.v2.parquet")
        );
        assert_eq!(name(StateFileName::Timers), format!("{stem}.timers.parquet"));
        assert_eq!(
            name(StateFileName::Operator("rules")),
            format!("{stem}.rules.operator.parquet")
        );
    }

    #[test]
    fn shared_files_are_recognised() {
        let uid = OperatorUid::new("count-by-word").expect("uid");
        let file = state_file(&uid, SubtaskIndex(12), 7, StateFileName::OlderSchema("a.b", 2));
        let shared = to_shared(&file);
        assert_eq!(
            shared,
            "../shared/count-by-word-12-00000000-0000-4000-8000-000000000007.a~2eb.v2.parquet"
        );
        let name = in_shared(&shared).expect("it is");
        assert!(is_shared_name(name) && in_shared(&file).is_none());
        let module = shared_module(&"0f".repeat(32));
        assert!(in_shared(&module).is_some_and(is_shared_name), "{module}");
        for other in [
            "notes.parquet",
            "x-00000000-0000-4000-8000-000000000007.s.parquet",
            "x-1-00000000-0000-4000-8000-000000000007.parquet",
            "x-1-00000000-0000-4000-8000-00000000000g.s.parquet",
            "x-1-00000000-0000-4000-8000-000000000007.s.csv",
            "0f.wasm",
            "",
        ] {
            assert!(!is_shared_name(other), "{other}");
        }
    }

    #[test]
    fn checkpoint_directories_are_recognised() {
        assert_eq!(parse_checkpoint("chk-42"), Some(CheckpointId(42)));
        for other in [
            "chk-",
            "chk-x",
            "chk-042",
            "shared",
            "chk-+1",
            "chk-99999999999999999999",
        ] {
            assert_eq!(parse_checkpoint(other), None, "{other}");
        }
    }
}
