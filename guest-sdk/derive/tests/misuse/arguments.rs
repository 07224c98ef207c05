//! The attribute has arguments.

#[operator(final)]
fn shout(line: &str, out: Port<str>, cx: &mut Ctx) {}

//~ 3:12 `#[operator]` takes no arguments
