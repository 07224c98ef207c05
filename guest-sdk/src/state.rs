//! Keyed state, as handles.
//!
//! A call brings its keys, and the encoded values of the states that travel. A handle decodes the current key's value
//! when it is first touched, keeps it for the rest of the call, and what was written is encoded once at the call's end.
//! What does not travel is read by imports, which see the state as it was before the call; a handle puts the call's own
//! writes over that. Between calls a handle holds nothing: the host has the state.
//!
//! # How access stays sound
//!
//! The runtime and the handle share what a call knows. A handle is not `Clone`, its methods that write take
//! `&mut self`, and values are handed out by copy or to a closure, never by reference: so no two borrows can exist that
//! exclude each other, and none outlives a call. A handle works only on the thread that is in a call of its instance
//! (`Call::enter`), during which the runtime touches nothing.

mod call;
mod column;
mod folding;
mod list;
mod map;
mod overlay;
mod reads;
mod value;

pub(crate) use call::Call;
pub(crate) use column::{StateColumn, StateInfo, Writes};
pub use folding::{Aggregate, AggregatingState, ReducingState};
pub use list::ListState;
pub use map::{MapKey, MapState};
#[cfg(not(target_family = "wasm"))]
pub use reads::StateReads;
pub use value::ValueState;
