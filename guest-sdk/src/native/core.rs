//! The parts of an instance that do not depend on the operator's type: one copy of this code in a component.

use crate::bindings::regraft::operator::types::{Cells, Failure, Header, Outcome, StateItems, TimerBatch};
use crate::context::{Ctx, TimerOps};
use crate::declare::{Declare, PRIVATE_STATE};
use crate::error::Error;
use crate::operator_state::{Items, OperatorColumn};
use crate::output::{Columns, Inherits, NO_TIMESTAMP, Rows, Sizes};
use crate::state::{Call, StateColumn, Writes};
use std::cell::OnceCell;
use std::sync::Arc;

/// Everything in an instance beside the operator.
pub(super) struct Core {
    pub(super) call: Arc<Call>,
    columns: Vec<Box<dyn StateColumn>>,
    /// None for private state.
    operator_states: Vec<(String, Option<Box<dyn OperatorColumn>>)>,
    /// For each timer whether it goes by event time.
    timers: Vec<bool>,
    ports: Vec<Port>,
    pub(super) private_state: bool,
    pub(super) prefetch: bool,
}

/// An output port.
struct Port {
    name: String,
    own_keys: bool,
    sizes: Sizes,
}

impl Core {
    pub(super) fn new(declare: Declare) -> Self {
        let columns: Vec<_> = declare.states.into_iter().map(|state| state.column).collect();
        let operator_states = declare.operator_states.into_iter();
        let outputs = declare.outputs.into_iter().map(|output| Port {
            own_keys: output.has_own_keys(),
            name: output.name,
            sizes: Sizes::default(),
        });
        Core {
            call: declare.call,
            columns,
            operator_states: operator_states.map(|state| (state.name, state.column)).collect(),
            timers: declare.timers.iter().map(|timer| timer.event_time).collect(),
            ports: outputs.collect(),
            private_state: declare.private_state,
            prefetch: declare.prefetch,
        }
    }

    /// Takes over a call's cells. To be followed by `end`.
    pub(super) fn begin(&mut self, keys: usize, cells: Vec<Cells>) -> Result<(), Failure> {
        let travelling = self.columns.iter().map(|column| column.info());
        let travelling = travelling.filter(|info| info.travels()).map(|info| info.number);
        check_cells(keys, &cells, &travelling.collect::<Vec<_>>()).map_err(failure)?;
        self.call.take_failure();
        let mut cells = cells.into_iter();
        for column in &mut self.columns {
            let own = if column.info().travels() { cells.next() } else { None };
            column.begin(keys, own);
        }
        Ok(())
    }

    /// Begins a call without keys. To be followed by `end`.
    pub(super) fn begin_without_keys(&mut self) {
        self.call.take_failure();
        for column in &mut self.columns {
            column.begin(0, None);
        }
    }

