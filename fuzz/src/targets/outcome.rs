//! The outcome that a guest returns: any columns, checked against any call.
//!
//! An input is read as the shape of a call, a correct outcome of that call, and a list of lies: places in columns that
//! get other values. The verdict of the host's check is compared with a plain implementation of the rules, and an
//! outcome that passes is used the way that the dataflow uses it.

use regraft_guest_runtime::call::{
    CellWrites, Declared, ENTRY_CLEAR, ENTRY_PUT, ENTRY_REMOVE, EntryWrites, Outcome, Output, Shape, TIMER_DELETE,
};
use regraft_model::batch::BytesColumn;

use super::{Target, check_error};
use crate::mutate;

pub(super) const TARGET: Target = Target {
    name: "outcome",
    run,
    mutate: |random, data, other| mutate::bytes(random, data, other),
    generate: |random| (0..random.length(200)).map(|_| random.number() as u8).collect(),
    len_max: 4 << 10,
    memory_max: |len| (1 << 20) + len * 1000,
};

/// Reads choices from an input. Behind its end, all choices are 0.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    fn below(&mut self, n: u32) -> u32 {
        if n <= 256 {
            u32::from(self.byte()) % n.max(1)
        } else {
            self.number() % n
        }
    }

    fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    fn number(&mut self) -> u32 {
        u32::from_le_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    fn column(&mut self, len: usize) -> BytesColumn {
        let mut column = BytesColumn::default();
        for _ in 0..len {
            let item = [self.byte(), 1, 2, 3, 4];
            column.push(&item[..usize::from(self.byte() % 6).min(item.len())]);
        }
        column
    }

    /// A column that may be left out.
    fn optional(&mut self, len: usize) -> BytesColumn {
        if self.flag() {
            self.column(len)
        } else {
            BytesColumn::default()
        }
    }

    fn indexes(&mut self, len: usize, below: u32) -> Vec<u32> {
        (0..len).map(|_| self.below(below)).collect()
    }
}

/// The facts of a call that an outcome may refer to.
#[derive(Debug)]
struct Call {
    declared: Declared,
    rows: u32,
    keys: u32,
    values_inherited: bool,
}

impl Call {
    fn read(choices: &mut Choices<'_>) -> Self {
        let states = choices.below(5);
        let large = choices.byte() == 255;
        let size = |choices: &mut Choices<'_>| if large { choices.below(70_000) } else { choices.below(9) };
        Self {
            declared: Declared {
                travels: (0..states).map(|_| choices.flag()).collect(),
                ports: choices.below(4),
                timers: choices.below(3),
                ..Declared::default()
            },
            rows: size(choices),
            keys: size(choices),
            values_inherited: choices.flag(),
        }
    }

    fn shape(&self) -> Shape<'_> {
        Shape {
            declared: &self.declared,
            rows: self.rows,
            keys: self.keys,
            values_inherited: self.values_inherited,
        }
    }

    /// Returns an outcome that follows all rules.
    fn honest(&self, choices: &mut Choices<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        if self.declared.ports > 0 {
            outcome.outputs = (0..choices.below(4)).map(|_| self.output(choices)).collect();
        }
        for (state, travels) in (0..).zip(&self.declared.travels) {
            if *travels && self.keys > 0 && choices.0.len() > 20 {
                outcome.cells.push(self.cells(choices, state));
            }
        }
        if choices.flag() {
            outcome.cells.reverse();
        }
        if self.keys > 0 && self.declared.travels.contains(&false) && choices.flag() {
            outcome.entries = Some(self.entries(choices));
        }
        if self.keys > 0 && self.declared.timers > 0 {
            let count = choices.below(5) as usize;
            outcome.timer_ops = (0..count).map(|_| choices.byte() % 2).collect();
            outcome.timer_keys = choices.indexes(count, self.keys);
            outcome.timer_ids = choices.indexes(count, self.declared.timers);
            outcome.timer_times = (0..count).map(|_| i64::from(choices.number())).collect();
        }
        outcome
    }

    fn cells(&self, choices: &mut Choices<'_>, state: u32) -> CellWrites {
        let mut written: Vec<u32> = choices.indexes(6, self.keys);
        // Each once; in any order.
        written = written
            .iter()
            .enumerate()
            .filter(|(i, key)| !written[..*i].contains(key))
            .map(|(_, key)| *key)
            .collect();
        let cleared = choices.below(3) as usize;
        let cleared = written.split_off(written.len().saturating_sub(cleared));
        CellWrites {
            state,
            values: choices.column(written.len()),
            keys: written,
            cleared,
        }
    }

    fn output(&self, choices: &mut Choices<'_>) -> Output {
        let count = choices.below(6) as usize;
        let (parents, count) = if self.rows == 0 {
            (vec![], count)
        } else {
            (choices.indexes(count, self.rows), count)
        };
        let must_give = self.rows == 0 || !self.values_inherited;
        let values = if must_give {
            choices.column(count)
        } else {
            choices.optional(count)
        };
        let timestamps = if choices.flag() {
            (0..count).map(|_| i64::from(choices.number())).collect()
        } else {
            vec![]
        };
        let keys = choices.optional(count);
        Output {
            port: choices.below(self.declared.ports),
            parents,
            keys,
            values,
            timestamps,
        }
    }

    fn entries(&self, choices: &mut Choices<'_>) -> EntryWrites {
        let at: Vec<u32> = (0..)
            .zip(&self.declared.travels)
            .filter(|(_, travels)| !**travels)
            .map(|(i, _)| i)
            .collect();
        let count = choices.below(6) as usize;
        EntryWrites {
            ops: (0..count).map(|_| choices.byte() % (ENTRY_CLEAR + 1)).collect(),
            states: (0..count)
                .map(|_| at[choices.below(at.len() as u32) as usize])
                .collect(),
            keys: choices.indexes(count, self.keys),
            entry_keys: choices.optional(count),
            values: choices.column(count),
        }
    }
}

