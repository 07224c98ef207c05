//! What an operator says of itself, collected by its `declare` and written as the JSON of `describe`.
//!
//! Declaring is pure: it sees neither config nor arguments, so that a component can be asked what it is at any time.

use crate::context::{Clock, Port, Random};
use crate::key::{FromKey, ToKey};
use crate::schema::{Field, State, Type, write_list, write_string};
use crate::state::{Call, StateColumn, ValueState};
use crate::value::{FromValue, PortValue, ValueType};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// The version of the WIT package that this SDK was made for.
pub(crate) const WIT_VERSION: &str = "0.1.0";

/// Collects states, ports and wishes of an operator. Given to [`crate::Operator::declare`].
///
/// # Panics
///
/// Names must be unique among states and among outputs: a second one of the same name is a mistake in the operator,
/// which panics with a message that says so.
#[derive(Default)]
pub struct Declare {
    pub(crate) call: Arc<Call>,
    pub(crate) key_name: Option<String>,
    pub(crate) input_name: Option<String>,
    pub(crate) states: Vec<DeclaredState>,
    pub(crate) outputs: Vec<DeclaredOutput>,
    pub(crate) on_finish: bool,
    pub(crate) on_watermark: bool,
    pub(crate) reads_clock: bool,
    pub(crate) reads_random: bool,
}

pub(crate) struct DeclaredState {
    pub(crate) name: String,
    pub(crate) schema: String,
    version: Option<u32>,
    pub(crate) column: Arc<dyn StateColumn>,
}

pub(crate) struct DeclaredOutput {
    pub(crate) name: String,
    key: Option<Field>,
    value: ValueType,
}

impl Declare {
    /// Names the key: the name of its column in savepoints and in outputs that keep the key. Default: `key`.
    pub fn key(&mut self, name: &str) {
        self.key_name = Some(name.into());
    }

    /// Names the input port. Default: `in`.
    pub fn input(&mut self, name: &str) {
        self.input_name = Some(name.into());
    }

    /// A keyed state of one value per key.
    ///
    /// It travels with the batch: it is decoded when first touched, and encoded once at the end of the call if it was
    /// written.
    pub fn value<T>(&mut self, name: &str) -> ValueState<T>
    where
        T: State + Serialize + DeserializeOwned + Send + 'static,
    {
        assert!(
            self.states.iter().all(|state| state.name != name),
            "state `{name}` is declared twice"
        );
        let state = ValueState::new(name, self.states.len(), self.call.clone());
        let (schema, column) = (T::schema().to_json(), state.column());
        self.states.push(DeclaredState {
            name: name.into(),
            schema,
            version: None,
            column,
        });
        state
    }

    /// Gives a declared state a version number, which is shown to people and compared by nobody.
    ///
    /// # Panics
    ///
    /// When there is no state of this name.
    pub fn state_version(&mut self, name: &str, version: u32) {
        match self.states.iter_mut().find(|state| state.name == name) {
            Some(state) => state.version = Some(version),
            None => panic!("state `{name}` is not declared"),
        }
    }

    /// An output whose records keep the key of the record they come from. `V` is `str`, `[u8]` or a record struct.
    pub fn output<V: PortValue + ?Sized>(&mut self, name: &str) -> Port<V> {
        Port::new(self.add_output(name, None, V::value_type()))
    }

    /// An output whose records get a key of their own: of type `K`, in a column named `key`.
    pub fn output_keyed<K: ToKey + ?Sized, V: PortValue + ?Sized>(&mut self, name: &str, key: &str) -> Port<V, K> {
        Port::new(self.add_output(name, Some(key_field(key.into(), K::key_type())), V::value_type()))
    }

    fn add_output(&mut self, name: &str, key: Option<Field>, value: ValueType) -> u32 {
        assert!(
            self.outputs.iter().all(|output| output.name != name),
            "output `{name}` is declared twice"
        );
        self.outputs.push(DeclaredOutput {
            name: name.into(),
            key,
            value,
        });
        self.outputs.len() as u32 - 1
    }

