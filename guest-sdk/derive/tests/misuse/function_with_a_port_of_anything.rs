//! A port does not say what it carries.

#[operator]
fn shout(line: &str, out: Port, cx: &mut Ctx) {}

//~ 4:27 a port says what it carries: `Port<str>`, or `Port<V, K>` with keys of its own
