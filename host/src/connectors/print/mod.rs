//! The connector `print`: a sink that writes lines to stdout. It has no settings and no transactions.
//!
//! - `writer`: writes the lines of one subtask.

mod writer;

use std::sync::Arc;

use regraft_model::describe::PortValue;

use self::writer::PrintWriter;
use crate::connector::sink::{SinkConnector, SinkContext, SinkError, SinkInput, SinkWriter};
use crate::graph::connectors::Connector;

pub(super) const CONNECTOR: Connector = Connector {
    name: "print",
    source: None,
    sink: Some(|_, _| Some(Arc::new(Print))),
};

/// `connector = "print"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Print;

impl SinkConnector for Print {
    fn name(&self) -> &'static str {
        CONNECTOR.name
    }

    fn writer(
        &self,
        context: SinkContext,
        input: SinkInput<'_>,
        _: &serde_json::Value,
    ) -> Result<Box<dyn SinkWriter>, SinkError> {
        let shape = match input {
            SinkInput::Records(shape) => shape,
            SinkInput::Lines => &PortValue::Text,
        };
        Ok(Box::new(PrintWriter::new(context.subtask, context.parallelism, shape)?))
    }
}
