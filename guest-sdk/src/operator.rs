//! The trait that a guest implements.

use crate::context::{Ctx, OpenContext, Timer};
use crate::declare::Declare;
use crate::error::Result;
use crate::key::FromKey;
use crate::value::FromValue;

/// An operator: what happens to each record.
///
/// # Contract
///
/// - Nothing that matters may be kept in the operator between calls: the host may replace the instance at any time.
///   State is in handles; what comes from the config is set in `open`. (The exception has a name:
///   [`Declare::private_state`].)
/// - An error fails the call for the row at hand: nothing that the call has emitted or written is kept.
/// - `declare` is pure: the same every time, and it cannot see the config.
pub trait Operator: Sized + 'static {
    /// What keys are read as: `&'a str`, `&'a [u8]`, an integer, a tuple, [`Compound`](crate::Compound) or, for an
    /// operator that reads none, `()`.
    type Key<'a>: FromKey<'a>;

    /// What values are read as: [`Text`](crate::Text), [`Bytes`](crate::Bytes), [`Typed`](crate::Typed) or
    /// [`Any`](crate::Any), or an enum of these with a variant for each input, that derives [`Inputs`](crate::Inputs).
    type In<'a>: FromValue<'a>;

    /// Says what the operator is, and makes it with the handles it gets for that.
    fn declare(d: &mut Declare) -> Self;

    /// Called once before any record, with config and arguments.
    ///
    /// # Errors
    ///
    /// An error fails the deployment.
    fn open(&mut self, _cx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Operator state is there again: called after `open` where the job goes on from a snapshot. The place to keep one's
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

    /// Comes for each record of a batch before `process` comes for the first one, where [`Declare::prefetch`] was called:
    /// to say with [`MapState::prefetch`](crate::MapState::prefetch) which entries the record will touch. Worth it where
    /// most records touch a map: all those reads become one.
    ///
    /// # Errors
    ///
    /// As [`process`](Self::process).
    fn prefetch(&mut self, _key: Self::Key<'_>, _value: Self::In<'_>) -> Result<()> {
        Ok(())
    }

    /// A timer fires that [`Ctx::at`] has set, for its key. `at` is the time that it was set for, in milliseconds; the
    /// watermark or the clock may be later. In a call at most one timer of a key fires.
    ///
    /// # Errors
    ///
    /// An error is a declared failure of this timer, which does not fire again.
    fn on_timer(&mut self, _key: Self::Key<'_>, _timer: Timer, _at: i64, _cx: &mut Ctx<'_>) -> Result<()> {
        Err("a timer has fired, and the operator has no `on_timer`".into())
    }

    /// The end of all inputs, for each key there is. Called where [`Declare::on_finish`] was, for operators with keys.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn finish(&mut self, _key: Self::Key<'_>, _cx: &mut Ctx<'_>) -> Result<()> {
        Ok(())
    }

    /// The end of all inputs, once, after all keys. Called where [`Declare::on_finish`] was. Records emitted here have
    /// no row to inherit from: without a key of their own theirs is empty, and they have no timestamp.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn finish_all(&mut self, _cx: &mut Ctx<'_>) -> Result<()> {
        Ok(())
    }

    /// The watermark has advanced to `watermark`, in milliseconds. Called where [`Declare::on_watermark`] was. As in
    /// `finish_all`, there is no row.
    ///
    /// # Errors
    ///
    /// An error fails the job.
    fn on_watermark(&mut self, _watermark: i64, _cx: &mut Ctx<'_>) -> Result<()> {
        Ok(())
    }

    /// What the operator keeps in itself, as bytes. Called at a snapshot where [`Declare::private_state`] was.
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
