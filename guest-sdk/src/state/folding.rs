//! Keyed state that is folded into: to the host these are values, of kinds of their own.

use super::column::{StateColumn, StateInfo};
use super::value::{Slot, ValueState};
use crate::schema::State;
use serde::{Serialize, de::DeserializeOwned};
use std::time::Duration;

/// A keyed state of one value per key, into which values of the same type are folded. Made by
/// [`Declare::reducing`](crate::Declare::reducing).
///
/// Fails the call if it has no key, as [`ValueState`] does.
pub struct ReducingState<T> {
    value: ValueState<T>,
    reduce: fn(&mut T, T),
}

impl<T> ReducingState<T>
where
    T: State + Serialize + DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(info: StateInfo, reduce: fn(&mut T, T)) -> (Self, Box<dyn StateColumn>) {
        let (value, column) = ValueState::new(info);
        (ReducingState { value, reduce }, column)
    }

    /// As [`ValueState::far`].
    pub fn far(self) -> Self {
        let value = self.value.far();
        ReducingState { value, ..self }
    }

    /// As [`ValueState::ttl`].
    ///
    /// # Panics
    ///
    /// When it is shorter than a millisecond.
    pub fn ttl(self, ttl: Duration) -> Self {
        let value = self.value.ttl(ttl);
        ReducingState { value, ..self }
    }

    /// Folds a value in. The first one of a key becomes the state's value.
    #[inline]
    pub fn add(&mut self, value: T) {
        let slot = self.value.slot();
        if slot.get().is_some() {
            (self.reduce)(slot.change(|| unreachable!("the slot has a value")), value);
        } else {
            *slot = Slot::Dirty(value);
        }
    }

    /// Returns a copy of the folded value. `None` if nothing was folded in.
    #[inline]
    pub fn get(&mut self) -> Option<T>
    where
        T: Clone,
    {
        self.value.get()
    }

    /// Looks at what was folded together, without copying it.
    #[inline]
    pub fn read<R>(&mut self, look: impl FnOnce(Option<&T>) -> R) -> R {
        self.value.read(look)
    }

    /// Removes what was folded together, and returns it.
    #[inline]
    pub fn remove(&mut self) -> Option<T> {
        self.value.remove()
    }

    /// Removes what was folded together, without looking at it.
    #[inline]
    pub fn clear(&mut self) {
        self.value.clear();
    }
}

/// Folds values of one type into another, and turns that into a result, for an [`AggregatingState`].
///
/// ```
/// # use regraft_sdk::{Aggregate, State};
/// # use serde::{Serialize, Deserialize};
/// #[derive(State, Serialize, Deserialize, Default)]
/// struct Mean { sum: f64, count: u64 }
///
/// impl Aggregate for Mean {
///     type In = f64;
///     type Out = f64;
///     fn add(&mut self, value: f64) {
///         self.sum += value;
///         self.count += 1;
///     }
///     fn result(&self) -> f64 {
///         self.sum / self.count as f64
///     }
/// }
/// ```
pub trait Aggregate: State + Serialize + DeserializeOwned + Default + Send + 'static {
    /// Type of the values that are folded in.
    type In;

    /// Type of the result.
    type Out;

    /// Folds a value in.
    fn add(&mut self, value: Self::In);

    /// Returns the result so far.
    fn result(&self) -> Self::Out;
}

/// A keyed state of one [`Aggregate`] per key. Made by [`Declare::aggregating`](crate::Declare::aggregating).
///
/// Fails the call if it has no key, as [`ValueState`] does.
pub struct AggregatingState<A>(ValueState<A>);

impl<A: Aggregate> AggregatingState<A> {
    pub(crate) fn new(info: StateInfo) -> (Self, Box<dyn StateColumn>) {
        let (value, column) = ValueState::new(info);
        (AggregatingState(value), column)
    }

    /// As [`ValueState::far`].
    pub fn far(self) -> Self {
        AggregatingState(self.0.far())
    }

    /// As [`ValueState::ttl`].
    ///
    /// # Panics
    ///
    /// When it is shorter than a millisecond.
    pub fn ttl(self, ttl: Duration) -> Self {
        AggregatingState(self.0.ttl(ttl))
    }

    /// Folds a value in, into the type's default where there is nothing yet.
    #[inline]
    pub fn add(&mut self, value: A::In) {
        self.0.update(|aggregate| aggregate.add(value));
    }

    /// Returns the result so far. `None` if nothing was folded in.
    #[inline]
    pub fn get(&mut self) -> Option<A::Out> {
        self.0.read(|aggregate| aggregate.map(A::result))
    }

    /// Removes the aggregate, and returns what has come of it.
    #[inline]
    pub fn remove(&mut self) -> Option<A::Out> {
        self.0.remove().map(|aggregate| aggregate.result())
    }

    /// Removes the aggregate, without looking at it.
    #[inline]
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
