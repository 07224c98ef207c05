//! The identity of a source or sink: its connector's name, and the settings that make it the same one.

use std::sync::Arc;

use serde_json::Value;

use crate::connector::sink::SinkConnector;
use crate::connector::source::SourceConnector;

/// Returns the connector's name and the settings that make it the same source.
#[must_use]
pub fn of_source(connector: &Arc<dyn SourceConnector>) -> (&'static str, Value) {
    (connector.name(), connector.identity())
}

/// Returns the connector's name and the settings that make it the same sink.
#[must_use]
pub fn of_sink(connector: &Arc<dyn SinkConnector>) -> (&'static str, Value) {
    (connector.name(), connector.identity())
}

/// Returns true if a saved identity and that of a job file are of the same source or sink.
///
/// An identity may have the member `relative` beside `path`: the path as it was written, if it is relative to the job file.
/// Then the job may have been moved, and `path` may differ. Earlier versions saved only `path`.
#[must_use]
pub fn is_same(saved: &Value, new: &Value) -> bool {
    let without = |identity: &Value, key: &str| {
        let mut identity = identity.clone();
        if let Value::Object(members) = &mut identity {
            members.remove(key);
        }
        identity
    };
    let is_moved = saved.get("relative").is_some() && without(saved, "path") == without(new, "path");
    is_moved || without(saved, "relative") == without(new, "relative")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_moved_job_reads_the_same() {
        let old = json!({"path": "/a/in/*", "relative": "in/*", "key": "none"});
        let first = json!({"path": "/a/in/*", "key": "none"});
        let moved = json!({"path": "/b/in/*", "relative": "in/*", "key": "none"});
        let absolute = json!({"path": "/b/in/*", "key": "none"});
        let keyed = json!({"path": "/b/in/*", "relative": "in/*", "key": "line"});
        assert!(is_same(&old, &old) && is_same(&old, &moved) && is_same(&first, &old) && is_same(&old, &first));
        for (saved, new) in [(&old, &keyed), (&old, &absolute), (&first, &moved), (&absolute, &first)] {
            assert!(!is_same(saved, new), "{saved} {new}");
        }
    }
}
