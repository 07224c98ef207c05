//! Write operators of Regraft jobs: a trait with one method per record, typed state, compiled to a WebAssembly
//! component. Columns, codecs, schemas and exports are this crate's business.
//!
//! The smallest whole operator is a function from a record to others:
//!
//! ```
//! use regraft_sdk::{Ctx, Port, operator};
//!
//! #[operator]
//! fn shout(line: &str, out: Port<str>, cx: &mut Ctx) {
//!     cx.emit(out, line.to_uppercase().as_str());
//! }
//!
//! // It runs natively, too: in a unit test, without a host.
//! use regraft_sdk::testing::{Harness, Input};
//! let emitted = Harness::<shout>::new().process([Input::value("to be")]).unwrap();
//! assert_eq!(emitted[0].text().unwrap(), "TO BE");
//! ```
//!
//! One with state is a struct of handles, here a keyed count:
//!
//! ```
//! use regraft_sdk::{Any, Ctx, Declare, Operator, Port, Record, Result, ValueState, operator};
//! use serde::Serialize;
//!
//! #[derive(Record, Serialize)]
//! struct Counted<'a> {
//!     word: &'a str,
//!     count: u64,
//! }
//!
//! struct Count {
//!     count: ValueState<u64>,
//!     out: Port<Counted<'static>>,
//! }
//!
//! #[operator]
//! impl Operator for Count {
//!     fn declare(d: &mut Declare) -> Self {
//!         d.key("word");
//!         Count { count: d.value("count"), out: d.output("counts") }
//!     }
//!
//!     fn process(&mut self, word: &str, _: Any<'_>, cx: &mut Ctx) -> Result<()> {
//!         let count = self.count.update(|count| {
//!             *count += 1;
//!             *count
//!         });
//!         cx.emit(self.out, &Counted { word, count });
//!         Ok(())
//!     }
//! }
//!
//! # use regraft_sdk::testing::{Harness, Input};
//! let mut harness = Harness::<Count>::new();
//! harness.process([Input::keyed("a", ""), Input::keyed("b", ""), Input::keyed("a", "")]).unwrap();
//! assert_eq!(harness.state::<String, u64>("count").unwrap()["a"], 2);
//! ```
//!
//! The crate is the guest's side of `wit/`, and knows nothing of the host but that. Modules, each using only those
//! above it:
//!
//! - `bindings`: the generated records, hidden; [`error`]: the error that operators return.
//! - `bytes`: appending to columns, [`codec`]: bincode's only home, `plain`: its bytes without it, [`schema`]: types as
//!   the host sees them.
//! - [`key`], [`value`]: types that records are read and written as; [`state`], [`operator_state`]: handles; [`host`]: log
//!   and metrics.
//! - [`output`]: emitting; [`context`]: the call at hand; [`declare`]: an operator's declaration; [`operator`](mod@operator):
//!   the trait.
//! - [`native`]: one instance, driven by the boundary's records; `export`: the same behind a component's exports.
//! - [`testing`]: runs an operator in a unit test, as the host would.

#![warn(missing_docs)]

// Lets the derived code name this crate in its own tests.
extern crate self as regraft_sdk;

#[doc(hidden)]
pub mod bindings;
pub mod error;
mod bytes;
pub mod codec;
#[doc(hidden)]
pub mod plain;
pub mod schema;
pub mod key;
pub mod value;
pub mod state;
pub mod operator_state;
pub mod host;
#[cfg(any(target_family = "wasm", test))]
mod hint;
pub mod output;
pub mod context;
pub mod declare;
pub mod operator;
pub mod native;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod export;
#[cfg(not(target_family = "wasm"))]
pub mod testing;

pub use bytes::Writer;
pub use context::{Clock, Ctx, OpenContext, Random, Timer};
pub use declare::Declare;
pub use error::{Error, Result};
pub use host::{log, metrics, stdio};
pub use key::Compound;
pub use operator::Operator;
pub use operator_state::{BroadcastState, OperatorList};
pub use output::{Emission, Emitter, NO_TIMESTAMP, Port};
pub use regraft_sdk_derive::Inputs;
pub use regraft_sdk_derive::State;
pub use regraft_sdk_derive::State as Record;
pub use regraft_sdk_derive::operator;
pub use schema::{Record, State};
pub use state::{Aggregate, AggregatingState, ListState, MapKey, MapState, ReducingState, ValueState};
pub use value::{Any, Bytes, Text, Typed};

/// Exports an operator from its component. Once in a crate; natively it defines nothing.
///
/// [`#[operator]`](macro@operator) does this. It is for an operator whose [`Operator`] is implemented without that.
#[macro_export]
macro_rules! export_operator {
    ($operator:ty) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::bindings::exports::regraft::operator as __exports;
            use $crate::native as __native;

            static INSTANCE: $crate::export::Slot<$operator> = $crate::export::Slot::new();

            struct Component;

            type Called<T> = ::core::result::Result<T, __native::Failure>;

            impl __exports::guest::Guest for Component {
                fn describe() -> ::std::string::String {
                    INSTANCE.describe()
                }
                fn open(header: __native::Header, context: __native::OpenRecord) -> Called<()> {
                    INSTANCE.open(header, context)
                }
                fn process(
                    header: __native::Header,
                    records: __native::Batch,
                    state: __native::Keyed,
                ) -> Called<__native::Outcome> {
                    INSTANCE.process(header, records, state)
                }
            }

            impl __exports::timers::Guest for Component {
                fn on_timers(
                    header: __native::Header,
                    timers: __native::TimerBatch,
                    state: __native::Keyed,
                ) -> Called<__native::Outcome> {
                    INSTANCE.on_timers(header, timers, state)
                }
            }

            impl __exports::watermarks::Guest for Component {
                fn on_watermark(header: __native::Header) -> Called<__native::Outcome> {
                    INSTANCE.on_watermark(header)
                }
            }

            impl __exports::ending::Guest for Component {
                fn finish_keys(header: __native::Header, state: __native::Keyed) -> Called<__native::Outcome> {
                    INSTANCE.finish_keys(header, state)
                }
                fn finish(header: __native::Header) -> Called<__native::Outcome> {
                    INSTANCE.finish(header)
                }
            }

            impl __exports::operator_state::Guest for Component {
                fn snapshot(_: __native::Header, _: u64) -> Called<::std::vec::Vec<__native::StateItems>> {
                    INSTANCE.snapshot()
                }
                fn restore(header: __native::Header, states: ::std::vec::Vec<__native::StateItems>) -> Called<()> {
                    INSTANCE.restore(header, states)
                }
            }

    $crate::bindings::export!(Component with_types_in $crate::bindings);
        };

        // Says early, and on every target, when the type is no operator.
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_operator<O: $crate::Operator>() {}
            is_operator::<$operator>();
        };
    };
}
