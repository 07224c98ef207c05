//! The call stands first.

#[operator]
fn shout(cx: &mut Ctx, line: &str, out: Port<str>) {}

//~ 4:30 an operator's function is `fn name(value: &str, out: Port<str>, cx: &mut Ctx)`: the record's value, or its key and its value, then an output port or more, then the call
