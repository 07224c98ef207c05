//! The declaration of an operator, collected by its `declare`.
//!
//! Declaring is pure: it sees neither config nor arguments, so that a component can be asked what it is at any time.

mod json;

use crate::context::{Clock, Random, Timer};
use crate::key::ToKey;
use crate::operator_state::{BroadcastState, OperatorColumn, OperatorList};
use crate::output::Port;
use crate::schema::{Field, State, Type};
use crate::state::{
    Aggregate, AggregatingState, Call, ListState, MapKey, MapState, ReducingState, StateColumn, StateInfo, ValueState,
};
use crate::value::{PortValue, ValueType};
use serde::{Serialize, de::DeserializeOwned};
use std::sync::Arc;

/// The name by which private state is kept, as one item of an operator state that is a list.
pub(crate) const PRIVATE_STATE: &str = "private";

/// Collects states, timers, ports and wishes of an operator. Given to [`crate::Operator::declare`].
///
/// # Panics
///
/// Names must be unique among states, operator states, timers and outputs: a second one of the same name is a mistake
/// in the operator, which panics with a message that says so.
#[derive(Default)]
pub struct Declare {
    pub(crate) call: Arc<Call>,
    key_name: Option<String>,
    input_name: Option<String>,
    pub(crate) states: Vec<DeclaredState>,
    pub(crate) operator_states: Vec<DeclaredOperatorState>,
    pub(crate) timers: Vec<DeclaredTimer>,
    pub(crate) outputs: Vec<DeclaredOutput>,
    on_finish: bool,
    on_watermark: bool,
    pub(crate) private_state: bool,
    pub(crate) prefetch: bool,
    reads_clock: bool,
    reads_random: bool,
}

pub(crate) struct DeclaredState {
    version: Option<u32>,
    pub(crate) column: Box<dyn StateColumn>,
}

pub(crate) struct DeclaredOperatorState {
    pub(crate) name: String,
    kind: &'static str,
    schema: String,
    /// None for private state.
    pub(crate) column: Option<Box<dyn OperatorColumn>>,
}

pub(crate) struct DeclaredTimer {
    name: String,
    pub(crate) event_time: bool,
}

pub(crate) struct DeclaredOutput {
    pub(crate) name: String,
    key: Option<Field>,
    value: ValueType,
}

impl DeclaredOutput {
    /// Returns true if its records have keys of their own.
    pub(crate) fn has_own_keys(&self) -> bool {
        self.key.is_some()
    }
}

/// The methods that an operator has, as `#[operator]` finds them.
#[doc(hidden)]
#[allow(missing_docs)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods {
    pub prefetch: bool,
    pub on_timer: bool,
    pub finish: bool,
    pub finish_all: bool,
    pub on_watermark: bool,
    pub private_state: bool,
}

impl Methods {
    /// None but those that every operator has.
    pub const NONE: Methods = Methods {
        prefetch: false,
        on_timer: false,
        finish: false,
        finish_all: false,
        on_watermark: false,
        private_state: false,
    };
}

impl Declare {
    /// Names the key: the name of its column in savepoints and in outputs that keep the key. Default: `key`.
    pub fn key(&mut self, name: &str) {
        self.key_name = Some(name.into());
    }

    /// Names the input port. Default: `in`. Inputs of an enum that derives [`Inputs`](crate::Inputs) are named by their
    /// variants.
    pub fn input(&mut self, name: &str) {
        self.input_name = Some(name.into());
    }

    /// A keyed state of one value per key.
    ///
    /// It travels with the batch: it is decoded when first touched, and encoded once at the end of the call if it was
    /// written. Options follow: `d.value("profile").far().ttl(DAY)`.
    pub fn value<T>(&mut self, name: &str) -> ValueState<T>
    where
        T: State + Serialize + DeserializeOwned + Send + 'static,
    {
        let (state, column) = ValueState::new(self.state_info(name, "value", T::schema()));
        self.add_state(column);
        state
    }

    /// A keyed state of a list per key, which does not travel: appending reads nothing.
    pub fn list<T>(&mut self, name: &str) -> ListState<T>
    where
        T: State + Serialize + DeserializeOwned + 'static,
    {
        let (state, column) = ListState::new(self.state_info(name, "list", T::schema()));
        self.add_state(column);
        state
    }

    /// A keyed state of a map per key, which does not travel: entries are read when they are touched.
    pub fn map<K, V>(&mut self, name: &str) -> MapState<K, V>
    where
        K: MapKey,
        V: State + Serialize + DeserializeOwned + Send + 'static,
    {
        let (state, column) = MapState::new(self.state_info(name, "map", V::schema()));
        self.add_state(column);
        state
    }

    /// A keyed state of one value per key, into which values of the same type are folded by `reduce`:
    /// `d.reducing("highest", |a: &mut u64, b| *a = (*a).max(b))`.
    pub fn reducing<T>(&mut self, name: &str, reduce: fn(&mut T, T)) -> ReducingState<T>
    where
        T: State + Serialize + DeserializeOwned + Send + 'static,
    {
        let (state, column) = ReducingState::new(self.state_info(name, "reducing", T::schema()), reduce);
        self.add_state(column);
        state
    }

    /// A keyed state of one [`Aggregate`] per key.
    pub fn aggregating<A: Aggregate>(&mut self, name: &str) -> AggregatingState<A> {
        let (state, column) = AggregatingState::new(self.state_info(name, "aggregating", A::schema()));
        self.add_state(column);
        state
    }

    fn state_info(&self, name: &str, kind: &'static str, schema: Type) -> StateInfo {
        assert!(
            self.states.iter().all(|state| state.column.info().name != name),
            "state `{name}` is declared twice"
        );
        StateInfo::new(self.call.clone(), name, self.states.len(), kind, schema.to_json())
    }

