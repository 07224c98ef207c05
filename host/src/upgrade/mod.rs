//! Changing a running job: the hot swap.
//!
//! - [`compat`]: may the new component take over the old one's state and place? Pure.
//! - [`run`]: prepare beside the running job, swap at one barrier, report.

pub mod compat;
pub mod run;
