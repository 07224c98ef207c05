//! Whether a new component may take over from an old one at the same uid, state and all.
//!
//! Today a state that both have must have the same schema: lossless both ways, so that a swap whose round fails can be
//! undone on the spot. Keys never change, nor do those of maps. What the new one does not declare would be lost: a state, or
//! pending timers.

use regraft_model::describe::{Description, StateDescription};
use regraft_model::id::OperatorUid;
use regraft_model::schema::Type;

/// All problems of one uid, each naming uid, state and both schemas.
#[must_use]
pub fn problems(uid: &OperatorUid, old: &Description, new: &Description, keyed_inputs: bool) -> Vec<String> {
    let mut problems = vec![];
    if let (Some(old_key), Some(new_key)) = (&old.key, &new.key)
        && old_key.ty != new_key.ty
        && old.is_keyed()
    {
        problems.push(format!(
                "operator \"{uid}\": its state is keyed by {} {}, and the new module's by {} {}; a key never changes: deploy a module with the old key, or use another uid",
                old_key.name, old_key.ty, new_key.name, new_key.ty
            ));
    }
    for old_state in &old.states {
        let Some(new_state) = new.states.iter().find(|state| state.name == old_state.name) else {
            problems.push(format!(
                "operator \"{uid}\": the new module does not declare state \"{}\" ({}), so the state would be lost; declare it, or stop the job and start the new one with run -s … --drop-state {uid}/{}",
                old_state.name, old_state.schema, old_state.name
            ));
            continue;
        };
        if old_state.kind != new_state.kind {
            problems.push(format!(
                "operator \"{uid}\": state \"{}\" is a {} state, and in the new module a {} state; expected the same kind: deploy a module that declares it so, or give the new state another name",
                old_state.name, old_state.kind, new_state.kind
            ));
        } else if old_state.schema.digest() != new_state.schema.digest() {
            problems.push(format!(
                "operator \"{uid}\": state \"{}\" has schema {} (digest {}), and the new module reads {} (digest {}); expected the same schema: deploy a module that reads it, or give the new state another name",
                old_state.name,
                old_state.schema,
                old_state.schema.digest(),
                new_state.schema,
                new_state.schema.digest()
            ));
        } else if old_state.map_key.as_ref().map(Type::digest) != new_state.map_key.as_ref().map(Type::digest) {
            let key = |state: &StateDescription| {
                state
                    .map_key
                    .as_ref()
                    .map_or_else(|| "none".to_owned(), Type::to_string)
            };
            problems.push(format!(
                "operator \"{uid}\": state \"{}\" has map key {}, and in the new module map key {}; the key of a map never changes: deploy a module with the old one, or give the new state another name",
                old_state.name, key(old_state), key(new_state)
            ));
        }
    }
    timers(uid, old, new, &mut problems);
    operator_states(uid, old, new, &mut problems);
    if new.is_keyed() && !old.is_keyed() && !keyed_inputs {
        problems.push(format!(
            "operator \"{uid}\": the new module has keyed state, and its inputs do not come by key; change the job file and restore it from a savepoint"
        ));
    }
    problems
}

/// Timers may be pending that the new module does not know.
fn timers(uid: &OperatorUid, old: &Description, new: &Description, problems: &mut Vec<String>) {
    for timer in &old.timers {
        match new.timers.iter().find(|other| other.name == timer.name) {
            None => problems.push(format!(
                "operator \"{uid}\": the new module does not declare timer \"{0}\", so those that are pending would never fire; declare it, or stop the job and start the new one with run -s … --drop-state {uid}/{0}",
                timer.name
            )),
            Some(other) if other.time != timer.time => problems.push(format!(
                "operator \"{uid}\": timer \"{}\" is by {} time, and in the new module by {} time; expected the same: give the new timer another name",
                timer.name, timer.time, other.time
            )),
            Some(_) => {}
        }
    }
}

