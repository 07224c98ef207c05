//! Bounds of what a component declares, in its `describe` and in its custom section.
//!
//! The length and depth of the text are checked before it is parsed, so that parsing allocates little; counts and lengths of
//! names are checked before anything is made of a declaration. Pure.

use regraft_model::describe::{Description, PortValue};
use regraft_model::json_scan::structure;
use regraft_model::schema::{Field, Type};

use crate::module_error::ModuleError;

/// The longest text that `describe` may return, and the longest custom section, in bytes.
pub const TEXT_MAX: usize = 1 << 20;
/// The deepest nesting of objects and arrays in the text.
const DEPTH_MAX: usize = 64;
/// The most states, operator states, inputs and outputs, each.
const DECLARATIONS_MAX: usize = 1_000;
/// The most timers. Each key group has a queue for each.
const TIMERS_MAX: usize = 200;
/// The longest name, in bytes: that of a file on most file systems.
const NAME_MAX: usize = 255;
/// The most fields of a key, a map's key or a value, each of which has a column in a savepoint.
pub const FIELDS_MAX: usize = 10_000;

/// Checks a text before it is parsed. Returns the problem, as a clause.
///
/// # Errors
/// The text is too long, or nested too deep.
pub(crate) fn check_text(text: &[u8]) -> Result<(), String> {
    if text.len() > TEXT_MAX {
        return Err(format!("it has {} bytes; expected at most {TEXT_MAX}", text.len()));
    }
    let mut depth = 0usize;
    for (_, byte) in structure(text) {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX} levels"));
        }
    }
    Ok(())
}

/// Checks the counts and names of declarations.
///
/// # Errors
/// [`ModuleError::TooMuch`] for the first that is too large.
pub(crate) fn check(description: &Description) -> Result<(), ModuleError> {
    let Description {
        states,
        inputs,
        outputs,
        timers,
        operator_states,
        ..
    } = description;
    let counts = [
        ("states", states.len(), DECLARATIONS_MAX),
        ("operator states", operator_states.len(), DECLARATIONS_MAX),
        ("inputs", inputs.len(), DECLARATIONS_MAX),
        ("outputs", outputs.len(), DECLARATIONS_MAX),
        ("timers", timers.len(), TIMERS_MAX),
    ];
    for (what, found, most) in counts {
        if found > most {
            return Err(ModuleError::TooMuch {
                what: what.to_owned(),
                found,
                most,
            });
        }
    }
    check_columns(description)?;
    let ports = inputs.iter().chain(outputs);
    let names = std::iter::once(("bytes in `sdk`", &description.sdk))
        .chain(
            description
                .key
                .iter()
                .map(|key| ("bytes in the name of its key", &key.name)),
        )
        .chain(states.iter().map(|state| ("bytes in the name of a state", &state.name)))
        .chain(
            operator_states
                .iter()
                .map(|state| ("bytes in the name of an operator state", &state.name)),
        )
        .chain(ports.map(|port| ("bytes in the name of a port", &port.name)))
        .chain(timers.iter().map(|timer| ("bytes in the name of a timer", &timer.name)));
    for (what, name) in names {
        check_name(what, name)?;
    }
    let records = inputs.iter().chain(outputs).filter_map(|port| match &port.value {
        PortValue::Record(record) => Some(record),
        PortValue::Text | PortValue::Bytes => None,
    });
    records
        .map(|record| record.fields.as_slice())
        .try_for_each(check_fields)?;
    types(description).try_for_each(check_type)
}

/// Returns the types of everything that is declared.
fn types(description: &Description) -> impl Iterator<Item = &Type> {
    let ports = description.inputs.iter().chain(&description.outputs);
    let keys = ports.filter_map(|port| port.key.as_ref()).chain(&description.key);
    let states = description.states.iter();
    let states = states.flat_map(|state| state.map_key.iter().chain(std::iter::once(&state.schema)));
    let items = description.operator_states.iter().map(|state| &state.schema);
    keys.map(|key| &key.ty).chain(states).chain(items)
}

/// Checks the names of fields and variants: each is repeated for each value that is shown.
fn check_type(ty: &Type) -> Result<(), ModuleError> {
    match ty {
        Type::Option(inner) | Type::List(inner) => check_type(inner),
        Type::Map(key, value) => check_type(key).and_then(|()| check_type(value)),
        Type::Tuple(items) => items.iter().try_for_each(check_type),
        Type::Struct(of) => check_fields(&of.fields),
        Type::Enum(of) => of.variants.iter().try_for_each(|variant| {
            check_name("bytes in the name of a variant", &variant.name)?;
            variant.newtype.iter().try_for_each(check_type)?;
            variant.tuple.iter().flatten().try_for_each(check_type)?;
            variant.fields.iter().try_for_each(|fields| check_fields(fields))
        }),
        _ => Ok(()),
    }
}

fn check_fields(fields: &[Field]) -> Result<(), ModuleError> {
    fields.iter().try_for_each(|field| {
        check_name("bytes in the name of a field", &field.name)?;
        check_type(&field.ty)
    })
}

