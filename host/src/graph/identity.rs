//! What makes a source or sink the same one: its connector and the settings that are *identity*.

use serde_json::{Value, json};

use super::job_graph::{SinkConnector, SourceConnector};

/// The connector's name and the settings that make it the same source.
#[must_use]
pub fn of_source(connector: &SourceConnector) -> (&'static str, Value) {
    match connector {
        SourceConnector::File(file) => ("file", json!({ "path": file.path, "key": file.key })),
        SourceConnector::Generator(generator) => {
            let fields: Vec<Value> = generator
                .fields
                .iter()
                .map(|field| json!({ "name": field.name, "type": field.ty, "values": format!("{:?}", field.values) }))
                .collect();
            let (seed, splits, rows) = (generator.seed, generator.splits, generator.rows);
            let key = generator
                .key
                .and_then(|i| generator.fields.get(i))
                .map(|field| &field.name);
            (
                "generator",
                json!({ "seed": seed, "splits": splits, "rows": rows, "fields": fields, "key": key }),
            )
        }
    }
}

/// The connector's name and the settings that make it the same sink.
#[must_use]
pub fn of_sink(connector: &SinkConnector) -> (&'static str, Value) {
    match connector {
        SinkConnector::File(file) => ("file", json!({ "path": file.path, "format": file.format })),
        SinkConnector::Print => ("print", Value::Null),
        SinkConnector::Blackhole => ("blackhole", Value::Null),
    }
}