    pub(super) fn context<'a>(&self, header: Header, input: u32, rows: Rows<'a>, inherits: Inherits) -> Ctx<'a> {
        let ports = self.ports.iter();
        let outputs = ports
            .map(|port| Columns::with_sizes(port.sizes, port.own_keys))
            .collect();
        Ctx {
            header,
            input,
            row: 0,
            draws: 0,
            inherits,
            rows,
            outputs,
            timers: TimerOps::default(),
            failure: OnceCell::new(),
        }
    }

    /// Looks at whether the columns of timers fit each other, and gives the timestamps that their rows have: an
    /// event-time timer has its own time.
    pub(super) fn timestamps(&self, timers: &TimerBatch) -> Result<Vec<i64>, Failure> {
        let count = timers.times.len();
        if timers.key_index.len() != count || timers.timer_ids.len() != count {
            return Err(failure(format!(
                "the call has {count} times of timers, {} keys and {} numbers of timers",
                timers.key_index.len(),
                timers.timer_ids.len()
            )));
        }
        let rows = timers.timer_ids.iter().zip(&timers.times);
        rows.map(|(id, time)| match self.timers.get(*id as usize) {
            Some(true) => Ok(*time),
            Some(false) => Ok(NO_TIMESTAMP),
            None => Err(failure(format!(
                "timer number {id} fires, and the operator declares {} timers",
                self.timers.len()
            ))),
        })
        .collect()
    }

    /// Ends a call: all its effects, or the failure.
    pub(super) fn end(&mut self, cx: Ctx<'_>, result: Result<(), Failure>) -> Result<Outcome, Failure> {
        super::current_row::clear();
        let outcome = self.effects(cx, result);
        self.end_operator_states(outcome.is_ok());
        outcome
    }

    fn effects(&mut self, mut cx: Ctx<'_>, result: Result<(), Failure>) -> Result<Outcome, Failure> {
        let mut writes = Writes::default();
        let mut broken = None;
        for column in &mut self.columns {
            let to = (result.is_ok() && broken.is_none()).then_some(&mut writes);
            if let Err(message) = column.end(to) {
                broken = Some(message);
            }
        }
        self.check_state()?;
        result?;
        if writes.too_large() {
            broken = Some("the call wrote more than 4 GiB of state".into());
        }
        if let Some(message) = broken.or_else(|| cx.finish_outputs().err()) {
            return Err(failure(message));
        }
        for (port, columns) in self.ports.iter_mut().zip(&cx.outputs) {
            if let Some(row) = columns.keyless() {
                return Err(keyless(&port.name, cx.inherits.keys.then_some(row)));
            }
            port.sizes = columns.sizes();
        }
        let rows = cx.inherits.keys;
        let outputs = cx.outputs.into_iter().enumerate();
        Ok(Outcome {
            outputs: outputs
                .filter_map(|(port, output)| output.into_columns(port, rows))
                .collect(),
            cells: writes.cells,
            entries: writes.entries.into_record(),
            timer_ops: cx.timers.ops,
            timer_keys: cx.timers.keys,
            timer_ids: cx.timers.ids,
            timer_times: cx.timers.times,
        })
    }

    /// Fails where state could not be used since this was asked last.
    pub(super) fn check_state(&self) -> Result<(), Failure> {
        match self.call.take_failure() {
            Some(message) => Err(failure(message)),
            None => Ok(()),
        }
    }

    /// Keeps or undoes the changes of a call to operator state.
    pub(super) fn end_operator_states(&mut self, keep: bool) {
        for column in self
            .operator_states
            .iter_mut()
            .filter_map(|(_, column)| column.as_mut())
        {
            column.end(keep);
        }
    }

    /// All operator state, and the private state.
    pub(super) fn save(&mut self, private: Option<&[u8]>) -> Result<Vec<StateItems>, Error> {
        let mut states = Vec::new();
        for (number, (name, column)) in self.operator_states.iter_mut().enumerate() {
            let items = match (column, private) {
                (Some(column), _) => column.save(),
                (None, Some(bytes)) => {
                    let mut items = Items::default();
                    items.push(bytes).map(|()| items)
                }
                (None, None) => Ok(Items::default()),
            };
            let Items { data, ends } = items.map_err(|error| format!("operator state `{name}`: {error}"))?;
            states.push(StateItems {
                state: number as u32,
                item_data: data,
                item_ends: ends,
            });
        }
        Ok(states)
    }

    /// Takes operator state back, and returns the parts of private state where there is any declared.
    pub(super) fn load(&mut self, states: &[StateItems]) -> Result<Option<Vec<Vec<u8>>>, Error> {
        let count = self.operator_states.len();
        if let Some(state) = states.iter().find(|state| state.state as usize >= count) {
            return Err(format!(
                "there is no operator state number {}: the operator declares {count}",
                state.state
            )
            .into());
        }
        let mut private = None;
        for (number, (name, column)) in self.operator_states.iter_mut().enumerate() {
            let mut items = Items::default();
            for state in states.iter().filter(|state| state.state as usize == number) {
                let before = items.data.len() as u32;
                items.data.extend_from_slice(&state.item_data);
                items.ends.extend(state.item_ends.iter().map(|end| before + end));
            }
            let broken = |error| Error::from(format!("operator state `{name}`: an item is broken: {error}"));
            match column {
                Some(column) => column.load(&items).map_err(broken)?,
                None => private = Some(items.decoded().collect::<Result<_, _>>().map_err(broken)?),
            }
        }
        debug_assert_eq!(private.is_some(), self.private_state, "it is kept as `{PRIVATE_STATE}`");
        Ok(private)
    }
}

#[cold]
fn keyless(port: &str, row: Option<u32>) -> Failure {
    Failure {
        row,
        message: format!(
            "a record was emitted on output `{port}` without a key: records of this output have keys of their own, so each \
             needs `.key(…)`"
        ),
    }
}

/// Checks that a call's cells are those of the states that travel, whose numbers are `travelling`.
fn check_cells(keys: usize, cells: &[Cells], travelling: &[u32]) -> Result<(), String> {
    if cells.len() != travelling.len() {
        return Err(format!(
            "the call has cells of {} states, and {} states travel",
            cells.len(),
            travelling.len()
        ));
    }
    for (cells, number) in cells.iter().zip(travelling) {
        if cells.state != *number {
            return Err(format!(
                "the call has cells of state {}, not of state {number}",
                cells.state
            ));
        }
        if cells.present.len() != keys || cells.ends.len() != keys {
            return Err(format!(
                "the call has {keys} keys, and for state {number} {} cells with {} ends",
                cells.present.len(),
                cells.ends.len()
            ));
        }
    }
    Ok(())
}

fn failure(message: String) -> Failure {
    Failure { row: None, message }
}
