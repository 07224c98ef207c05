//! The Rust form of `wit/`: generated, nothing by hand. Operators never name it; `operator!` and the native driver do.
//!
//! The records here are the ones that cross the boundary, on wasm and natively alike, so that a native run of an
//! operator takes and returns the same columns.

#![allow(missing_docs, clippy::all)]

wit_bindgen::generate!({
    path: "../wit",
    // What the SDK implements for every operator. `describe` says which of it is to be called.
    inline: r"
        package regraft:sdk;

        world sdk {
            include regraft:operator/operator@0.2.0;
            export regraft:operator/timers@0.2.0;
            export regraft:operator/watermarks@0.2.0;
            export regraft:operator/ending@0.2.0;
            export regraft:operator/operator-state@0.2.0;
        }
    ",
    generate_all,
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "regraft_sdk::bindings",
});
