//! A declaration as the JSON of `describe` (`docs/formats/describe.md`).

use super::{Declare, DeclaredOperatorState, DeclaredState, DeclaredTimer};
use crate::key::FromKey;
use crate::schema::{Field, write_list, write_string};
use crate::value::{DeclaredInput, FromValue, ValueType};

/// The version of the WIT package that this SDK was made for.
const WIT_VERSION: &str = "0.2.0";

impl Declare {
    /// The canonical JSON of `describe`, for an operator with keys `K` and values `V` that has declared itself here.
    ///
    /// # Panics
    ///
    /// When the declaration contradicts itself.
    pub(crate) fn to_json<K: FromKey<'static>, V: FromValue<'static>>(&self) -> String {
        if !K::READS {
            let state = self.states.first().map(|state| ("state", &state.column.info().name));
            let timer = self.timers.first().map(|timer| ("timer", &timer.name));
            if let Some((what, name)) = state.or(timer) {
                panic!("the operator declares {what} `{name}`, which is kept by key, but its `Key` is `()`");
            }
        }
        assert!(
            V::INPUTS.is_none() || self.input_name.is_none(),
            "`Declare::input` names the input `{}`, but the operator's inputs are named by the variants of `In`",
            self.input_name.as_deref().unwrap_or_default()
        );
        let key = K::READS.then(|| {
            let name = self.key_name.clone().unwrap_or_else(|| "key".into());
            Field::plain(name, K::key_type())
        });
        self.write_json(key.as_ref(), &V::inputs())
    }

    fn write_json(&self, key: Option<&Field>, inputs: &[DeclaredInput]) -> String {
        let mut json = String::with_capacity(512);
        json.push_str("{\"wit\":");
        write_string(WIT_VERSION, &mut json);
        json.push_str(concat!(
            ",\"sdk\":\"regraft-sdk ",
            env!("CARGO_PKG_VERSION"),
            "\",\"encoding\":\"bincode2\",\"calls\":"
        ));
        write_list(&self.calls(), &mut json, |name, to| write_string(name, to));
        if let Some(key) = key {
            json.push_str(",\"key\":");
            key.write_json(&mut json);
        }
        part("states", &self.states, &mut json, DeclaredState::write_json);
        part("inputs", inputs, &mut json, |input, to| {
            let name = input.name.or(self.input_name.as_deref()).unwrap_or("in");
            write_port(name, key, &input.value, to);
        });
        part("outputs", &self.outputs, &mut json, |output, to| {
            write_port(&output.name, output.key.as_ref().or(key), &output.value, to);
        });
        part("timers", &self.timers, &mut json, DeclaredTimer::write_json);
        wish("private_state", self.private_state, &mut json);
        part(
            "operator_states",
            &self.operator_states,
            &mut json,
            DeclaredOperatorState::write_json,
        );
        wish("reads_clock", self.reads_clock, &mut json);
        wish("reads_random", self.reads_random, &mut json);
        json.push('}');
        json
    }
}

impl Declare {
    /// The optional interfaces that are to be called, of those that every component of the SDK exports.
    fn calls(&self) -> Vec<&'static str> {
        let interfaces = [
            (!self.timers.is_empty(), "timers"),
            (self.on_watermark, "watermarks"),
            (self.on_finish, "ending"),
            (!self.operator_states.is_empty(), "operator-state"),
        ];
        let called = interfaces.into_iter().filter(|(called, _)| *called);
        called.map(|(_, name)| name).collect()
    }
}

fn part<T>(name: &str, items: &[T], to: &mut String, write: impl Fn(&T, &mut String)) {
    if !items.is_empty() {
        to.push_str(",\"");
        to.push_str(name);
        to.push_str("\":");
        write_list(items, to, write);
    }
}

fn wish(name: &str, wished: bool, to: &mut String) {
    if wished {
        to.push_str(",\"");
        to.push_str(name);
        to.push_str("\":true");
    }
}

impl DeclaredState {
    fn write_json(&self, to: &mut String) {
        let info = self.column.info();
        to.push_str("{\"name\":");
        write_string(&info.name, to);
        to.push_str(",\"kind\":");
        write_string(info.kind, to);
        to.push_str(",\"schema\":");
        to.push_str(&info.schema);
        if let Some(map_key) = &info.map_key {
            to.push_str(",\"map_key\":");
            to.push_str(map_key);
        }
        to.push_str(if info.travels() {
            ",\"travels\":true"
        } else {
            ",\"travels\":false"
        });
        let numbers = [
            (",\"ttl_ms\":", info.ttl_ms()),
            (",\"version\":", self.version.map(u64::from)),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                to.push_str(name);
                to.push_str(&number.to_string());
            }
        }
        to.push('}');
    }
}

impl DeclaredTimer {
    fn write_json(&self, to: &mut String) {
        to.push_str("{\"name\":");
        write_string(&self.name, to);
        to.push_str(",\"time\":");
        write_string(if self.event_time { "event" } else { "processing" }, to);
        to.push('}');
    }
}

impl DeclaredOperatorState {
    fn write_json(&self, to: &mut String) {
        to.push_str("{\"name\":");
        write_string(&self.name, to);
        to.push_str(",\"kind\":");
        write_string(self.kind, to);
        to.push_str(",\"schema\":");
        to.push_str(&self.schema);
        to.push('}');
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
