//! A key is named that is no output's.

#[operator]
fn shout(#[key = "word"] line: &str, #[key = "word"] out: Port<str>, #[key] other: Port<str, str>, cx: &mut Ctx) {}

//~ 4:10 `#[key = "…"]` names the keys of an output, which is a `Port<V, K>`
