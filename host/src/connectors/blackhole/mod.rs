//! The connector `blackhole`: a sink that counts records and drops them. It has no settings and no transactions.
//!
//! - [`writer`]: one for each subtask; their states are sums.

pub mod writer;

use std::sync::Arc;

use serde_json::Value;

use self::writer::{BlackholeWriter, state, totals};
use crate::connector::sink::{SinkConnector, SinkContext, SinkError, SinkInput, SinkWriter};
use crate::graph::connectors::Connector;

pub(super) const CONNECTOR: Connector = Connector {
    name: "blackhole",
    source: None,
    sink: Some(|_, _| Some(Arc::new(Blackhole))),
};

/// `connector = "blackhole"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blackhole;

impl SinkConnector for Blackhole {
    fn name(&self) -> &'static str {
        CONNECTOR.name
    }

    fn writer(&self, context: SinkContext, _: SinkInput<'_>, saved: &Value) -> Result<Box<dyn SinkWriter>, SinkError> {
        // Totals are sums: all of what was saved goes to one subtask.
        let saved = if context.subtask == 0 { saved } else { &Value::Null };
        Ok(Box::new(BlackholeWriter::new(saved)))
    }

    fn merge(&self, states: &[Value]) -> Value {
        let (records, checksum) = totals(states);
        state(records, checksum)
    }

    fn totals(&self, states: &[Value]) -> Option<(u64, u64)> {
        states.iter().any(|state| !state.is_null()).then(|| totals(states))
    }
}
