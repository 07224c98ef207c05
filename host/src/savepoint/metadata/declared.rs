//! The part of `_metadata` that a job's declarations take in every snapshot, known before the job runs: a job whose snapshots
//! could not be read again is refused at its deployment.

use regraft_model::describe::Description;

use super::METADATA_BYTES_MAX;

/// Bytes of all declarations of a job, at most. The rest is for increments, positions and sinks.
pub const DECLARED_BYTES_MAX: u64 = METADATA_BYTES_MAX / 2;

/// Bytes of the entry of a file with one row group, and of a subtask.
const FILE_BYTES: u64 = 512;
const SUBTASK_BYTES: u64 = 128;
/// Number of times that a type stands in `_metadata`: in the description, as the schema of the state, and in the list of all.
const COPIES: u64 = 3;

/// Returns the bytes that an operator takes in `_metadata`, approximately: its description, and a file of each subtask for each
/// state.
#[must_use]
pub fn declared_bytes(description: &Description, parallelism: u32) -> u64 {
    let text = serde_json::to_vec(description).map_or(0, |text| text.len() as u64);
    let timers = usize::from(!description.timers.is_empty());
    let states = (description.states.len() + description.operator_states.len() + timers) as u64;
    let of_subtask = (states.saturating_mul(FILE_BYTES)).saturating_add(SUBTASK_BYTES);
    (text.saturating_mul(COPIES)).saturating_add(of_subtask.saturating_mul(u64::from(parallelism)))
}
