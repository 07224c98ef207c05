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
