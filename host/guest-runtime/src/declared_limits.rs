//! Bounds of what a component declares, in its `describe` and in its custom section.
//!
//! The length and depth of the text are checked before it is parsed, so that parsing allocates little; counts and lengths of
//! names are checked before anything is made of a declaration. Pure.

use regraft_model::describe::Description;

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

/// Checks a text before it is parsed. Returns the problem, as a clause.
///
/// # Errors
/// The text is too long, or nested too deep.
pub(crate) fn check_text(text: &[u8]) -> Result<(), String> {
    if text.len() > TEXT_MAX {
        return Err(format!("it has {} bytes; expected at most {TEXT_MAX}", text.len()));
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
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
        if name.len() > NAME_MAX {
            return Err(ModuleError::TooMuch {
                what: what.to_owned(),
                found: name.len(),
                most: NAME_MAX,
            });
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
    }
}
