//! The Rust form of `wit/`: generated, nothing by hand. Operators never name it; `operator!` and the native driver do.
//!
//! The records here are the ones that cross the boundary, on wasm and natively alike, so that a native run of an
//! operator takes and returns the same columns.

#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../wit",
    world: "operator",
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "regraft_sdk::bindings",
});
