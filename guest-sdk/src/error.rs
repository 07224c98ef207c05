//! The error that an operator returns: anything that can be told to a person.
//!
//! A returned error is a *declared failure*: the call's effects are dropped, and the host is told the message and the
//! row. It is not a panic, and a job may treat the two differently.

use std::error::Error as StdError;
use std::fmt;

/// Failure of an operator. Made by `?` or `.into()` from any `std::error::Error`, from `&str` and from `String`.
///
/// It does not implement `std::error::Error` itself: that is what lets everything else convert into it.
///
/// ```
/// # use regraft_sdk::Result;
/// fn parse(text: &str) -> Result<u64> {
///     if text.is_empty() {
///         return Err("an empty number".into());
///     }
///     Ok(text.parse()?)
/// }
/// assert_eq!(parse("").unwrap_err().to_string(), "an empty number");
/// ```
pub struct Error(Box<dyn StdError + Send + Sync>);

/// The result of an operator's method.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Error {
    fn from(error: E) -> Self {
        Error(error.into())
    }
}

impl fmt::Display for Error {
    /// The message, and after it those of its causes that it does not already contain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut message = self.0.to_string();
        f.write_str(&message)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let next = error.to_string();
            if !message.contains(&next) {
                write!(f, ": {next}")?;
                message = next;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
