//! Bodies of requests: a submission, a savepoint or stop, an upgrade.
//!
//! An input is JSON. A submission that is taken is kept by the catalog, so it must be the same after it has been written and
//! read; its job file is parsed, with all that comes from outside the file.

use regraft::api::types::{SavepointRequest, SubmitRequest, UpgradeRequest};
use regraft::serve::host::SavepointOptions;
use regraft::serve::submission::Submission;
use serde_json::{Value, json};

use super::{Target, check_error};
use crate::random::Random;
use crate::{mutate, tree};

pub(super) const TARGET: Target = Target {
    name: "request",
    run,
    mutate: change,
    generate,
    len_max: 32 << 10,
    memory_max: |len| (4 << 20) + len * 4000,
};

/// Keys and words of the bodies.
const WORDS: [&str; 30] = [
    "file",
    "text",
    "base_dir",
    "layers",
    "arguments",
    "modules",
    "restore",
    "location",
    "allow_non_restored",
    "drop_state",
    "allow_later_output",
    "savepoint_at_end",
    "allow",
    "same_name",
    "shared_output",
    "name",
    "entry",
    "parallelism",
    "set",
    "environment",
    "config",
    "current_dir",
    "is_crate",
    "path",
    "uid",
    "dir",
    "target-directory",
    "native",
    "drain",
    "checkpoint.interval=1s",
];

fn generate(random: &mut Random) -> Vec<u8> {
    let mut body = match random.below(3) {
        0 => json!({ "dir": "/sp", "native": false, "drain": false }),
        1 => json!({ "modules": { "count": "ab" } }),
        _ => json!({
            "file": "job.toml", "text": "name = \"a\"\n", "base_dir": "/job", "layers": { "set": ["name=b"] }, "modules": {},
        }),
    };
    tree::change(random, &mut body, &WORDS);
    body.to_string().into_bytes()
}

fn change(random: &mut Random, data: &mut Vec<u8>, other: &[u8]) {
    match serde_json::from_slice::<Value>(data) {
        Ok(mut body) if random.below(4) > 0 => {
            tree::change(random, &mut body, &WORDS);
            *data = body.to_string().into_bytes();
        }
        _ => mutate::text(random, data, other, &WORDS),
    }
}

fn run(data: &[u8]) -> bool {
    let savepoint = serde_json::from_slice::<SavepointRequest>(data).map(|request| {
        let SavepointOptions { dir, .. } = request.clone().into();
        assert_eq!(dir, request.dir);
    });
    let upgrade = serde_json::from_slice::<UpgradeRequest>(data);
    let submit = serde_json::from_slice::<SubmitRequest>(data);
    if let Ok(request) = &submit {
        let submission = Submission::from(request.clone());
        let kept = serde_json::to_vec(&SubmitRequest::from(&submission)).expect("JSON");
        let read: SubmitRequest = serde_json::from_slice(&kept).expect("what was written is read");
        assert_eq!(&read, request);
        if let Err(error) = submission.graph() {
            check_error(&error.to_string(), "", 100_000 + 100 * data.len());
        }
    }
    savepoint.is_ok() || upgrade.is_ok() || submit.is_ok()
}
