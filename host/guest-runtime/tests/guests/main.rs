//! The runtime against real guests: what is refused, what is called, and what each misbehaviour is told as.

mod support;

mod calls;
mod hostile;
mod load;
mod sdk;
