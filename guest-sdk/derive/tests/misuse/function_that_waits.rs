//! A function is `async` and has a type parameter.

#[operator]
async fn shout<T>(line: T, out: Port<str>, cx: &mut Ctx) {}

//~ 4:1 an operator's function cannot be `async`: a call is over when it returns
//~ 4:15 an operator has no type parameters: its component exports one type