/// Changes a value somewhere in a column, or makes the column longer or shorter.
fn lie<T: Copy>(choices: &mut Choices<'_>, column: &mut Vec<T>, value: impl Fn(u32) -> T) {
    let at = choices.byte() as usize;
    match choices.byte() % 4 {
        0 => column.truncate(at),
        1 => {
            let value = value(u32::from(choices.byte()));
            column.insert(at.min(column.len()), value);
        }
        2 => {
            let value = value(choices.number());
            column.extend(std::iter::repeat_n(value, at % 4));
        }
        _ => {
            let len = column.len().max(1);
            let new = if choices.flag() {
                choices.number()
            } else {
                u32::from(choices.byte())
            };
            if let Some(there) = column.get_mut(at % len) {
                *there = value(new);
            }
        }
    }
}

fn lie_somewhere(choices: &mut Choices<'_>, outcome: &mut Outcome) {
    fn bytes(choices: &mut Choices<'_>, column: &mut BytesColumn) {
        if choices.flag() {
            lie(choices, &mut column.ends, |n| n);
        } else {
            lie(choices, &mut column.data, |n| n as u8);
        }
    }
    let which = choices.byte();
    if which < 128 {
        let len = outcome.outputs.len().max(1);
        let at = choices.byte() as usize % len;
        let Some(output) = outcome.outputs.get_mut(at) else {
            return;
        };
        return match which % 5 {
            0 => output.port = choices.number(),
            1 => lie(choices, &mut output.parents, |n| n),
            2 => bytes(choices, &mut output.keys),
            3 => bytes(choices, &mut output.values),
            _ => lie(choices, &mut output.timestamps, i64::from),
        };
    }
    match which % 12 {
        cells @ 0..=2 => {
            let len = outcome.cells.len().max(1);
            let at = choices.byte() as usize % len;
            let Some(writes) = outcome.cells.get_mut(at) else {
                return;
            };
            match (cells, choices.flag()) {
                (0, false) => lie(choices, &mut writes.keys, |n| n),
                (0, true) => writes.state = choices.below(7),
                (1, _) => lie(choices, &mut writes.cleared, |n| n),
                _ => bytes(choices, &mut writes.values),
            }
        }
        3 => lie(choices, &mut outcome.timer_ops, |n| n as u8),
        4 => lie(choices, &mut outcome.timer_keys, |n| n),
        5 => lie(choices, &mut outcome.timer_ids, |n| n),
        6 => lie(choices, &mut outcome.timer_times, i64::from),
        other => {
            let entries = outcome.entries.get_or_insert_default();
            match other {
                7 => lie(choices, &mut entries.ops, |n| n as u8),
                8 => lie(choices, &mut entries.states, |n| n),
                9 => lie(choices, &mut entries.keys, |n| n),
                10 => bytes(choices, &mut entries.entry_keys),
                _ => bytes(choices, &mut entries.values),
            }
        }
    }
}

/// The words by which errors name columns.
const COLUMNS: [&str; 16] = [
    "port",
    "parents",
    "key-ends",
    "value-ends",
    "timestamps",
    "cells",
    "cleared",
    "ends",
    "ops",
    "states",
    "keys",
    "entry-key-ends",
    "timer-ops",
    "timer-keys",
    "timer-ids",
    "timer-times",
];

fn run(data: &[u8]) -> bool {
    let mut choices = Choices(data);
    let call = Call::read(&mut choices);
    let mut outcome = call.honest(&mut choices);
    let shape = call.shape();
    assert_eq!(
        outcome.check(&shape),
        Ok(()),
        "an honest answer: {outcome:#?} to {call:?}"
    );
    use_it(&outcome, &shape);
    while !choices.0.is_empty() {
        lie_somewhere(&mut choices, &mut outcome);
        let said = outcome.check(&shape);
        assert_eq!(
            said.is_ok(),
            keeps_the_rules(&outcome, &shape),
            "{said:?}: {outcome:#?} to {call:?}"
        );
        match said {
            Ok(()) => use_it(&outcome, &shape),
            Err(text) => {
                check_error(&text, "", 400);
                assert!(
                    COLUMNS.iter().any(|column| text.contains(column)),
                    "no column is named: {text}"
                );
            }
        }
    }
    // It began with a correct outcome, which was accepted.
    true
}

