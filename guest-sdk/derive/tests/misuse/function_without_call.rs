//! A function has an output and no call.

#[operator]
fn shout(line: &str, out: Port<str>) {}

//~ 4:4 `cx: &mut Ctx` is missing, the last parameter: `cx.emit(out, …)` emits
