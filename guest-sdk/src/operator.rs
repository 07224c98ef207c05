//! The trait that a guest implements.

use crate::context::{Ctx, OpenContext, Timer};
use crate::declare::{Declare, Methods};
use crate::error::Result;
use crate::key::FromKey;
use crate::value::FromValue;

/// An operator: it has a method that is called with each record, and handles to its state.
///
/// It is implemented under [`#[operator]`](macro@crate::operator), which takes `Key` and `In` from `process`, declares
/// the calls that the operator has methods for, and exports it from the component. Without that attribute both types are
/// written out, calls are asked for in `declare` ([`Declare::on_finish`] and its siblings), and
/// [`export_operator!`](crate::export_operator) exports.
///
/// # Contract
///
/// - Nothing that matters may be kept in the operator between calls: the host may replace the instance at any time.
///   State is in handles; settings of the config are set in `open`. (The exception has a name:
///   [`Declare::private_state`].)
/// - An error fails the call for the row at hand: nothing that the call has emitted or written is kept.
/// - `declare` is pure: the same every time, and it cannot see the config.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no operator",
    note = "write `#[operator]` on its `impl Operator for {Self}`, or on a function"
)]
pub trait Operator: Sized + 'static {
    /// Type that keys are read as: `&'a str`, `&'a [u8]`, an integer, a tuple, [`Compound`](crate::Compound) or, for an
    /// operator that reads none, `()`. Under `#[operator]` it is that of the key in `process`, and `()` where `process`
    /// takes no key.
    type Key<'a>: FromKey<'a>;

    /// Type that values are read as: `&'a str`, `&'a [u8]`, a record or [`Any`](crate::Any), or an enum of these with a
    /// variant for each input, that derives [`Inputs`](crate::Inputs). Under `#[operator]` it is that of the value in
    /// `process`.
    type In<'a>: FromValue<'a>;

    /// The methods that there are, where `#[operator]` has looked.
    #[doc(hidden)]
    const METHODS: Option<Methods> = None;

    /// Declares the operator, and makes it with the handles it gets for that.
    fn declare(d: &mut Declare) -> Self;

    /// Called once before any record, with config and arguments.
    ///
    /// # Errors
    ///
    /// An error fails the deployment.
    fn open(&mut self, _cx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Called after `open` where the job goes on from a snapshot: operator state is there again. The place to keep one's
    /// own of a union state, and to make what follows from operator state.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn restored(&mut self, _cx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Processes one record.
    ///
    /// # Errors
    ///
    /// An error is a declared failure of this record.
    fn process(&mut self, key: Self::Key<'_>, value: Self::In<'_>, cx: &mut Ctx<'_>) -> Result<()>;

    /// Called for each record of a batch before `process` is for the first one, to say with
    /// [`MapState::prefetch`](crate::MapState::prefetch) which entries the record will touch. Worth it where most records
    /// touch a map: all those reads become one, and each record is decoded twice. Without `#[operator]`,
    /// [`Declare::prefetch`] asks for it.
    ///
    /// # Errors
    ///
    /// As [`process`](Self::process).
    fn prefetch(&mut self, _key: Self::Key<'_>, _value: Self::In<'_>) -> Result<()> {
        Ok(())
    }

    /// Called when a timer fires that [`Ctx::at`] has set, for its key. `at` is the time that it was set for, in
    /// milliseconds; the watermark or the clock may be later. In a call at most one timer of a key fires.
    ///
    /// # Errors
    ///
    /// An error is a declared failure of this timer, which does not fire again.
    fn on_timer(&mut self, _key: Self::Key<'_>, _timer: Timer, _at: i64, _cx: &mut Ctx<'_>) -> Result<()> {
        Err("a timer has fired, and the operator has no `on_timer`".into())
    }

    /// Called at the end of all inputs, for each key there is, for operators with keys. Without `#[operator]`,
    /// [`Declare::on_finish`] asks for it.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn finish(&mut self, _key: Self::Key<'_>, _cx: &mut Ctx<'_>) -> Result<()> {
        Ok(())
    }

    /// Called at the end of all inputs, once, after all keys. Records emitted here have no row to inherit from: without a
    /// key of their own theirs is empty, and they have no timestamp. Without `#[operator]`, [`Declare::on_finish`] asks
    /// for it.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn finish_all(&mut self, _cx: &mut Ctx<'_>) -> Result<()> {
        Ok(())
    }

    /// Called when the watermark has advanced to `watermark`, in milliseconds. As in `finish_all`, there is no row.
    /// Without `#[operator]`, [`Declare::on_watermark`] asks for it.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn on_watermark(&mut self, _watermark: i64, _cx: &mut Ctx<'_>) -> Result<()> {
        Ok(())
    }

    /// Returns the operator's private state, as bytes. Called at a snapshot. Without `#[operator]`,
    /// [`Declare::private_state`] asks for it.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn snapshot_private(&mut self) -> Result<Vec<u8>> {
        Err("the operator declares private state, and has no `snapshot_private`".into())
    }

    /// Takes back what [`snapshot_private`](Self::snapshot_private) gave: after `open`, where the job goes on from a
    /// snapshot. At another parallelism the parts of all instances are dealt out evenly: there may be none, or several.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn restore_private(&mut self, _parts: Vec<Vec<u8>>) -> Result<()> {
        Err("the operator declares private state, and has no `restore_private`".into())
    }
}
