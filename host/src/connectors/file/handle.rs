//! The handle that a snapshot keeps of a part: two names in the sink's directory, and nothing else.
//!
//! Handles come from `_metadata`, which anyone may have written. A handle becomes a path only through [`Part::parse`], which
//! accepts names of one job and one sink and none that leads out of the sink's directory. Pure.

use regraft_model::id::{JobId, OperatorUid};
use serde::{Deserialize, Serialize};

use super::name::{AttemptDir, PENDING, PartName, uid_of_pending};

/// Limit of a file name in bytes, as on all common file systems.
const NAME_BYTES_MAX: usize = 255;
/// Bytes of a handle that a message shows.
const SHOWN_BYTES_MAX: usize = 200;

/// A prepared part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    /// Its path while it is pending, relative to the sink's directory.
    pub(super) pending: String,
    /// Its name once it is committed, in the sink's directory, with `n` = 0.
    #[serde(rename = "final")]
    pub(super) committed: String,
    /// Its content; `None` in handles of version 0.1.
    #[serde(flatten)]
    pub(super) content: Option<Content>,
}

/// The content of a file, as far as needed to tell it from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Content {
    /// Its length.
    pub(super) bytes: u64,
    /// Its XXH3-64, as 16 hex digits.
    pub(super) checksum: String,
}

/// A handle that names something else than a part of the job at the sink.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its {key:?} is {found}, expected {expected}")]
pub struct BadHandle {
    /// The key of the handle.
    pub key: &'static str,
    /// Its value, as JSON, truncated.
    pub found: String,
    /// The values that are accepted.
    pub expected: String,
}

/// Checks a handle of a file sink, and returns the paths that it names, relative to the sink's directory: that of the part
/// while it is pending, and its name afterwards.
///
/// # Errors
/// [`BadHandle`] of the first key that is wrong, if it is no handle of a part that this job wrote at the sink of this uid.
pub fn check_handle(
    handle: &serde_json::Value,
    job_id: JobId,
    uid: &OperatorUid,
) -> Result<(String, String), BadHandle> {
    let part = Part::parse(handle, job_id, uid)?;
    Ok((part.pending, part.committed))
}

