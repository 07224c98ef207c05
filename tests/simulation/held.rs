//! Records that operators hold back, as the rows of a snapshot show them. Each record held back must have its timer,
//! and no other timer may exist.

use std::collections::{BTreeMap, BTreeSet};

use regraft::jobs::attempt::load::Loaded;
use regraft::savepoint::load::Savepoint;
use regraft::state::rows::{REMOVED, split_timer_entry};
use regraft_guest_runtime::call::OperatorState;
use regraft_model::key_group::{hash32, key_group, subtask_of};
use regraft_model::schema::Type;
use regraft_model::value::{Value, decode};

use crate::guests::Logic;
use crate::guests::own::{self, HELD, SEEN, WORDS};
use crate::guests::waiting::{LIST, MAP, TIMER, end_of, waiting};
use crate::model::{AllHeld, Held};
use crate::world::{Kind, World};

/// Name of the rows of timers.
const TIMERS: &str = "timers";

/// Pending timers, by key and time.
type Timers = BTreeSet<(Vec<u8>, i64)>;

/// Returns the rows of a state over all subtasks, by key and entry key; later rows replace earlier ones.
pub fn rows(loaded: &Loaded, uid: &str, state: &str) -> BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>> {
    let mut found = BTreeMap::new();
    let of_uid = loaded.state.keyed.iter().filter(|((of, _), _)| of.as_str() == uid);
    let restored = of_uid
        .flat_map(|(_, restored)| restored)
        .filter(|restored| restored.state == state);
    for rows in restored.flat_map(|restored| &restored.rows) {
        for (row, schema) in rows.schemas.iter().enumerate() {
            let entry = rows.entry_key(row).unwrap_or_default().to_vec();
            let place = (rows.keys.get(row).to_vec(), entry);
            if *schema == REMOVED {
                found.remove(&place);
            } else {
                found.insert(place, rows.values.get(row).to_vec());
            }
        }
    }
    found
}

/// Returns what each operator of a snapshot holds back.
///
/// # Errors
/// A text, where timers do not match what waits for them, or something cannot be read.
pub fn held(world: &World, savepoint: &Savepoint, loaded: &Loaded) -> Result<AllHeld, String> {
    let mut all = AllHeld::new();
    for node in &world.nodes {
        let of = |error: String| format!("state of \"{}\": {error}", node.uid);
        let held = match node.kind {
            Kind::Operator(Logic::Window) => windows(savepoint, loaded, node.uid),
            Kind::Operator(Logic::Later) => records(loaded, node.uid),
            Kind::Operator(Logic::Hold | Logic::Table) => own_state(loaded, node.uid),
            _ => continue,
        };
        all.insert(node.uid.to_owned(), held.map_err(of)?);
    }
    Ok(all)
}

fn windows(savepoint: &Savepoint, loaded: &Loaded, uid: &str) -> Result<Held, String> {
    let number = |bytes: &[u8]| match decode(&Type::U64, bytes) {
        Ok(Value::Unsigned(number)) => Ok(number),
        other => Err(format!("{other:?} is no number")),
    };
    let mut held = Held::default();
    for ((key, end), count) in rows(loaded, uid, MAP) {
        held.windows.insert((key, end_of(&end)?), number(&count)?);
    }
    let timers = timers(loaded, uid)?;
    same(&timers, held.windows.keys().cloned().collect())?;
    // Everything due before the barrier has fired before it.
    let of_job = &savepoint.metadata;
    let Some(entry) = of_job.operators.iter().find(|entry| entry.uid.as_str() == uid) else {
        return Ok(held);
    };
    for (key, time) in &timers {
        let group = key_group(hash32(key), of_job.max_parallelism);
        let subtask = subtask_of(group, entry.parallelism, of_job.max_parallelism);
        let watermark = entry.watermarks.get(subtask as usize).copied().unwrap_or(i64::MIN);
        if *time <= watermark {
            return Err(format!("a timer of {time} is pending at the watermark {watermark}"));
        }
    }
    Ok(held)
}

fn records(loaded: &Loaded, uid: &str) -> Result<Held, String> {
    let mut held = Held::default();
    let mut due = Timers::new();
    for ((key, _), item) in rows(loaded, uid, LIST) {
        let (time, value) = waiting(&item)?;
        due.insert((key.clone(), time));
        *held.records.entry((key, value)).or_default() += 1;
    }
    same(&timers(loaded, uid)?, due)?;
    Ok(held)
}

fn timers(loaded: &Loaded, uid: &str) -> Result<Timers, String> {
    let timer = |(key, entry): (Vec<u8>, Vec<u8>)| match split_timer_entry(&entry) {
        Some((time, TIMER)) => Ok((key, time)),
        other => Err(format!("a timer that was never set: {other:?}")),
    };
    rows(loaded, uid, TIMERS).into_keys().map(timer).collect()
}

fn same(timers: &Timers, waiting: Timers) -> Result<(), String> {
    let shown = |(key, time): &(Vec<u8>, i64)| format!("{:?} at {time}", String::from_utf8_lossy(key));
    if let Some(lost) = waiting.difference(timers).next() {
        return Err(format!("what waits has no timer: {}", shown(lost)));
    }
    match timers.difference(&waiting).next() {
        Some(more) => Err(format!("a timer is pending that nothing waits for: {}", shown(more))),
        None => Ok(()),
    }
}

/// Reads operator state, as it is distributed to the subtasks of the present parallelism.
fn own_state(loaded: &Loaded, uid: &str) -> Result<Held, String> {
    let mut held = Held::default();
    let of_uid = loaded.state.operator.iter().filter(|((of, _), _)| of.as_str() == uid);
    let subtasks: BTreeMap<u32, &Vec<OperatorState>> =
        of_uid.map(|((_, subtask), states)| (*subtask, states)).collect();
    let items = |subtask: u32, name: &str| -> Vec<Vec<u8>> {
        let states = subtasks.get(&subtask).into_iter().copied().flatten();
        let of = states.filter(|state| state.name == name);
        of.flat_map(|state| state.items.iter()).map(<[u8]>::to_vec).collect()
    };
    for subtask in subtasks.keys() {
        for item in items(*subtask, HELD) {
            *held.records.entry(own::held(&item)?).or_default() += 1;
        }
        // Each subtask is given the whole of a union, and a copy of what is broadcast.
        for name in [SEEN, WORDS] {
            if items(*subtask, name) != items(0, name) {
                return Err(format!("subtask {subtask} is given another {name:?} than subtask 0"));
            }
        }
    }
    for item in items(0, SEEN) {
        held.seen += own::seen(&item)?.1;
    }
    for item in items(0, WORDS) {
        held.words.insert(own::decoded(&item)?);
    }
    Ok(held)
}
