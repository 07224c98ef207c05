//! The connector `generator`: a source of made-up records.
//!
//! - [`settings`]: fields, and how their values are drawn.
//! - [`reader`]: splits, which are numbered, and the records of each.

pub mod settings;
pub mod reader;

use regraft_model::describe::PortValue;
use regraft_model::schema::{Field, StructType, Type};
use serde_json::{Value, json};

use self::reader::{GeneratorReader, list};
use self::settings::{GeneratorField, GeneratorSource};
use crate::connector::source::{Assigned, RecordShape, SourceConnector, SourceContext, SourceError, SourceReader};
use crate::environment::files::FileSystem;
use crate::graph::connectors::Connector;

pub(super) const CONNECTOR: Connector = Connector {
    name: "generator",
    source: Some(settings::source),
    sink: None,
};

impl SourceConnector for GeneratorSource {
    fn name(&self) -> &'static str {
        CONNECTOR.name
    }

    fn identity(&self) -> Value {
        let field = |field: &GeneratorField| json!({ "name": field.name, "type": field.ty, "values": format!("{:?}", field.values) });
        let fields: Vec<Value> = self.fields.iter().map(field).collect();
        let key = self.key.and_then(|at| self.fields.get(at)).map(|field| &field.name);
        json!({ "seed": self.seed, "splits": self.splits, "rows": self.rows, "fields": fields, "key": key })
    }

    fn records(&self) -> RecordShape {
        let field = |field: &GeneratorField| Field {
            name: field.name.clone(),
            ty: field.ty.clone(),
            aliases: vec![],
            default: false,
        };
        let fields: Vec<Field> = self.value_fields().map(field).collect();
        let value = match (self.value_is_raw(), fields.first().map(|field| &field.ty)) {
            (true, Some(Type::String)) => PortValue::Text,
            (true, _) => PortValue::Bytes,
            _ => PortValue::Record(StructType {
                name: "Generated".to_owned(),
                fields,
            }),
        };
        RecordShape {
            key: self.key.and_then(|at| self.fields.get(at)).map(field),
            value,
        }
    }

    fn time_fields(&self) -> Result<Vec<(usize, &str)>, &'static str> {
        let fields = self.fields.iter().enumerate();
        let numbers = fields.filter(|(_, field)| field.ty == Type::U64);
        Ok(numbers.map(|(at, field)| (at, field.name.as_str())).collect())
    }

    fn splits(&self, _: &dyn FileSystem, _: bool) -> Result<Vec<String>, SourceError> {
        Ok(list(self))
    }

    fn reader(&self, context: &SourceContext, splits: Vec<Assigned>) -> Result<Box<dyn SourceReader>, SourceError> {
        let reader = GeneratorReader::new(self.clone(), splits)?;
        Ok(Box::new(reader.with_timestamps(context.timestamp)))
    }
}