    fn add_state(&mut self, column: Box<dyn StateColumn>) {
        self.states.push(DeclaredState { version: None, column });
    }

    /// Gives a declared state a version number, which is shown to people and never compared.
    ///
    /// # Panics
    ///
    /// When there is no state of this name.
    pub fn state_version(&mut self, name: &str, version: u32) {
        match self.states.iter_mut().find(|state| state.column.info().name == name) {
            Some(state) => state.version = Some(version),
            None => panic!("state `{name}` is not declared"),
        }
    }

    /// Operator state that is a list of items, which the instances share out evenly when their number changes.
    pub fn list_state<T>(&mut self, name: &str) -> OperatorList<T>
    where
        T: State + Serialize + DeserializeOwned + Send + 'static,
    {
        let (state, column) = OperatorList::new(self.call.clone(), name);
        self.add_operator_state(name, "list", T::schema(), Some(column));
        state
    }

    /// Operator state that is a list of items, of which each instance gets all items of all after a restore. It keeps its
    /// own in [`Operator::restored`](crate::Operator::restored).
    pub fn union_state<T>(&mut self, name: &str) -> OperatorList<T>
    where
        T: State + Serialize + DeserializeOwned + Send + 'static,
    {
        let (state, column) = OperatorList::new(self.call.clone(), name);
        self.add_operator_state(name, "union", T::schema(), Some(column));
        state
    }

    /// Operator state that is a table which all instances have alike, filled from an input that comes `by = "broadcast"`.
    pub fn broadcast_state<K, V>(&mut self, name: &str) -> BroadcastState<K, V>
    where
        K: State + Serialize + DeserializeOwned + Ord + Clone + Send + 'static,
        V: State + Serialize + DeserializeOwned + Send + 'static,
    {
        let (state, column) = BroadcastState::new(self.call.clone(), name);
        self.add_operator_state(name, "broadcast", <(K, V)>::schema(), Some(column));
        state
    }

    /// The operator keeps something in itself between calls, which [`Operator::snapshot_private`](crate::Operator) saves
    /// and `restore_private` takes back. The host then does not replace the instance between calls, and cannot take a
    /// record that traps out of its batch: the job goes back to its last checkpoint instead. Handles are better.
    ///
    /// Under `#[operator]` the two methods ask for themselves.
    ///
    /// It is kept as an operator state by the name `private`.
    pub fn private_state(&mut self) {
        if self.private_state {
            return;
        }
        self.private_state = true;
        self.add_operator_state(PRIVATE_STATE, "list", <[u8]>::schema(), None);
    }

    fn add_operator_state(
        &mut self,
        name: &str,
        kind: &'static str,
        schema: Type,
        column: Option<Box<dyn OperatorColumn>>,
    ) {
        assert!(
            self.operator_states.iter().all(|state| state.name != name),
            "operator state `{name}` is declared twice"
        );
        self.operator_states.push(DeclaredOperatorState {
            name: name.into(),
            kind,
            schema: schema.to_json(),
            column,
        });
    }

    /// A timer by event time: it fires when the operator's watermark has reached the time that it was set for.
    pub fn timer(&mut self, name: &str) -> Timer {
        self.add_timer(name, true)
    }

    /// A timer by processing time: it fires when the clock has reached the time that it was set for.
    pub fn processing_timer(&mut self, name: &str) -> Timer {
        self.add_timer(name, false)
    }

    fn add_timer(&mut self, name: &str, event_time: bool) -> Timer {
        assert!(
            self.timers.iter().all(|timer| timer.name != name),
            "timer `{name}` is declared twice"
        );
        self.timers.push(DeclaredTimer {
            name: name.into(),
            event_time,
        });
        Timer(self.timers.len() as u32 - 1)
    }

    /// An output whose records keep the key of the record they come from. `V` is `str`, `[u8]` or a record struct.
    pub fn output<V: PortValue + ?Sized>(&mut self, name: &str) -> Port<V> {
        Port::new(self.add_output(name, None, V::value_type()))
    }

    /// An output whose records get a key of their own: of type `K`, in a column named `key`.
    pub fn output_keyed<K: ToKey + ?Sized, V: PortValue + ?Sized>(&mut self, name: &str, key: &str) -> Port<V, K> {
        Port::new(self.add_output(name, Some(Field::plain(key.into(), K::key_type())), V::value_type()))
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

    /// Asks for [`crate::Operator::finish`] and [`crate::Operator::finish_all`] at the end of all inputs. Under
    /// `#[operator]` the methods ask for themselves.
    pub fn on_finish(&mut self) {
        self.on_finish = true;
    }

    /// Asks for [`crate::Operator::on_watermark`]. Under `#[operator]` the method asks for itself.
    pub fn on_watermark(&mut self) {
        self.on_watermark = true;
    }

    /// Asks for [`crate::Operator::prefetch`]: each record is then decoded twice. Under `#[operator]` the method asks for
    /// itself.
    pub fn prefetch(&mut self) {
        self.prefetch = true;
    }

    /// Declares what follows from the methods that the operator has.
    ///
    /// # Panics
    ///
    /// When there is `on_timer` and no timer is declared, or the other way round.
    pub(crate) fn methods(&mut self, methods: Methods) {
        self.prefetch |= methods.prefetch;
        self.on_finish |= methods.finish || methods.finish_all;
        self.on_watermark |= methods.on_watermark;
        if methods.private_state {
            self.private_state();
        }
        match self.timers.first() {
            Some(timer) if !methods.on_timer => {
                panic!(
                    "the operator declares timer `{}`, and has no method `on_timer`",
                    timer.name
                )
            }
            None if methods.on_timer => panic!("the operator has a method `on_timer`, and declares no timer"),
            _ => {}
        }
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
}