/// Operator state goes from the old instance to the new one as it is.
fn operator_states(uid: &OperatorUid, old: &Description, new: &Description, problems: &mut Vec<String>) {
    for state in &old.operator_states {
        let name = &state.name;
        let Some(other) = new.operator_states.iter().find(|other| other.name == *name) else {
            problems.push(format!(
                "operator \"{uid}\": the new module does not declare operator state \"{name}\" ({}), so it would be lost; declare it, or stop the job and start the new one with run -s … --drop-state {uid}/{name}",
                state.schema
            ));
            continue;
        };
        let (old_digest, new_digest) = (state.schema.digest(), other.schema.digest());
        if state.kind != other.kind {
            problems.push(format!(
                "operator \"{uid}\": operator state \"{name}\" is of kind {}, and in the new module of kind {}; expected the same kind: give the new state another name",
                state.kind, other.kind
            ));
        } else if old_digest != new_digest {
            problems.push(format!(
                "operator \"{uid}\": operator state \"{name}\" has schema {} (digest {old_digest}), and the new module reads {} (digest {new_digest}); expected the same schema: deploy a module that reads it, or give the new state another name",
                state.schema, other.schema
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use regraft_model::describe::{OperatorStateDescription, StateKind, TimerDescription};
    use regraft_model::schema::Field;

    fn description(key: Type, states: &[(&str, Type)]) -> Description {
        let state = |(name, schema): &(&str, Type)| StateDescription {
            name: (*name).to_owned(),
            kind: StateKind::Value,
            schema: schema.clone(),
            map_key: None,
            travels: true,
            ttl_ms: None,
            version: None,
        };
        Description {
            wit: "0.1.0".to_owned(),
            key: Some(Field {
                name: "word".to_owned(),
                ty: key,
                aliases: vec![],
                default: false,
            }),
            states: states.iter().map(state).collect(),
            ..Description::default()
        }
    }

    fn check(new: &Description, expected: &[&str]) {
        let old = description(Type::String, &[("count", Type::U64)]);
        let uid = OperatorUid::new("count").expect("uid");
        assert_eq!(problems(&uid, &old, new, true), expected);
    }

    #[test]
    fn the_same_or_more_state_is_taken_over() {
        check(&description(Type::String, &[("count", Type::U64)]), &[]);
        check(
            &description(Type::String, &[("seen", Type::Bool), ("count", Type::U64)]),
            &[],
        );
    }

    #[test]
    fn refusals_name_uid_state_and_both_schemas() {
        let u64_digest = Type::U64.digest();
        let text_digest = Type::String.digest();
        check(
            &description(Type::String, &[("count", Type::String)]),
            &[&format!(
                "operator \"count\": state \"count\" has schema u64 (digest {u64_digest}), and the new module reads string (digest {text_digest}); expected the same schema: deploy a module that reads it, or give the new state another name"
            )],
        );
        check(
            &description(Type::U64, &[("total", Type::U64)]),
            &[
                "operator \"count\": its state is keyed by word string, and the new module's by word u64; a key never changes: deploy a module with the old key, or use another uid",
                "operator \"count\": the new module does not declare state \"count\" (u64), so the state would be lost; declare it, or stop the job and start the new one with run -s … --drop-state count/count",
            ],
        );
    }

    #[test]
    fn timers_operator_states_and_map_keys_stay() {
        let uid = OperatorUid::new("count").expect("uid");
        let mut old = description(Type::String, &[("seen", Type::U64)]);
        old.states[0].kind = StateKind::Map;
        old.states[0].map_key = Some(Type::String);
        old.timers = vec![TimerDescription {
            name: "gap".to_owned(),
            time: "event".to_owned(),
        }];
        old.operator_states = vec![OperatorStateDescription {
            name: "table".to_owned(),
            kind: "broadcast".to_owned(),
            schema: Type::U64,
        }];
        assert_eq!(problems(&uid, &old, &old, true), Vec::<String>::new());
        let mut new = old.clone();
        new.states[0].map_key = Some(Type::U32);
        new.timers[0].time = "processing".to_owned();
        new.operator_states[0].kind = "list".to_owned();
        assert_eq!(
            problems(&uid, &old, &new, true),
            [
                "operator \"count\": state \"seen\" has map key string, and in the new module map key u32; the key of a map never changes: deploy a module with the old one, or give the new state another name",
                "operator \"count\": timer \"gap\" is by event time, and in the new module by processing time; expected the same: give the new timer another name",
                "operator \"count\": operator state \"table\" is of kind broadcast, and in the new module of kind list; expected the same kind: give the new state another name",
            ]
        );
        let mut new = old.clone();
        new.timers.clear();
        new.operator_states.clear();
        assert_eq!(
            problems(&uid, &old, &new, true),
            [
                "operator \"count\": the new module does not declare timer \"gap\", so those that are pending would never fire; declare it, or stop the job and start the new one with run -s … --drop-state count/gap",
                "operator \"count\": the new module does not declare operator state \"table\" (u64), so it would be lost; declare it, or stop the job and start the new one with run -s … --drop-state count/table",
            ]
        );
    }
}
