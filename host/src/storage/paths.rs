//! Every object name that is read or written, built in one place (`docs/formats/savepoint.md`).

use std::fmt::Write;

use regraft_model::id::{CheckpointId, JobId, OperatorUid, SubtaskIndex};

/// The object whose presence means that a savepoint or checkpoint is complete.
pub const METADATA: &str = "_metadata";

/// Where state files are, within a savepoint or checkpoint.
pub const OPERATORS: &str = "operators";

/// Where components are, within a savepoint or checkpoint.
pub const MODULES: &str = "modules";

/// What several checkpoints of a job refer to, as seen from one of them.
const SHARED: &str = "../shared/";

/// What a state file holds, as it stands in its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFileName<'a> {
    /// A keyed state in its newest schema.
    State(&'a str),
    /// Values of a keyed state that still have an older schema, by its number.
    OlderSchema(&'a str, u16),
    /// Timers of an operator.
    Timers,
    /// Operator (not keyed) state.
    Operator(&'a str),
}

/// `savepoint-<first 6 of JobID>-<12 hex>`. Of `random`, the low 48 bits are used.
#[must_use]
pub fn savepoint(job: JobId, random: u64) -> String {
    format!("savepoint-{}-{:012x}", job.short(), random & 0xffff_ffff_ffff)
}

/// `operators/<uid>-<subtask>-<uuid>.<state>.parquet`; `random` becomes the UUID (version 4).
#[must_use]
pub fn state_file(uid: &OperatorUid, subtask: SubtaskIndex, random: u128, what: StateFileName<'_>) -> String {
    let what = match what {
        StateFileName::State(name) => file_word(name),
        StateFileName::OlderSchema(name, schema) => format!("{}.v{schema}", file_word(name)),
        StateFileName::Timers => "timers".to_owned(),
        StateFileName::Operator(name) => format!("{}.operator", file_word(name)),
    };
    format!("{OPERATORS}/{uid}-{subtask}-{}.{what}.parquet", uuid(random))
}

/// `modules/<sha256>.wasm`.
#[must_use]
pub fn module(sha256: &str) -> String {
    format!("{MODULES}/{sha256}.wasm")
}

/// `../shared/<sha256>.wasm`: a component that checkpoints share.
#[must_use]
pub fn shared_module(sha256: &str) -> String {
    format!("{SHARED}{sha256}.wasm")
}

/// `../shared/<name>` for the state file that would be `operators/<name>`.
#[must_use]
pub fn to_shared(state_file: &str) -> String {
    format!(
        "{SHARED}{}",
        state_file.trim_start_matches(OPERATORS).trim_start_matches('/')
    )
}

/// The name within the shared directory, where a path is in it.
#[must_use]
pub fn in_shared(path: &str) -> Option<&str> {
    path.strip_prefix(SHARED)
}

/// Whether a name in the shared directory is one that is made here: a component, or a state file with its UUID.
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

/// `<JobID>/chk-<n>`, within the checkpoint directory.
#[must_use]
pub fn checkpoint(job: JobId, checkpoint: CheckpointId) -> String {
    format!("{job}/chk-{checkpoint}")
}

/// `chk-<n>`, within the directory of its job.
#[must_use]
pub fn checkpoint_name(checkpoint: CheckpointId) -> String {
    format!("chk-{checkpoint}")
}

/// The directory, within that of a job, of what several of its checkpoints refer to.
pub const SHARED_DIR: &str = "shared";

/// `<JobID>/taskowned`: what subtasks own.
#[must_use]
pub fn taskowned(job: JobId) -> String {
    format!("{job}/taskowned")
}

/// The checkpoint id of a directory's name, `chk-<n>`.
#[must_use]
pub fn parse_checkpoint(name: &str) -> Option<CheckpointId> {
    let digits = name.strip_prefix("chk-")?;
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok().map(CheckpointId)).flatten()
}

/// 128 random bits as the text of a version 4 UUID.
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

/// A state's name as part of a file name: what is not a letter, digit, `_` or `-` becomes `~` and two hex digits per byte.
/// The first letter of `timers` and `operator` does too: those words name other files.
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
