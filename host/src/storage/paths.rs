//! Every object name that is read or written, built in one place (`docs/formats/savepoint.md`).

use std::fmt::Write;

use regraft_model::id::{CheckpointId, JobId, OperatorUid, SubtaskIndex};

/// The object whose presence means that a savepoint or checkpoint is complete.
pub const METADATA: &str = "_metadata";

/// Where state files are, within a savepoint or checkpoint.
pub const OPERATORS: &str = "operators";

/// Where components are, within a savepoint or checkpoint.
pub const MODULES: &str = "modules";

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
    Operator,
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
        StateFileName::Operator => "operator".to_owned(),
    };
    format!("{OPERATORS}/{uid}-{subtask}-{}.{what}.parquet", uuid(random))
}

/// `modules/<sha256>.wasm`.
#[must_use]
pub fn module(sha256: &str) -> String {
    format!("{MODULES}/{sha256}.wasm")
}

/// `<JobID>/chk-<n>`, within the checkpoint directory.
#[must_use]
pub fn checkpoint(job: JobId, checkpoint: CheckpointId) -> String {
    format!("{job}/chk-{checkpoint}")
}

/// `<JobID>/shared`: what several checkpoints of a job refer to.
#[must_use]
pub fn shared(job: JobId) -> String {
    format!("{job}/shared")
}

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
        assert_eq!(shared(job), "a1b2c3d4e5f60718293a4b5c6d7e8f90/shared");
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
        assert_eq!(name(StateFileName::Operator), format!("{stem}.operator.parquet"));
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
