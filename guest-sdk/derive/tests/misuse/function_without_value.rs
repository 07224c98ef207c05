//! A function reads nothing.

#[operator]
fn shout(out: Port<str>, cx: &mut Ctx) {}

//~ 4:4 an operator's function is `fn name(value: &str, out: Port<str>, cx: &mut Ctx)`: the record's value, or its key and its value, then an output port or more, then the call
