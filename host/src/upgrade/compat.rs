//! Whether a new component may take over from an old one at the same uid, state and all.
//!
//! Today a state that both have must have the same schema: lossless both ways, so that a swap whose round fails can be
//! undone on the spot. Keys never change.

use regraft_model::describe::Description;
use regraft_model::id::OperatorUid;

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
        }
    }
    if new.is_keyed() && !old.is_keyed() && !keyed_inputs {
        problems.push(format!(
            "operator \"{uid}\": the new module has keyed state, and its inputs do not come by key; change the job file and restore it from a savepoint"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use regraft_model::describe::{StateDescription, StateKind};
    use regraft_model::schema::{Field, Type};

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
            sdk: String::new(),
            key: Some(Field {
                name: "word".to_owned(),
                ty: key,
                aliases: vec![],
                default: false,
            }),
            states: states.iter().map(state).collect(),
            inputs: vec![],
            outputs: vec![],
            timers: vec![],
            on_watermark: false,
            finish: false,
            private_state: false,
            operator_states: vec![],
            reads_clock: false,
            reads_random: false,
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
}