/// The rules of `wit/types.wit`, one after the other, as plainly as possible.
fn keeps_the_rules(outcome: &Outcome, shape: &Shape<'_>) -> bool {
    let is_column = |column: &BytesColumn, len: usize| {
        column.ends.len() == len
            && column.ends.is_sorted()
            && column.ends.last().map_or(0, |end| *end as usize) == column.data.len()
    };
    let left_out = |column: &BytesColumn| column.ends.is_empty() && column.data.is_empty();
    let outputs = outcome.outputs.iter().all(|output| {
        let without_rows = shape.rows == 0 && output.parents.is_empty();
        let count = if without_rows {
            output.values.len()
        } else {
            output.parents.len()
        };
        output.port < shape.declared.ports
            && output.parents.iter().all(|parent| *parent < shape.rows)
            && (left_out(&output.keys) || is_column(&output.keys, count))
            && if left_out(&output.values) {
                count == 0 || shape.values_inherited
            } else {
                is_column(&output.values, count)
            }
            && (output.timestamps.is_empty() || output.timestamps.len() == count)
    });
    let mut states: Vec<u32> = outcome.cells.iter().map(|writes| writes.state).collect();
    states.sort_unstable();
    let cells = states.windows(2).all(|pair| pair[0] != pair[1])
        && outcome.cells.iter().all(|writes| {
            let mut touched: Vec<u32> = [writes.keys.as_slice(), &writes.cleared].concat();
            touched.sort_unstable();
            touched.windows(2).all(|pair| pair[0] != pair[1])
                && touched.iter().all(|key| *key < shape.keys)
                && shape.declared.travels.get(writes.state as usize) == Some(&true)
                && is_column(&writes.values, writes.keys.len())
        });
    let entries = outcome.entries.as_ref().is_none_or(|entries| {
        let count = entries.ops.len();
        let writes = |op: &u8| (ENTRY_PUT..ENTRY_REMOVE).contains(op);
        entries.ops.iter().all(|op| *op <= ENTRY_CLEAR)
            && entries.states.len() == count
            && entries
                .states
                .iter()
                .all(|at| shape.declared.travels.get(*at as usize) == Some(&false))
            && entries.keys.len() == count
            && entries.keys.iter().all(|key| *key < shape.keys)
            && (left_out(&entries.entry_keys) || is_column(&entries.entry_keys, count))
            && if left_out(&entries.values) {
                !entries.ops.iter().any(writes)
            } else {
                is_column(&entries.values, count)
            }
    });
    let timers = outcome.timer_ops.len();
    outputs
        && cells
        && entries
        && outcome.timer_ops.iter().all(|op| *op <= TIMER_DELETE)
        && [
            outcome.timer_keys.len(),
            outcome.timer_ids.len(),
            outcome.timer_times.len(),
        ] == [timers; 3]
        && outcome.timer_keys.iter().all(|key| *key < shape.keys)
        && outcome.timer_ids.iter().all(|id| *id < shape.declared.timers)
}

/// Follows every index without a check, as the dataflow does. Panics where one leads nowhere.
fn use_it(outcome: &Outcome, shape: &Shape<'_>) {
    let (rows, keys) = (vec![0_u8; shape.rows as usize], vec![0_u8; shape.keys as usize]);
    let mut sum = 0_usize;
    for output in &outcome.outputs {
        for record in 0..output.len() {
            if !output.parents.is_empty() {
                sum += usize::from(rows[output.parents[record] as usize]);
            }
            for column in [&output.keys, &output.values] {
                if !column.is_empty() {
                    sum += column.get(record).len();
                }
            }
            if !output.timestamps.is_empty() {
                sum += usize::from(output.timestamps[record] > 0);
            }
        }
    }
    for writes in &outcome.cells {
        assert!(shape.declared.travels[writes.state as usize]);
        let mut cells = vec![0_u8; shape.keys as usize];
        for (at, key) in writes.keys.iter().enumerate() {
            sum += writes.values.get(at).len();
            cells[*key as usize] += 1;
        }
        for key in &writes.cleared {
            cells[*key as usize] += 1;
        }
        assert!(cells.iter().all(|times| *times < 2), "a cell is written twice");
    }
    if let Some(entries) = &outcome.entries {
        for (at, op) in entries.ops.iter().enumerate() {
            assert!(!shape.declared.travels[entries.states[at] as usize]);
            sum += usize::from(keys[entries.keys[at] as usize]);
            if *op < ENTRY_REMOVE {
                sum += entries.values.get(at).len();
            }
            if !entries.entry_keys.is_empty() {
                sum += entries.entry_keys.get(at).len();
            }
        }
    }
    for at in 0..outcome.timer_ops.len() {
        sum += usize::from(keys[outcome.timer_keys[at] as usize]);
        assert!(outcome.timer_ids[at] < shape.declared.timers);
        sum += usize::from(outcome.timer_times[at] > 0);
    }
    std::hint::black_box(sum);
}
