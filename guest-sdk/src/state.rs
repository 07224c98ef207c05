//! Keyed state, as handles.
//!
//! A call brings its keys, and the encoded values of the states that travel. A handle decodes the current key's value
//! when it is first touched, keeps it for the rest of the call, and what was written is encoded once at the call's end.
//! State that does not travel is read by imports, which see the state as it was before the call; a handle puts the
//! call's own writes over that. Between calls a handle holds nothing: the host has the state.
//!
//! The runtime and a handle share what a call knows, in a cell that lets them in by turns (`cell`). A handle that is used
//! where it is not its turn, or where no key is at hand, fails the call.

mod call;
mod cell;
mod column;
mod folding;
mod list;
mod map;
mod overlay;
mod reads;
mod value;

pub(crate) use call::Call;
pub(crate) use cell::{HandleSide, RuntimeSide, share};
pub(crate) use column::{StateColumn, StateInfo, Writes};
pub use folding::{Aggregate, AggregatingState, ReducingState};
pub use list::ListState;
pub use map::{MapKey, MapState};
#[cfg(not(target_family = "wasm"))]
pub use reads::StateReads;
pub use value::ValueState;
