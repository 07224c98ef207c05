//! The attribute stands on a struct.

#[operator]
struct Count;

//~ 4:1 `#[operator]` belongs on an `impl Operator for …`, or on a function