impl Part {
    /// Reads a handle of a part that a job wrote at a sink.
    ///
    /// `pending` is `.pending/<JobID>/a<attempt>-<random>/<file>`, or without the attempt's directory, as earlier versions
    /// wrote it. `final` is the name of a part of the same sink.
    ///
    /// # Errors
    /// [`BadHandle`].
    pub(super) fn parse(handle: &serde_json::Value, job_id: JobId, uid: &OperatorUid) -> Result<Self, BadHandle> {
        let text = |key: &str| handle.get(key).and_then(serde_json::Value::as_str);
        let bad = |key: &'static str, expected: String| BadHandle {
            key,
            found: shown(handle.get(key)),
            expected,
        };
        let is_pending = |path: &str| is_pending(path, job_id, uid);
        if !text("pending").is_some_and(is_pending) {
            let expected = format!("{PENDING}/{job_id}/a<attempt>-<random>/{uid}-… and nothing else");
            return Err(bad("pending", expected));
        }
        let is_final = |name: &str| is_name(name) && PartName::is_of(name, uid);
        if !text("final").is_some_and(is_final) {
            let expected = format!("the name of a part of this sink, part-{uid}-<subtask>-<job>-<checkpoint>-0.<ext>");
            return Err(bad("final", expected));
        }
        let mut part: Self =
            Deserialize::deserialize(handle).map_err(|_| bad("bytes", "a number of bytes".to_owned()))?;
        // A flattened option is none where a key of it does not parse.
        if part.content.is_none() && ["bytes", "checksum"].iter().any(|key| handle.get(key).is_some()) {
            let key = if handle.get("bytes").is_some_and(serde_json::Value::is_u64) {
                "checksum"
            } else {
                "bytes"
            };
            return Err(bad(
                key,
                "the length of the part and its XXH3-64, or neither".to_owned(),
            ));
        }
        if let Some(content) = part.content.take_if(|content| !is_checksum(&content.checksum)) {
            let found = format!("{:.SHOWN_BYTES_MAX$?}", content.checksum);
            let expected = "16 hex digits".to_owned();
            return Err(BadHandle {
                key: "checksum",
                found,
                expected,
            });
        }
        Ok(part)
    }

    /// Returns its path once another attempt has taken the directory of its own away, relative to the sink's directory; `None`
    /// for a part that has no such directory.
    pub(super) fn kept(&self) -> Option<String> {
        let (rest, file) = self.pending.rsplit_once('/')?;
        let (job, _) = rest.rsplit_once('/')?;
        self.attempt()
            .map(|attempt| format!("{job}/{}/{file}", attempt.kept_name()))
    }

    /// Returns the directory of the attempt that wrote it; `None` for a part of a version without such directories.
    pub(super) fn attempt(&self) -> Option<AttemptDir> {
        let (rest, _) = self.pending.rsplit_once('/')?;
        AttemptDir::parse(rest.rsplit_once('/')?.1)
    }

    /// Returns its name with another `n`, in place of the 0.
    pub(super) fn name(&self, n: u32) -> String {
        match self.committed.rsplit_once("-0.") {
            Some((stem, extension)) => format!("{stem}-{n}.{extension}"),
            None => format!("{}-{n}", self.committed),
        }
    }

    /// Returns true if a name is its own, with any `n`.
    pub(super) fn has_name(&self, name: &str) -> bool {
        let n = self.committed.rsplit_once("-0.").and_then(|(stem, extension)| {
            let rest = name.strip_prefix(stem)?.strip_prefix('-')?;
            rest.strip_suffix(extension)?.strip_suffix('.')
        });
        n.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    }

    /// Returns it as a handle.
    pub(super) fn handle(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Returns true for a path that [`Part::parse`] accepts as `pending`.
fn is_pending(path: &str, job_id: JobId, uid: &OperatorUid) -> bool {
    let job = job_id.to_string();
    let below = path.strip_prefix(PENDING).and_then(|rest| rest.strip_prefix('/'));
    let below = below.and_then(|rest| rest.strip_prefix(job.as_str())?.strip_prefix('/'));
    let Some(below) = below else { return false };
    let file = match below.split_once('/') {
        None => below,
        Some((dir, file)) if AttemptDir::parse(dir).is_some_and(|dir| dir.is_of(uid)) => file,
        Some(_) => return false,
    };
    is_name(file) && uid_of_pending(file) == Some(uid.as_str())
}

/// Returns true for the name of a file that is not hidden and leads nowhere else.
fn is_name(name: &str) -> bool {
    let is_plain = |c: char| c != '/' && c != '\\' && !c.is_control();
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && name.chars().all(is_plain)
}

fn is_checksum(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn shown(value: Option<&serde_json::Value>) -> String {
    let Some(value) = value else {
        return "missing".to_owned();
    };
    // The text of JSON has its control characters escaped.
    let text = value.to_string();
    match text.char_indices().map(|(at, _)| at).find(|at| *at > SHOWN_BYTES_MAX) {
        Some(end) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regraft_model::id::AttemptId;
    use serde_json::{Value, json};

    use super::super::name::pending_dir;
    use super::*;

    fn uid() -> OperatorUid {
        OperatorUid::new("out").expect("a uid")
    }

    fn job() -> JobId {
        JobId::from_bits(7)
    }

    fn in_attempt() -> String {
        let dir = AttemptDir::new(AttemptId(3), 0xabc, &uid()).name();
        format!("{}/{dir}/out-0-v1-a3-0.tsv", pending_dir(job()))
    }

    fn parsed(pending: &str, committed: &str) -> Result<Part, BadHandle> {
        Part::parse(&json!({ "pending": pending, "final": committed }), job(), &uid())
    }

    #[test]
    fn handles_of_every_version_are_read() {
        let old = format!("{}/out-0-v1-a1-0.tsv", pending_dir(job()));
        let (six, twelve) = ("part-out-0-abcdef-3-0.tsv", "part-out-0-abcdef012345-3-0.tsv");
        assert_eq!(parsed(&old, six).expect("version 0.1").kept(), None);
        let part = parsed(&in_attempt(), twelve).expect("this version");
        assert_eq!(
            part.kept().expect("it may be moved"),
            in_attempt().replace("/a3-", "/kept-a3-")
        );
        let handle = json!({ "pending": old, "final": twelve, "bytes": 2, "checksum": "0123456789abcdef" });
        let part = Part::parse(&handle, job(), &uid()).expect("with its content");
        assert_eq!(
            (part.content.as_ref().map(|is| is.bytes), part.handle()),
            (Some(2), handle)
        );
    }

    #[test]
    fn a_handle_that_names_anything_else_is_refused_with_what_was_expected() {
        let right = "part-out-0-abcdef012345-3-0.tsv";
        let error = parsed("../../etc/passwd", right).expect_err("refused").to_string();
        assert_eq!(
            error,
            format!(
                "its \"pending\" is \"../../etc/passwd\", expected .pending/{}/a<attempt>-<random>/out-… and nothing else",
                job()
            )
        );
        let error = parsed(&in_attempt(), "/etc/passwd").expect_err("refused").to_string();
        assert_eq!(
            error,
            "its \"final\" is \"/etc/passwd\", expected the name of a part of this sink, part-out-<subtask>-<job>-<checkpoint>-0.<ext>"
        );
        let (own, file) = (pending_dir(job()), "out-0-v1-a1-0.tsv");
        let of_other = AttemptDir::new(AttemptId(1), 1, &OperatorUid::new("other").expect("a uid")).name();
        for pending in [
            format!("/{own}/{file}"),
            format!("{own}//{file}"),
            format!("{own}/../{file}"),
            format!("{own}/./{file}"),
            format!("{own}/a1-0/{file}"),
            format!("{own}/{of_other}/{file}"),
            format!("{own}/kept-{of_other}/{file}"),
            format!("{own}/{of_other}/a1-0/{file}"),
            format!("{own}/{file}\0"),
            format!("{own}/{file}\n.tsv"),
            format!("{own}/other-0-v1-a1-0.tsv"),
            format!("{own}/.hidden-0-v1-a1-0.tsv"),
            format!("{}/{file}", pending_dir(JobId::from_bits(8))),
            format!("{own}/{}-0-v1-a1-0.tsv", "x".repeat(300)),
            ".pending".to_owned(),
            String::new(),
        ] {
            assert_eq!(
                parsed(&pending, right).map_err(|bad| bad.key),
                Err("pending"),
                "{pending}"
            );
        }
        for committed in [
            "..",
            ".",
            "",
            "../part-out-0-abcdef012345-3-0.tsv",
            "a/part-out-0-abcdef012345-3-0.tsv",
            "part-out-0-abcdef012345-3-0.tsv\0",
            "part-other-0-abcdef012345-3-0.tsv",
            "part-out-0-abcdef012345-3-0./x",
            "job.toml",
        ] {
            assert_eq!(
                parsed(&in_attempt(), committed).map_err(|bad| bad.key),
                Err("final"),
                "{committed}"
            );
        }
        for (content, key) in [
            (json!({ "bytes": -1, "checksum": "0123456789abcdef" }), "bytes"),
            (json!({ "bytes": 1, "checksum": 7 }), "checksum"),
            (json!({ "bytes": 1, "checksum": "../../0123456789" }), "checksum"),
        ] {
            let mut handle = json!({ "pending": in_attempt(), "final": right });
            let fields = content.as_object().expect("fields").clone();
            handle.as_object_mut().expect("a handle").extend(fields);
            assert_eq!(
                Part::parse(&handle, job(), &uid()).map_err(|bad| bad.key),
                Err(key),
                "{content}"
            );
        }
        for handle in [
            Value::Null,
            json!([]),
            json!({ "pending": 1 }),
            json!("x".repeat(1 << 20)),
        ] {
            let error = Part::parse(&handle, job(), &uid()).expect_err("refused").to_string();
            assert!(error.len() < 500, "{error}");
        }
    }

    proptest! {
        /// Whatever is accepted stays in the sink's directory: two or three names below it, and one name in it.
        #[test]
        fn an_accepted_handle_leads_nowhere_else(
            pending in r"(\.pending/)?(0{31}7/)?(a3-[0-9a-f]{16}/)?(\.\./)?[a-z./\x00-]{0,6}(out-0-v1-a1-0)?[./a-z]{0,5}",
            committed in r"(\.\./|/)?(part-out-0-abcdef-[0-9]{1,3}-0)?[./\x00a-z]{0,6}",
        ) {
            if let Ok(part) = parsed(&pending, &committed) {
                let names: Vec<&str> = part.pending.split('/').collect();
                prop_assert!(matches!(names.len(), 3 | 4) && names[0] == PENDING && names[1] == job().to_string());
                for name in names[2..].iter().chain([&part.committed.as_str()]) {
                    prop_assert!(is_name(name), "{:?}", name);
                }
                let read: Part = Part::parse(&part.handle(), job(), &uid()).expect("its own handle");
                prop_assert_eq!(read, part);
            }
        }
    }
}
