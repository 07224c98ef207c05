//! The trait that a guest implements.

use crate::context::{Ctx, OpenContext};
use crate::declare::Declare;
use crate::error::Result;
use crate::key::FromKey;
use crate::value::FromValue;

/// An operator: what happens to each record.
///
/// # Contract
///
/// - Nothing that matters may be kept in the operator between calls: the host may replace the instance at any time.
///   Keyed state is in handles; what comes from the config is set in `open`.
/// - An error fails the call for the row at hand: nothing that the call has emitted or written is kept.
/// - `declare` is pure: the same every time, and it cannot see the config.
pub trait Operator: Sized + 'static {
    /// What keys are read as: `&'a str`, `&'a [u8]`, an integer, a tuple, [`Compound`](crate::Compound) or, for an
    /// operator that reads none, `()`.
    type Key<'a>: FromKey<'a>;

    /// What values are read as: [`Text`](crate::Text), [`Bytes`](crate::Bytes), [`Typed`](crate::Typed) or
    /// [`Any`](crate::Any).
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

    /// Processes one record.
    ///
    /// # Errors
    ///
    /// An error is a declared failure of this record.
    fn process(&mut self, key: Self::Key<'_>, value: Self::In<'_>, cx: &mut Ctx<'_>) -> Result<()>;

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
}
