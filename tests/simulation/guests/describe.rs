//! The descriptions of the modules of simulated jobs.

use regraft_model::describe::{
    Description, OperatorStateDescription, Port, PortValue, StateDescription, StateKind, TimerDescription, WIT_VERSION,
    interface,
};
use regraft_model::schema::{Field, Type};

use super::Logic;
use super::own::{HELD, SEEN, WORDS};
use super::waiting::{LIST, MAP, TIMER};

pub fn describe(logic: Logic) -> Description {
    let key = |name: &str| Field {
        name: name.to_owned(),
        ty: Type::String,
        aliases: vec![],
        default: false,
    };
    let port = |name: &str, key: Option<Field>, value: PortValue| Port {
        name: name.to_owned(),
        key,
        value,
    };
    let input = |name: &str| {
        // Records with event times are more than a text.
        let any = matches!(logic, Logic::Window | Logic::Later | Logic::Hold | Logic::Count);
        port(name, None, if any { PortValue::Bytes } else { PortValue::Text })
    };
    let inputs: &[&str] = if logic == Logic::Table {
        &["in", "words"]
    } else {
        &["in"]
    };
    let emits_words = logic == Logic::Split || logic == Logic::Initial;
    Description {
        wit: WIT_VERSION.to_owned(),
        key: logic.counts().then(|| key("word")),
        states: states(logic),
        inputs: inputs.iter().map(|name| input(name)).collect(),
        outputs: vec![port("out", emits_words.then(|| key("word")), PortValue::Text)],
        timers: timers(logic),
        calls: Some(calls(logic)),
        operator_states: operator_states(logic),
        ..Description::default()
    }
}

fn calls(logic: Logic) -> Vec<String> {
    let ends = matches!(
        logic,
        Logic::Final | Logic::Window | Logic::Later | Logic::Hold | Logic::Ends
    );
    let calls = [
        (!timers(logic).is_empty(), interface::TIMERS),
        (ends, interface::ENDING),
        (!operator_states(logic).is_empty(), interface::OPERATOR_STATE),
    ];
    let called = calls.into_iter().filter(|(called, _)| *called);
    called.map(|(_, name)| name.to_owned()).collect()
}

fn states(logic: Logic) -> Vec<StateDescription> {
    let state = |name: &str, kind, schema, travels| StateDescription {
        name: name.to_owned(),
        kind,
        schema,
        map_key: (kind == StateKind::Map).then_some(Type::U64),
        travels,
        ttl_ms: None,
        version: None,
    };
    let count = |kind| state("count", kind, Type::U64, true);
    match logic {
        Logic::Count => vec![count(StateKind::Value)],
        Logic::Final => vec![count(StateKind::Reducing)],
        // The state that travels is not the first one.
        Logic::Window => vec![state(MAP, StateKind::Map, Type::U64, false), count(StateKind::Value)],
        Logic::Later => vec![
            state(LIST, StateKind::List, Type::Bytes, false),
            count(StateKind::Aggregating),
        ],
        Logic::Split | Logic::Initial | Logic::Hold | Logic::Table | Logic::Ends => vec![],
    }
}

fn timers(logic: Logic) -> Vec<TimerDescription> {
    let timer = |time: &str| TimerDescription {
        name: TIMER.to_owned(),
        time: time.to_owned(),
    };
    match logic {
        Logic::Window => vec![timer("event")],
        Logic::Later => vec![timer("processing")],
        _ => vec![],
    }
}

fn operator_states(logic: Logic) -> Vec<OperatorStateDescription> {
    let state = |name: &str, kind: &str| OperatorStateDescription {
        name: name.to_owned(),
        kind: kind.to_owned(),
        schema: Type::Bytes,
    };
    match logic {
        Logic::Hold => vec![state(HELD, "list"), state(SEEN, "union")],
        Logic::Table => vec![state(WORDS, "broadcast")],
        _ => vec![],
    }
}