    /// Asks for [`crate::Operator::finish`] and [`crate::Operator::finish_all`] at the end of all inputs.
    pub fn on_finish(&mut self) {
        self.on_finish = true;
    }

    /// Asks for [`crate::Operator::on_watermark`].
    pub fn on_watermark(&mut self) {
        self.on_watermark = true;
    }

    /// The right to read the processing time: [`Ctx::now`](crate::Ctx::now).
    pub fn clock(&mut self) -> Clock {
        self.reads_clock = true;
        Clock(())
    }

    /// The right to draw random numbers: [`Ctx::random`](crate::Ctx::random).
    pub fn random(&mut self) -> Random {
        self.reads_random = true;
        Random(())
    }

    /// The canonical JSON of `describe`, for an operator with keys `K` and values `V` that has declared itself here.
    pub(crate) fn to_json<K: FromKey<'static>, V: FromValue<'static>>(&self) -> String {
        let reads_key = K::READS;
        assert!(
            reads_key || self.states.is_empty(),
            "the operator declares state `{}`, which is kept by key, but its `Key` is `()`",
            self.states.first().map_or("", |state| &state.name)
        );
        let key = reads_key.then(|| {
            let name = self.key_name.clone().unwrap_or_else(|| "key".into());
            key_field(name, K::key_type())
        });
        let value = V::value_type();
        let input = self.input_name.as_deref().unwrap_or("in");
        self.write_json(key.as_ref(), input, value.as_ref())
    }

    fn write_json(&self, key: Option<&Field>, input: &str, input_value: Option<&ValueType>) -> String {
        let mut json = String::with_capacity(512);
        json.push_str("{\"wit\":");
        write_string(WIT_VERSION, &mut json);
        json.push_str(concat!(",\"sdk\":\"regraft-sdk ", env!("CARGO_PKG_VERSION"), "\""));
        if let Some(key) = key {
            json.push_str(",\"key\":");
            key.write_json(&mut json);
        }
        if !self.states.is_empty() {
            json.push_str(",\"states\":");
            write_list(&self.states, &mut json, DeclaredState::write_json);
        }
        if let Some(value) = input_value {
            json.push_str(",\"inputs\":[");
            write_port(input, key, value, &mut json);
            json.push(']');
        }
        if !self.outputs.is_empty() {
            json.push_str(",\"outputs\":");
            write_list(&self.outputs, &mut json, |output, to| {
                write_port(&output.name, output.key.as_ref().or(key), &output.value, to);
            });
        }
        let wishes = [
            ("on_watermark", self.on_watermark),
            ("finish", self.on_finish),
            ("reads_clock", self.reads_clock),
            ("reads_random", self.reads_random),
        ];
        for (name, _) in wishes.iter().filter(|(_, wished)| *wished) {
            json.push_str(",\"");
            json.push_str(name);
            json.push_str("\":true");
        }
        json.push('}');
        json
    }
}

impl DeclaredState {
    fn write_json(&self, to: &mut String) {
        to.push_str("{\"name\":");
        write_string(&self.name, to);
        to.push_str(",\"kind\":\"value\",\"schema\":");
        to.push_str(&self.schema);
        to.push_str(",\"travels\":true");
        if let Some(version) = self.version {
            to.push_str(",\"version\":");
            to.push_str(&version.to_string());
        }
        to.push('}');
    }
}

fn key_field(name: String, ty: Type) -> Field {
    Field {
        name,
        ty,
        aliases: Vec::new(),
        default: false,
    }
}

fn write_port(name: &str, key: Option<&Field>, value: &ValueType, to: &mut String) {
    to.push_str("{\"name\":");
    write_string(name, to);
    to.push_str(",\"key\":");
    match key {
        Some(key) => key.write_json(to),
        None => to.push_str("null"),
    }
    to.push_str(",\"value\":");
    match value {
        ValueType::Text => to.push_str("\"text\""),
        ValueType::Bytes => to.push_str("\"bytes\""),
        ValueType::Record(record) => {
            to.push_str("{\"record\":");
            record.write_json(to);
            to.push('}');
        }
    }
    to.push('}');
}
