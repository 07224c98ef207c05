//! Decides whether state that exists can be taken over by a job: one verdict for a restore and for an upgrade.
//!
//! [`compare`] is pure: facts about what was saved or runs ([`Existing`]), what the new job declares ([`NewJob`]) and what
//! may be lost ([`RestoreOptions`]) become a [`Verdict`] per uid and per state. Every reason is a [`Problem`] with a code, one
//! text and a remedy; a restore and an upgrade refuse with the same ones.
//!
//! Keys, and the keys of maps, never change their type. A state that both sides have must have the same schema, so that the
//! old code can go on with it after the new one.
//!
//! Admission checks that components fit the edges between them.

mod facts;
mod problem;
mod verdict;
mod compare;

pub use compare::compare;
pub use facts::{Existing, ExistingState, ExistingTimer, ExistingUid, NewJob, NewNode, Place, RestoreOptions, Size};
pub use problem::{Problem, Reason};
pub use verdict::{Action, Fate, Refusal, StateVerdict, UidVerdict, Verdict};

#[cfg(test)]
mod tests;