fn check_name(what: &str, name: &str) -> Result<(), ModuleError> {
    if name.len() <= NAME_MAX {
        return Ok(());
    }
    Err(ModuleError::TooMuch {
        what: what.to_owned(),
        found: name.len(),
        most: NAME_MAX,
    })
}

/// Checks the fields that become columns of a savepoint: a type with more could be saved, and not restored.
fn check_columns(description: &Description) -> Result<(), ModuleError> {
    let of_states = description.states.iter().flat_map(|state| {
        let map_key = state.map_key.iter().map(|ty| ("fields in the key of a map", ty));
        std::iter::once(("fields in the value of a state", &state.schema)).chain(map_key)
    });
    let operator_states = description.operator_states.iter();
    let types = (description.key.iter())
        .map(|key| ("fields in its key", &key.ty))
        .chain(of_states)
        .chain(operator_states.map(|state| ("fields in the value of an operator state", &state.schema)));
    for (what, ty) in types {
        let Type::Struct(of) = ty else { continue };
        let longest = of.fields.iter().map(|field| field.name.len()).max().unwrap_or(0);
        for (what, found, most) in [
            (what, of.fields.len(), FIELDS_MAX),
            ("bytes in the name of a field", longest, NAME_MAX),
        ] {
            if found > most {
                let what = what.to_owned();
                return Err(ModuleError::TooMuch { what, found, most });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_bounded_before_it_is_parsed() {
        assert_eq!(check_text(&[b' '; TEXT_MAX]), Ok(()));
        assert_eq!(
            check_text(&[b' '; TEXT_MAX + 1]),
            Err("it has 1048577 bytes; expected at most 1048576".to_owned())
        );
        assert_eq!(check_text(&[b'['; DEPTH_MAX]), Ok(()));
        assert_eq!(
            check_text(&[b'{'; DEPTH_MAX + 1]),
            Err("it is nested deeper than 64 levels".to_owned())
        );
        let in_a_string = format!(r#"["\\\"{}", {{}}]"#, "[".repeat(100));
        assert_eq!(check_text(in_a_string.as_bytes()), Ok(()));
        assert_eq!(check_text("[]".repeat(1000).as_bytes()), Ok(()));
    }

    #[test]
    fn fields_that_become_columns_are_bounded() {
        let of = |count: usize, name: &str| {
            let fields: Vec<String> = (0..count)
                .map(|n| format!(r#"{{"name":"{name}{n}","type":"u8"}}"#))
                .collect();
            let ty = format!(r#"{{"struct":{{"name":"S","fields":[{}]}}}}"#, fields.join(","));
            let state = format!(r#"{{"name":"s","kind":"value","schema":{ty}}}"#);
            let json = format!(r#"{{"wit":"0.2.0","key":{{"name":"k","type":"u8"}},"states":[{state}]}}"#);
            let description = serde_json::from_str::<Description>(&json).expect("a description");
            check(&description).map_err(|error| error.to_string())
        };
        assert_eq!(of(FIELDS_MAX, "f"), Ok(()));
        let many = "it declares 10001 fields in the value of a state; expected at most 10000";
        assert_eq!(of(FIELDS_MAX + 1, "f"), Err(many.to_owned()));
        let long = "it declares 256 bytes in the name of a field; expected at most 255";
        assert_eq!(of(1, &"n".repeat(NAME_MAX)), Err(long.to_owned()));
    }

    #[test]
    fn counts_and_names_are_bounded() {
        let of = |json: &str| serde_json::from_str::<Description>(json).expect("a description");
        let timers = |count: usize, name: &str| {
            let timers = vec![format!(r#"{{"name":"{name}","time":"event"}}"#); count].join(",");
            check(&of(&format!(r#"{{"wit":"0.2.0","timers":[{timers}]}}"#))).map_err(|error| error.to_string())
        };
        assert_eq!(timers(TIMERS_MAX, &"n".repeat(NAME_MAX)), Ok(()));
        assert_eq!(
            timers(TIMERS_MAX + 1, "n"),
            Err("it declares 201 timers; expected at most 200".to_owned())
        );
        assert_eq!(
            timers(1, &"n".repeat(NAME_MAX + 1)),
            Err("it declares 256 bytes in the name of a timer; expected at most 255".to_owned())
        );
        let output = |name: &str| {
            let field = format!(
                r#"{{"name":"f","type":{{"list":{{"struct":{{"name":"I","fields":[{{"name":"{name}","type":"u8"}}]}}}}}}}}"#
            );
            let value = format!(r#"{{"record":{{"name":"R","fields":[{field}]}}}}"#);
            let outputs = format!(r#"[{{"name":"out","key":null,"value":{value}}}]"#);
            check(&of(&format!(r#"{{"wit":"0.2.0","outputs":{outputs}}}"#))).map_err(|error| error.to_string())
        };
        assert_eq!(output(&"n".repeat(NAME_MAX)), Ok(()));
        assert_eq!(
            output(&"n".repeat(NAME_MAX + 1)),
            Err("it declares 256 bytes in the name of a field; expected at most 255".to_owned())
        );
    }
}
